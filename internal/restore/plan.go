package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/backup"
	"github.com/seed0419d559/syncline/internal/schema"
)

// plan is what a restore will do, found out before anything is touched.
type plan struct {
	source, target schema.Database
	// before is a restore that broke off, nil for none. resumed says that it is gone on with.
	before     *record
	resumed    bool
	create     []schema.Name // those to create, or created by the restore that is gone on with
	statements schema.Plan
	targets    map[schema.Name]schema.Name // where a table's rows go
	warnings   []string
}

// makePlan compares the backup with the database. It touches nothing. Every reason to refuse is an error.
func makePlan(ctx context.Context, t *target, b *backup.Backup, replace bool) (*plan, error) {
	p := &plan{source: b.Database, targets: map[schema.Name]schema.Name{}}
	var err error
	if p.before, err = unfinished(ctx, t.conn); err != nil {
		return nil, err
	}
	if p.target, err = schema.Read(ctx, t.conn, schema.Selection{}); err != nil {
		return nil, fmt.Errorf("read the database's tables: %w", err)
	}
	if err := p.decide(ctx, t, b, replace); err != nil {
		return nil, err
	}
	if err := p.compare(); err != nil {
		return nil, err
	}
	if err := p.target.ReadAvailable(ctx, t.conn, p.source); err != nil {
		return nil, err
	}
	if p.statements, err = schema.CreateStatements(p.source, p.target, p.create); err != nil {
		return nil, err
	}
	for _, s := range p.statements.Skipped {
		p.warnings = append(p.warnings, fmt.Sprintf("%s %s: %s", s.Kind, s.Name, s.Reason))
	}
	for _, table := range b.Manifest.Tables {
		name, exists := schema.Route(p.source, p.target, table.FullName())
		if !exists {
			name = table.FullName()
		}
		p.targets[table.FullName()] = name
	}
	if err := p.notReplicated(ctx, t); err != nil {
		return nil, err
	}
	if err := p.checkPrivileges(ctx, t); err != nil {
		return nil, err
	}
	return p, p.checkEmpty(ctx, t, replace)
}

// decide finds out whether a restore that broke off is gone on with, and which tables are to be created.
func (p *plan) decide(ctx context.Context, t *target, b *backup.Backup, replace bool) error {
	if p.before != nil && p.before.backupID != b.Manifest.ID && !replace {
		return fmt.Errorf("%w (%s); restore that one to its end, or remove what it left with --replace", ErrUnfinished, p.before.backupID)
	}
	p.create = schema.Missing(p.source, p.target)
	if p.create == nil {
		p.create = []schema.Name{}
	}
	if p.before == nil {
		return nil
	}
	for _, name := range p.before.created {
		if _, found := p.source.Table(name); found && !slices.Contains(p.create, name) {
			p.create = append(p.create, name)
		}
	}
	if replace || p.before.backupID != b.Manifest.ID {
		return nil
	}
	same, err := p.before.sameTables(ctx, t.conn)
	p.resumed = same
	return err
}

// compare holds the tables that are there already against those of the backup. Those of a restore that broke off may be half made.
func (p *plan) compare() error {
	whole := p.target
	whole.Tables = slices.DeleteFunc(slices.Clone(whole.Tables), func(t schema.Table) bool { return slices.Contains(p.create, t.FullName()) })
	mismatches := schema.CompareAll(p.source, whole)
	if err := schema.Refusal(mismatches); err != nil {
		return err
	}
	for _, m := range mismatches {
		p.warnings = append(p.warnings, m.String())
	}
	return nil
}

// targetTables are the tables whose rows come from the backup, each once and sorted.
func (p *plan) targetTables() []schema.Name {
	seen := map[schema.Name]bool{}
	var names []schema.Name
	for _, name := range p.targets {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b schema.Name) int { return strings.Compare(a.SQL(), b.SQL()) })
	return names
}

// existing are those of them that are there already.
func (p *plan) existing() []schema.Name {
	return slices.DeleteFunc(p.targetTables(), func(n schema.Name) bool {
		_, found := p.target.Table(n)
		return !found
	})
}

// only is how a statement names a table without those that inherit from it; a partitioned table is named with its partitions.
func (p *plan) only(name schema.Name) string {
	if t, found := p.target.Table(name); found && !t.HasRows() {
		return name.SQL()
	}
	return "ONLY " + name.SQL()
}

// checkEmpty refuses tables with rows that no restore of this backup wrote.
func (p *plan) checkEmpty(ctx context.Context, t *target, replace bool) error {
	if replace {
		return nil
	}
	var filled []string
	for _, name := range p.existing() {
		if p.before != nil && slices.Contains(p.before.targets, name) {
			continue // the rows are of the restore that is gone on with, or begun anew
		}
		var rows bool
		if err := t.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+p.only(name)+")").Scan(&rows); err != nil {
			return fmt.Errorf("look into table %s: %w", name, err)
		}
		if rows {
			filled = append(filled, name.String())
		}
	}
	if len(filled) > 0 {
		return fmt.Errorf("%w: %s; restore into an empty database, or let --replace remove their rows before", ErrNotEmpty, strings.Join(filled, ", "))
	}
	return nil
}

// notReplicated refuses tables that a replication of this database writes.
func (p *plan) notReplicated(ctx context.Context, t *target) error {
	exists, err := hasTable(ctx, t.conn, "syncline.tables")
	if err != nil || !exists {
		return err
	}
	rows, err := t.conn.Query(ctx, "SELECT target_schema, target_table, replication FROM syncline.tables ORDER BY 1, 2, 3")
	if err != nil {
		return fmt.Errorf("read the tables of replications: %w", err)
	}
	defer rows.Close()
	ours := p.targetTables()
	var taken []string
	for rows.Next() {
		var name schema.Name
		var replication string
		if err := rows.Scan(&name.Schema, &name.Name, &replication); err != nil {
			return fmt.Errorf("read the tables of replications: %w", err)
		}
		if slices.Contains(ours, name) {
			taken = append(taken, fmt.Sprintf("%s (by %s)", name, replication))
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the tables of replications: %w", err)
	}
	if len(taken) > 0 {
		return fmt.Errorf("%w: %s; delete it first with `syncline replication delete`", ErrReplicated, strings.Join(slices.Compact(taken), ", "))
	}
	return nil
}
