package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/backup"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
)

var dumpFormats = map[string]inventoryv1.DumpFormat{
	"copy": inventoryv1.DumpFormat_DUMP_FORMAT_COPY_TEXT,
	"csv":  inventoryv1.DumpFormat_DUMP_FORMAT_CSV,
	"json": inventoryv1.DumpFormat_DUMP_FORMAT_JSON_LINES,
	// Only of tables whose columns have types with the same bytes everywhere.
	"binary": inventoryv1.DumpFormat_DUMP_FORMAT_COPY_BINARY,
}

// dumpFlags are those of `syncline dump`.
type dumpFlags struct {
	clientFlags

	tables, excluded []string
	format, file     string
	only             usedSetFlags
	backup           backupFlags
}

func newDumpCommand() *cobra.Command {
	f := dumpFlags{backup: defaultBackupFlags()}
	cmd := &cobra.Command{
		Use:   "dump --out DIRECTORY | --table SCHEMA.TABLE",
		Short: "Write a backup of a primary, or the rows of one table, as of a known position",
		Long: `With --out: writes a backup of all tables, or of those that --table names, into a new directory: rows, schema, sequences and a manifest
with checksums. ` + "`syncline restore`" + ` loads it, and a replication can begin with it. The directory appears when the backup is whole; a dump
that broke off is begun anew.

Without --out: writes one table's rows, and says on standard error which position of the change log they are as of: following from
there gives every change since.`,
		Example: `  syncline dump --out /backup/shop
  syncline dump --out /backup/sales --table 'sales.*' --exclude-table sales.log
  syncline dump --table public.orders --format json
  syncline dump --table public.orders --file orders.copy`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.register(cmd, primaryGRPC)
	flags := cmd.Flags()
	flags.Lookup("json").Usage = "with --out print what was written as JSON, else the same as --format json"
	patternsFlag(flags, &f.tables, "table", "the table, as schema.table or \"quoted\".\"names\"; with --out also schema.*, and may be repeated")
	patternsFlag(flags, &f.excluded, "exclude-table", "with --out: leave these tables out")
	flags.StringVar(&f.format, "format", "copy", "without --out: copy, binary (COPY's), csv or json (a line for each row)")
	flags.StringVar(&f.file, "file", "", "without --out: file to write; standard output when empty")
	f.only.register(flags)
	f.backup.register(flags)
	return cmd
}

func (f *dumpFlags) run(cmd *cobra.Command) error {
	flags := cmd.Flags()
	if f.backup.out != "" {
		for _, name := range []string{"format", "file", "set", "param"} {
			if flags.Changed(name) {
				return usageError{fmt.Errorf("--%s is for the rows of one table; leave out --%s or --out", name, name)}
			}
		}
		return writeBackup(cmd, f)
	}
	for _, name := range []string{"exclude-table", "compress", "workers"} {
		if flags.Changed(name) {
			return usageError{fmt.Errorf("--%s is for a backup, which needs --out", name)}
		}
	}
	name, err := tableName(f.tables)
	if err != nil {
		return err
	}
	if f.json && !flags.Changed("format") {
		f.format = "json"
	}
	kind, ok := dumpFormats[f.format]
	if !ok {
		return usageError{fmt.Errorf("--format %q: expected copy, binary, csv or json", f.format)}
	}
	return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
		return dump(ctx, cmd, conn, &inventoryv1.DumpRequest{
			Schema: name.Schema, Table: name.Name, Format: kind, Set: f.only.set, Parameters: f.only.parameters,
		}, f.file)
	})
}

func tableName(tables []string) (schema.Name, error) {
	if len(tables) == 0 {
		return schema.Name{}, usageError{errors.New("--out is needed for a backup, or --table for the rows of one table")}
	}
	pattern, err := schema.ParsePattern(tables[0])
	if err != nil {
		return schema.Name{}, usageError{fmt.Errorf("--table: %w", err)}
	}
	name, ok := pattern.Exact()
	if !ok || len(tables) > 1 {
		return schema.Name{}, usageError{fmt.Errorf("--table %q names more than one table; dump them one by one, or with --out as a backup", strings.Join(tables, ","))}
	}
	return name, nil
}

func dump(ctx context.Context, cmd *cobra.Command, conn *grpc.ClientConn, request *inventoryv1.DumpRequest, path string) error {
	client := inventoryv1.NewInventoryServiceClient(conn)
	snapshot, err := backup.OpenSnapshot(ctx, client, sayOn(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	defer backup.CloseSnapshot(ctx, client, snapshot.GetSnapshotId())
	leasing, stop := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	// A lease that is lost ends the dump with an error that says so.
	renewing.Go(func() { backup.RenewSnapshot(leasing, client, snapshot.GetSnapshotId(), func(error) {}) })
	defer renewing.Wait()
	defer stop()
	request.SnapshotId = snapshot.GetSnapshotId()
	var end *inventoryv1.DumpEnd
	err = writeOut(path, cmd.OutOrStdout(), func(out io.Writer) (err error) {
		end, err = writeDump(ctx, client, request, out)
		return err
	})
	if err != nil {
		return err
	}
	position := snapshot.GetPosition()
	fmt.Fprintf(cmd.ErrOrStderr(), "%s rows, %s as of %s@%s\n", count(end.GetRows()), size(end.GetBytes()), position.GetLogId(), change.LSN(position.GetLsn()))
	return nil
}

// partialSuffix ends the name of a file that is not whole yet.
const partialSuffix = ".part"

// writeOut writes to a file, or to stdout when path is empty. A regular file appears under its name when it is whole and on
// the disk; until then one that was there stays as it was.
func writeOut(path string, stdout io.Writer, write func(io.Writer) error) error {
	if path == "" {
		return write(stdout)
	}
	partial := path + partialSuffix
	if about, err := os.Stat(path); err == nil && !about.Mode().IsRegular() {
		partial = path // a pipe or a device
	}
	file, err := os.OpenFile(partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("--file: %w", err)
	}
	err = write(file)
	if err == nil && partial != path {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if partial == path {
		return err
	}
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return nil
}

// writeDump returns the dump's end: without one it broke off.
func writeDump(ctx context.Context, client inventoryv1.InventoryServiceClient, request *inventoryv1.DumpRequest, to io.Writer) (*inventoryv1.DumpEnd, error) {
	stream, err := client.Dump(ctx, request)
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriter(to)
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the dump of %s broke off", strings.TrimSpace(request.GetTable()))
		}
		if err != nil {
			return nil, err
		}
		if _, err := out.Write(answer.GetData()); err != nil {
			return nil, fmt.Errorf("write dump: %w", err)
		}
		if answer.GetEnd() != nil {
			if err := out.Flush(); err != nil {
				return nil, fmt.Errorf("write dump: %w", err)
			}
			return answer.GetEnd(), nil
		}
	}
}
