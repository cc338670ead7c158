package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/logger"
)

// prepareFlags say which side is prepared, and for what.
type prepareFlags struct {
	postgres, role, login string
	tables, exclude       []string
	insertOnly            []string
	slot, publication     string
	set                   usedSetFlags
	rename                []*applierv1.TableRename
	dryRun, json          bool
}

const (
	sidePrimary = "primary"
	sideReplica = "replica"
)

func newPrepareCommand() *cobra.Command {
	usual := logger.DefaultConfig()
	f := &prepareFlags{role: sidePrimary, slot: usual.Slot, publication: usual.Publication}
	cmd := &cobra.Command{
		Use:   "prepare --postgres URL",
		Short: "Check what a database needs to be a primary or a replica, and mend it",
		Long: `Looks for everything that ` + "`syncline primary`, `syncline replica`" + ` or a replication would refuse to start with, and mends it: settings, the role
that Syncline logs in as (--login), its privileges, and the replica identities of tables, also those that the selectors of a set need.
It asks nothing, and a second run finds nothing left to do. No server of Syncline has to run.

With --dry-run nothing is changed, and what is printed is SQL: it can be read, and run with psql -v ON_ERROR_STOP=1.

--postgres is for a role that may do all that, such as a superuser. What it may not do is named, with the statement. Exit code 0 says
that all is well; 1 that something is to be done, by somebody else or by a restart of PostgreSQL.`,
		Example: `  syncline prepare --postgres postgres://postgres@db1/shop --login syncline --dry-run
  syncline prepare --postgres postgres://postgres@db1/shop --login syncline --exclude-table public.sessions --set by-org.json
  syncline prepare --postgres postgres://postgres@db2/shop --login syncline --role replica --rename 'public.*=acme.*'`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return f.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.postgres, "postgres", "", "URL of the database, as a role that may mend it: postgres://USER:PASSWORD@HOST:PORT/DATABASE (needed)")
	flags.StringVar(&f.role, "role", f.role, "what the database is to be: primary or replica")
	flags.StringVar(&f.login, "login", "", "`NAME` of the role that Syncline logs in as, made if it is not there; that of --postgres when empty")
	patternsFlag(flags, &f.tables, "table", "tables that are to be captured, or replicated: schema.table, schema.*; all when there is none; may be repeated")
	patternsFlag(flags, &f.exclude, "exclude-table", "leave these tables out")
	patternsFlag(flags, &f.insertOnly, "insert-only-table", "capture only the inserts of these tables of a primary, which need no replica identity")
	flags.StringVar(&f.slot, "slot", f.slot, "name of a primary's replication slot")
	flags.StringVar(&f.publication, "publication", f.publication, "name of a primary's publication")
	flags.StringVar(&f.set.set, "set", "", "replication set whose selectors have to be decidable: a `FILE` in JSON as set create takes it, or the name of one that the primary has")
	flags.StringToStringVar(&f.set.parameters, "param", nil, "value of a parameter of the set, as NAME=VALUE, to be checked too; may be repeated")
	flags.Var(renameList{&f.rename}, "rename", "what tables are called on a replica, as replication create takes it; may be repeated")
	flags.BoolVar(&f.dryRun, "dry-run", false, "change nothing, and print the SQL that would mend it")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

func (f *prepareFlags) check() error {
	if f.postgres == "" {
		return usageError{errors.New("--postgres (SYNCLINE_POSTGRES) is needed: the URL of the database to prepare")}
	}
	switch f.role {
	case sidePrimary:
		if f.rename != nil {
			return usageError{errors.New("--rename is for --role replica")}
		}
	case sideReplica:
		if f.insertOnly != nil {
			return usageError{errors.New("--insert-only-table is for --role primary")}
		}
	default:
		return usageError{fmt.Errorf("--role %q is unknown: it is primary or replica", f.role)}
	}
	if name := strings.ToLower(f.login); name == "public" || name == "none" || strings.HasPrefix(name, "pg_") || len(name) > 63 {
		return usageError{fmt.Errorf("--login %s is no name that PostgreSQL takes for a role", f.login)}
	}
	if f.set.set == "" && len(f.set.parameters) > 0 {
		return usageError{errors.New("--param is for a set, and --set names none")}
	}
	for flag, patterns := range map[string][]string{"--table": f.tables, "--exclude-table": f.exclude, "--insert-only-table": f.insertOnly} {
		if err := checkPatterns(flag, patterns); err != nil {
			return err
		}
	}
	return nil
}

// renaming is what --rename says.
func (f *prepareFlags) renaming() (rules schema.Renaming, err error) {
	for _, r := range f.rename {
		rule, err := schema.ParseRename(r.GetSource(), r.GetTarget())
		if err != nil {
			return nil, usageError{err}
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// mostRounds bounds how often is looked again: what was mended may let something else be seen.
const mostRounds = 3

// run looks, mends, and looks again.
func (f *prepareFlags) run(ctx context.Context, out io.Writer) error {
	conn, err := postgres.Connect(ctx, f.postgres, "syncline prepare")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is open any more
	r := &report{Role: f.role, Login: f.login, DryRun: f.dryRun}
	if err := conn.QueryRow(ctx, "SELECT current_database(), current_user").Scan(&r.Database, &r.by); err != nil {
		return fmt.Errorf("read the database's name: %w", err)
	}
	if r.Login == "" {
		r.Login = r.by
	}
	if r.Findings, err = f.look(ctx, conn, r.Login); err != nil {
		return err
	}
	if !f.dryRun {
		if err := f.mend(ctx, conn, r); err != nil {
			return err
		}
	}
	r.finish()
	if err := r.print(out, f.json); err != nil {
		return err
	}
	return r.left()
}

// mend carries out what is to be done until nothing is left that was not tried.
func (f *prepareFlags) mend(ctx context.Context, conn *pgx.Conn, r *report) error {
	m := &mender{conn: conn, by: r.by, tried: map[string]string{}}
	for range mostRounds {
		tried := len(m.tried)
		if err := m.run(ctx, r.Findings); err != nil {
			return err
		}
		if len(m.tried) == tried {
			break
		}
		now, err := f.look(ctx, conn, r.Login)
		if err != nil {
			return err
		}
		r.compare(now, m.tried)
	}
	return nil
}
