package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
	"github.com/seed0419d559/syncline/internal/setup"
	"github.com/seed0419d559/syncline/services/applier"
	"github.com/seed0419d559/syncline/services/inventory"
	"github.com/seed0419d559/syncline/services/logger"
)

// topic is something that is well when nothing is found about it.
type topic struct {
	well     string
	problems []setup.Problem
}

// look finds everything that is not as the services need it, by the rules that they have.
func (f *prepareFlags) look(ctx context.Context, conn *pgx.Conn, login string) ([]finding, error) {
	state, err := node.SetupProblems(ctx, conn, login)
	if err != nil {
		return nil, err
	}
	role, err := loginProblems(ctx, conn, login)
	if err != nil {
		return nil, err
	}
	topics := []*topic{{fmt.Sprintf("role %s may log in", login), role}}
	definition, err := f.definition(ctx, conn)
	if err != nil {
		return nil, err
	}
	if f.role == sideReplica {
		err = f.lookAtReplica(ctx, conn, login, definition, state, &topics)
	} else {
		err = f.lookAtPrimary(ctx, conn, login, definition, state, &topics)
	}
	if err != nil {
		return nil, err
	}
	return findings(ctx, conn, topics)
}

// findings puts what was found in a list, each thing once.
func findings(ctx context.Context, conn *pgx.Conn, topics []*topic) (list []finding, err error) {
	known := map[string]bool{}
	for _, t := range topics {
		if t.problems == nil {
			list = append(list, finding{State: findingWell, Text: t.well})
		}
		for _, p := range t.problems {
			f := finding{State: findingToDo, Text: p.Reason(), SQL: p.SQL, manner: p.Manner}
			if p.SQL == nil {
				f.State = findingLeft
			}
			if p.Setting != "" {
				waits, err := waitsForRestart(ctx, conn, p)
				if err != nil {
					return nil, err
				}
				if waits {
					f = finding{State: findingRestart, Text: fmt.Sprintf("%s is set to %s: restart PostgreSQL", p.Setting, p.Value), manner: p.Manner}
				}
			}
			if !known[f.key()] {
				known[f.key()] = true
				list = append(list, f)
			}
		}
	}
	return list, nil
}

// waitsForRestart tells whether a setting is in the server's files already, as far as the session may look there.
func waitsForRestart(ctx context.Context, conn *pgx.Conn, p setup.Problem) (waits bool, err error) {
	var may bool
	err = conn.QueryRow(ctx, `SELECT has_table_privilege('pg_catalog.pg_file_settings', 'SELECT') AND has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE')`).Scan(&may)
	if err == nil && may {
		err = conn.QueryRow(ctx, `SELECT coalesce((SELECT setting = $2 FROM pg_catalog.pg_file_settings WHERE name = $1 ORDER BY seqno DESC LIMIT 1), false)`, p.Setting, p.Value).Scan(&waits)
	}
	if err != nil {
		return false, fmt.Errorf("read the server's files of settings: %w", err)
	}
	return waits, nil
}

// loginProblems are about the role itself.
func loginProblems(ctx context.Context, conn *pgx.Conn, login string) ([]setup.Problem, error) {
	var there, may bool
	err := conn.QueryRow(ctx, "SELECT count(*) > 0, coalesce(bool_or(rolcanlogin), false) FROM pg_catalog.pg_roles WHERE rolname = $1", login).Scan(&there, &may)
	switch name := postgres.Ident(login); {
	case err != nil:
		return nil, fmt.Errorf("look for role %s: %w", login, err)
	case !there:
		return []setup.Problem{{Code: setup.CodePrivilege, SQL: []string{"CREATE ROLE " + name + " LOGIN"},
			Text: fmt.Sprintf("there is no role %s; a password is given to it with \\password in psql, and pg_hba.conf has to let it in", login)}}, nil
	case !may:
		return []setup.Problem{{Code: setup.CodePrivilege, Text: fmt.Sprintf("role %s may not log in", login), SQL: []string{"ALTER ROLE " + name + " LOGIN"}}}, nil
	}
	return nil, nil
}

var setName = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// definition reads the set, nil if none is named.
func (f *prepareFlags) definition(ctx context.Context, conn *pgx.Conn) (*sets.Definition, error) {
	if f.set.set == "" {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	spec := &loggerv1.SetSpec{}
	if setName.MatchString(f.set.set) {
		if f.role == sideReplica {
			return nil, usageError{fmt.Errorf("--set %s: the primary knows the set by its name, a replica does not: give the file, as ./%s.json", f.set.set, f.set.set)}
		}
		var err error
		if spec, err = logger.StoredSet(ctx, conn, f.set.set); err != nil {
			return nil, err
		}
	} else {
		text, err := os.ReadFile(f.set.set)
		if err != nil {
			return nil, fmt.Errorf("--set: %w", err)
		}
		if err := protojson.Unmarshal(text, spec); err != nil {
			return nil, usageError{fmt.Errorf("--set %s: %w", f.set.set, err)}
		}
	}
	definition, err := logger.ParseSet(spec)
	if err != nil {
		return nil, err
	}
	if f.set.parameters != nil {
		if err := definition.CheckParameters(f.set.parameters); err != nil {
			return nil, usageError{err}
		}
	}
	return definition, nil
}

// lookAtPrimary is for a logger and an inventory.
func (f *prepareFlags) lookAtPrimary(ctx context.Context, conn *pgx.Conn, login string, definition *sets.Definition, state []setup.Problem, topics *[]*topic) error {
	cfg := logger.DefaultConfig()
	cfg.Include, cfg.Exclude, cfg.InsertOnly, cfg.Slot, cfg.Publication = f.tables, f.exclude, f.insertOnly, f.slot, f.publication
	s, err := logger.CheckSetup(ctx, conn, cfg, login)
	if err != nil {
		return err
	}
	room, err := inventory.SetupProblems(ctx, conn, s.Slots)
	if err != nil {
		return err
	}
	db, err := schema.Read(ctx, conn, s.Selection)
	if err != nil {
		return err
	}
	if definition != nil {
		if err := f.fits(ctx, conn, definition, db); err != nil {
			return err
		}
	}
	read, err := setup.Readable(ctx, conn, login, s.Tables)
	if err != nil {
		return err
	}
	owners, err := ownerProblems(ctx, conn, s, login)
	if err != nil {
		return err
	}
	server := &topic{well: "wal_level is logical, and replication slots and walsenders are free"}
	role := &topic{well: fmt.Sprintf("role %s may replicate, publish, and keep its state in schema syncline", login)}
	tables := &topic{well: fmt.Sprintf("%d tables can be published and read by it", len(s.Tables)), problems: slices.Concat(owners, read)}
	identities := &topic{well: "every table has a replica identity that serves", problems: identityProblems(s, db, definition)}
	for _, p := range s.Problems {
		if p.Code == setup.CodePrivilege || p.Code == logger.CodeSchemaMissing {
			role.problems = append(role.problems, p)
		} else {
			server.problems = append(server.problems, p)
		}
	}
	// The inventory's slot matters where the logger finds one.
	for _, p := range room {
		if !slices.ContainsFunc(server.problems, func(q setup.Problem) bool { return q.Setting == p.Setting }) {
			server.problems = append(server.problems, p)
		}
	}
	role.problems = append(role.problems, state...)
	*topics = append([]*topic{server}, append(*topics, role)...)
	if !slices.ContainsFunc(s.Problems, func(p setup.Problem) bool {
		return p.Code == logger.CodeTableUnknown || p.Code == logger.CodePublicationForeign
	}) { // else none was looked at
		*topics = append(*topics, tables, identities)
	}
	return nil
}

// fits refuses a set that does not fit the tables, or the parameters.
func (f *prepareFlags) fits(ctx context.Context, conn *pgx.Conn, definition *sets.Definition, db schema.Database) error {
	if err := logger.MayCompare(ctx, conn, definition); err != nil {
		return err
	}
	if err := definition.CheckTables(db); err != nil {
		return fmt.Errorf("set %s: %w", f.set.set, err)
	}
	if f.set.parameters == nil {
		return nil
	}
	for _, t := range db.Tables {
		entry, in := definition.Entry(t.FullName(), sets.Above(db, t))
		if !in {
			continue
		}
		if _, err := entry.Predicate(sets.FilterColumns(t), f.set.parameters); err != nil {
			return usageError{fmt.Errorf("--param: table %s: %w", t.FullName(), err)}
		}
	}
	return nil
}

// versionInherit is the first PostgreSQL in which a grant says whether its rights come without SET ROLE.
const versionInherit = 160000

// ownerProblems are about tables that only others may publish. A superuser's rights are never granted: somebody has to decide about that.
func ownerProblems(ctx context.Context, conn *pgx.Conn, s logger.Setup, login string) (problems []setup.Problem, err error) {
	inherits := true
	if err := conn.QueryRow(ctx, "SELECT coalesce(bool_and(rolinherit), true) FROM pg_catalog.pg_roles WHERE rolname = $1", login).Scan(&inherits); err != nil {
		return nil, fmt.Errorf("look for role %s: %w", login, err)
	}
	var owners []string
	byOwner := map[string][]string{}
	super := map[string]bool{}
	for _, r := range s.Foreign {
		if byOwner[r.Owner] == nil {
			owners = append(owners, r.Owner)
		}
		byOwner[r.Owner], super[r.Owner] = append(byOwner[r.Owner], r.Table.String()), r.OwnerSuper
	}
	for _, owner := range owners {
		p := setup.Problem{Code: setup.CodePrivilege, Text: fmt.Sprintf("%s: %s, and only the owner may publish a table", belonging(len(byOwner[owner]), owner), some(byOwner[owner]))}
		switch grant := "GRANT " + postgres.Ident(owner) + " TO " + postgres.Ident(login); {
		case super[owner]:
			p.Text += fmt.Sprintf("; that is a superuser, whose rights nobody should get on the way: ALTER TABLE … OWNER TO another role, or leave the tables out with --exclude-table, or run %s all the same", grant)
		case s.Version >= versionInherit:
			p.SQL = []string{grant + " WITH INHERIT TRUE"}
		case !inherits:
			p.SQL = []string{"ALTER ROLE " + postgres.Ident(login) + " INHERIT", grant}
		default:
			p.SQL = []string{grant}
		}
		problems = append(problems, p)
	}
	return problems, nil
}

func belonging(n int, owner string) string {
	if n == 1 {
		return "a table belongs to role " + owner
	}
	return fmt.Sprintf("%d tables belong to role %s", n, owner)
}

// some names the first few.
func some(names []string) string {
	const few = 5
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// identityProblems are about tables whose updates and deletes do not name the row, or not whether it is in the set.
func identityProblems(s logger.Setup, db schema.Database, definition *sets.Definition) (problems []setup.Problem) {
	for _, t := range db.Tables {
		name := t.FullName()
		if !t.HasRows() || slices.Contains(s.InsertOnly, name) || !slices.Contains(s.Tables, name) {
			continue
		}
		var reason, mend string
		var columns []string
		if definition != nil {
			needed, err := definition.Undecidable(db, t)
			if columns = needed; err != nil {
				reason, mend = "the set selects its rows by "+strings.Join(columns, ", ")+", which its replica identity does not hold", err.Error()
			}
		}
		for _, r := range s.Identity {
			if r.Table == name {
				reason, mend = r.Reason, r.Mend
			}
		}
		if reason == "" {
			continue
		}
		p := setup.Problem{Code: logger.CodeTableRefused, Text: fmt.Sprintf("table %s: %s", name, reason), Manner: setup.Alone}
		if sql := schema.IdentityStatement(t, columns, db.ServerVersion); sql != "" {
			p.SQL = []string{sql}
		} else {
			p.Text += "; " + mend
		}
		problems = append(problems, p)
	}
	return problems
}

// lookAtReplica is for an applier.
func (f *prepareFlags) lookAtReplica(ctx context.Context, conn *pgx.Conn, login string, definition *sets.Definition, state []setup.Problem, topics *[]*topic) error {
	selection, err := schema.ParseSelection(f.tables, f.exclude)
	if err != nil {
		return usageError{err}
	}
	if definition != nil && selection.Include == nil {
		of := definition.Selection()
		selection = schema.Selection{Include: of.Include, Exclude: slices.Concat(of.Exclude, selection.Exclude)}
	}
	renaming, err := f.renaming()
	if err != nil {
		return err
	}
	s, err := applier.CheckSetup(ctx, conn, selection, renaming, login)
	if err != nil {
		return err
	}
	*topics = append(*topics, &topic{
		well:     fmt.Sprintf("role %s may create tables, write the %d that are there, set session_replication_role, and keep its state in schema syncline", login, len(s.Tables)),
		problems: slices.Concat(s.Problems, state),
	})
	return nil
}
