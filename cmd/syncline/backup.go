package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/backup"
	"github.com/seed0419d559/syncline/internal/restore"
)

// backupFlags are the flags of `syncline dump` that are for backups alone.
type backupFlags struct {
	out, compression string
	workers          int
}

func defaultBackupFlags() backupFlags {
	return backupFlags{compression: backup.CompressionZstd, workers: backup.DefaultWorkers}
}

func (f *backupFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.out, "out", "", "directory to make and to write a backup into")
	flags.StringVar(&f.compression, "compress", f.compression, "how the rows of a backup are compressed: zstd or none")
	flags.IntVar(&f.workers, "workers", f.workers, workersUsage)
}

const (
	workersUsage = "files that are written or read at the same time"
	mostWorkers  = 64
)

func checkWorkers(n int) error {
	if n < 1 || n > mostWorkers {
		return usageError{fmt.Errorf("--workers %d is not from 1 to %d", n, mostWorkers)}
	}
	return nil
}

// sayOn prints lines for people.
func sayOn(out io.Writer) func(string) {
	return func(line string) { fmt.Fprintln(out, oneLine(printable(line))) }
}

func writeBackup(cmd *cobra.Command, f *dumpFlags) error {
	if err := checkWorkers(f.backup.workers); err != nil {
		return err
	}
	if f.backup.compression != backup.CompressionNone && f.backup.compression != backup.CompressionZstd {
		return usageError{fmt.Errorf("--compress %q is unknown: use none or zstd", f.backup.compression)}
	}
	for flag, patterns := range map[string][]string{"--table": f.tables, "--exclude-table": f.excluded} {
		if err := checkPatterns(flag, patterns); err != nil {
			return err
		}
	}
	var manifest *backup.Manifest
	err := f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		progress := &backup.Progress{}
		defer showProgress(cmd.ErrOrStderr(), progress)()
		manifest, err = backup.Dump(ctx, inventoryv1.NewInventoryServiceClient(conn), backup.Options{
			Dir: f.backup.out, Include: f.tables, Exclude: f.excluded, Compression: f.backup.compression, Workers: f.backup.workers,
			Progress: progress, Say: sayOn(cmd.ErrOrStderr()),
		})
		return err
	})
	if err != nil {
		return err
	}
	return printBackup(cmd.OutOrStdout(), f.json, f.backup.out, manifest, fmt.Sprintf("next: syncline restore %s --postgres URL", f.backup.out))
}

// backupSummary is what --json prints of a backup.
type backupSummary struct {
	Directory       string    `json:"directory"`
	BackupID        string    `json:"backupId"`
	CreateTime      time.Time `json:"createTime"`
	SourceServerID  string    `json:"sourceServerId"`
	PostgresVersion int       `json:"postgresVersion"`
	Position        string    `json:"position"`
	Tables          int       `json:"tables"`
	Rows            int64     `json:"rows,string"`
	Bytes           int64     `json:"bytes,string"` // of the files with rows
}

func printBackup(out io.Writer, asJSON bool, dir string, m *backup.Manifest, next string) error {
	rows, _, bytes := m.Totals()
	position := m.LogID + "@" + m.LSN
	if !asJSON {
		fmt.Fprintf(out, "backup %s of server %s: %s rows in %d tables, %s as of %s\n%s\n", m.ID, m.SourceServerID, count(rows), len(m.Tables), size(bytes), position, next)
		return nil
	}
	return printValue(out, backupSummary{dir, m.ID, m.CreateTime, m.SourceServerID, m.PostgresVersion, position, len(m.Tables), rows, bytes})
}

func newBackupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "backup",
		Short:   "Look at backups",
		Long:    "Backups are written by `syncline dump --out` and loaded by `syncline restore`.",
		Example: "  syncline backup check /backup/shop",
		Args:    wrongUse(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBackupCheckCommand())
	return cmd
}

func newBackupCheckCommand() *cobra.Command {
	var asJSON bool
	workers := backup.DefaultWorkers
	cmd := &cobra.Command{
		Use:   "check DIRECTORY",
		Short: "Read a whole backup and find out whether it is as it was written",
		Long:  "Compares every file with its checksum. Exit code 0 when all is well, 1 when anything is damaged, missing or no backup.",
		Example: `  syncline backup check /backup/shop
  syncline backup check /backup/shop --json`,
		Args: oneDirectory,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkWorkers(workers); err != nil {
				return err
			}
			progress := &backup.Progress{}
			stop := showProgress(cmd.ErrOrStderr(), progress)
			b, err := restore.Check(cmd.Context(), args[0], workers, progress)
			stop()
			if err != nil {
				return err
			}
			return printBackup(cmd.OutOrStdout(), asJSON, args[0], b.Manifest, "it is as it was written")
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&workers, "workers", workers, workersUsage)
	return cmd
}

// oneDirectory is the check of a command for one backup.
func oneDirectory(cmd *cobra.Command, args []string) error {
	return wrongUse(func(*cobra.Command, []string) error {
		if len(args) != 1 {
			return fmt.Errorf("the DIRECTORY of one backup is expected, not %d arguments", len(args))
		}
		return nil
	})(cmd, args)
}
