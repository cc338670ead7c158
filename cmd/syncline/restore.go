package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/seed0419d559/syncline/internal/backup"
	"github.com/seed0419d559/syncline/internal/restore"
)

func newRestoreCommand() *cobra.Command {
	var asJSON bool
	o := restore.Options{Workers: backup.DefaultWorkers}
	cmd := &cobra.Command{
		Use:   "restore DIRECTORY --postgres URL",
		Short: "Load a backup into a database",
		Long: `Checks the whole backup and the database first, and touches nothing if anything is wrong. Then creates what the database lacks, loads the
rows, builds indexes and constraints, sets the sequences and compares the row counts. A restore that broke off goes on where it was when
it is run again. No Syncline server is needed.

` + "`syncline replication create --from-restore`" + ` goes on from there with the changes since.`,
		Example: `  syncline restore /backup/shop --postgres postgres://localhost/shop
  syncline restore /backup/shop --postgres postgres://localhost/shop --check`,
		Args: oneDirectory,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.URL == "" {
				return usageError{errors.New("--postgres (SYNCLINE_POSTGRES) is needed: the URL of the database to restore into")}
			}
			if err := checkWorkers(o.Workers); err != nil {
				return err
			}
			o.Dir, o.Progress, o.Say = args[0], &backup.Progress{}, sayOn(cmd.ErrOrStderr())
			stop := showProgress(cmd.ErrOrStderr(), o.Progress)
			result, err := restore.Run(cmd.Context(), o)
			stop()
			if err != nil {
				return err
			}
			for _, w := range result.Warnings {
				o.Say("note: " + w)
			}
			next := "restored; next, on a replica of this database: syncline replication create NAME --source HOST:PORT --from-restore"
			if o.CheckOnly {
				next = "it can be restored into this database; nothing was touched"
			}
			return printBackup(cmd.OutOrStdout(), asJSON, args[0], result.Manifest, next)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.URL, "postgres", "", "URL of the database: postgres://USER:PASSWORD@HOST:PORT/DATABASE (needed)")
	flags.BoolVar(&o.Replace, "replace", false, "remove the rows that the tables hold, and begin a restore anew that broke off")
	flags.BoolVar(&o.CheckOnly, "check", false, "check backup and database, and touch nothing")
	flags.IntVar(&o.Workers, "workers", o.Workers, "sessions that load and build indexes at the same time")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
