package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
)

// dumpLease is how long the dump's snapshot outlives this process.
const dumpLease = 30 * time.Second

var dumpFormats = map[string]inventoryv1.DumpFormat{
	"copy": inventoryv1.DumpFormat_DUMP_FORMAT_COPY_TEXT,
	"csv":  inventoryv1.DumpFormat_DUMP_FORMAT_CSV,
	"json": inventoryv1.DumpFormat_DUMP_FORMAT_JSON_LINES,
}

func newDumpCommand() *cobra.Command {
	var f clientFlags
	var table, format, path string
	var only usedSetFlags
	cmd := &cobra.Command{
		Use:   "dump --table SCHEMA.TABLE",
		Short: "Write the rows of one table, as of a known position",
		Long: `Opens a snapshot of the primary, writes one table's rows, and says on standard error which position of the change log they are
as of: following from there gives every change since.`,
		Example: `  syncline dump --table public.orders --format json
  syncline dump --table public.orders --out orders.copy`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := tableName(table)
			if err != nil {
				return err
			}
			if f.json && !cmd.Flags().Changed("format") {
				format = "json"
			}
			kind, ok := dumpFormats[format]
			if !ok {
				return usageError{fmt.Errorf("--format %q: expected copy, csv or json", format)}
			}
			return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				return dump(ctx, cmd, conn, &inventoryv1.DumpRequest{
					Schema: name.Schema, Table: name.Name, Format: kind, Set: only.set, Parameters: only.parameters,
				}, path)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	cmd.Flags().Lookup("json").Usage = "the same as --format json"
	cmd.Flags().StringVar(&table, "table", "", "the table, as schema.table or \"quoted\".\"names\" (needed)")
	cmd.Flags().StringVar(&format, "format", "copy", "copy, csv or json (a line for each row)")
	only.register(cmd.Flags())
	cmd.Flags().StringVar(&path, "out", "", "file to write; standard output when empty")
	return cmd
}

func tableName(text string) (schema.Name, error) {
	pattern, err := schema.ParsePattern(text)
	if err != nil {
		return schema.Name{}, usageError{fmt.Errorf("--table: %w", err)}
	}
	name, ok := pattern.Exact()
	if !ok {
		return schema.Name{}, usageError{fmt.Errorf("--table %q names more than one table; dump them one by one", text)}
	}
	return name, nil
}

func dump(ctx context.Context, cmd *cobra.Command, conn *grpc.ClientConn, request *inventoryv1.DumpRequest, path string) error {
	client := inventoryv1.NewInventoryServiceClient(conn)
	snapshot, err := openSnapshot(ctx, client, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		// If this fails the lease ends by itself.
		_, _ = client.CloseSnapshot(closing, &inventoryv1.CloseSnapshotRequest{SnapshotId: snapshot.GetSnapshotId()})
	}()
	renewing, stop := context.WithCancel(ctx)
	defer stop()
	go renew(renewing, client, snapshot.GetSnapshotId())
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
		return fmt.Errorf("--out: %w", err)
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

// openSnapshot says what it waits for.
func openSnapshot(ctx context.Context, client inventoryv1.InventoryServiceClient, progress io.Writer) (*inventoryv1.Snapshot, error) {
	stream, err := client.OpenSnapshot(ctx, &inventoryv1.OpenSnapshotRequest{Ttl: durationpb.New(dumpLease)})
	if err != nil {
		return nil, err
	}
	last := ""
	for {
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if snapshot := answer.GetSnapshot(); snapshot != nil {
			return snapshot, nil
		}
		if reason := answer.GetWaiting().GetReason(); reason != last {
			fmt.Fprintln(progress, "waiting:", reason)
			last = reason
		}
	}
}

func renew(ctx context.Context, client inventoryv1.InventoryServiceClient, id string) {
	tick := time.NewTicker(dumpLease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// A lease that is lost ends the dump with an error that says so.
		_, _ = client.RenewSnapshot(ctx, &inventoryv1.RenewSnapshotRequest{SnapshotId: id})
	}
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
