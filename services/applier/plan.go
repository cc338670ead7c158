package applier

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/schema"
)

// makePlan compares source and target and returns what is to be done for the tables that are not known yet, or have to be
// copied again. It touches nothing. Every reason to refuse is an error that names the table.
func makePlan(ctx context.Context, conn *pgx.Conn, src *source, o planOptions) (*plan, error) {
	p := &plan{all: o.all}
	if err := p.make(ctx, conn, src, o, func(_ string, err error) error { return err }); err != nil {
		return nil, err
	}
	return p, nil
}

// make fills in the plan. refuse is told each reason to refuse, with what it is about, and nil for what is well; an error that it returns
// ends the plan. Where it returns none the plan is only good to be looked at.
func (p *plan) make(ctx context.Context, conn *pgx.Conn, src *source, o planOptions, refuse func(topic string, err error) error) error {
	captured, unread := p.read(ctx, conn, src, o.selection)
	if err := refuse(topicTables, unread); err != nil || unread != nil {
		return err
	}
	p.set, p.parameters, p.server = src.set, src.set.parameters, src.server.GetServerId()
	var err error
	p.warnings, err = p.leaveOut(captured, o)
	if err := refuse(topicTables, err); err != nil {
		return err
	}
	p.source, err = o.renaming.Apply(p.described)
	if failed := refuse(topicTables, err); failed != nil || err != nil {
		return failed
	}
	// Read after the target's tables, because another replication stores which are its own when it creates them.
	others, err := targetsOfOthers(ctx, conn, o.replication)
	if err != nil {
		return err
	}
	if err := refuse(topicTables, p.leaveToOthers(o, others)); err != nil {
		return err
	}
	if o.restored != nil {
		chosen, err := o.restored.chosen(ctx, src, p.described, others)
		if err := refuse(topicTables, err); err != nil {
			return err
		}
		if chosen != nil {
			p.restored, o.known = chosen, chosen.known()
		}
	}
	p.mismatches = slices.DeleteFunc(schema.CompareAll(p.source.Database, p.target), p.neverNull)
	if err := refuse(topicTables, schema.Refusal(p.mismatches)); err != nil {
		return err
	}
	for _, m := range p.mismatches {
		p.warnings = append(p.warnings, m.String())
	}
	// A table of ours that somebody has dropped is created again only when all are copied again.
	p.create = slices.DeleteFunc(schema.Missing(p.source.Database, p.target), func(n schema.Name) bool { return o.known[p.source.Source(n)] != nil && !o.all })
	p.statements, err = schema.CreateStatements(p.source.Database, p.target, nonNil(p.create))
	if err := refuse(topicTables, err); err != nil {
		return err
	}
	for _, s := range p.statements.Skipped {
		p.warnings = append(p.warnings, fmt.Sprintf("%s %s: %s", s.Kind, s.Name, s.Reason))
	}
	if err := refuse(topicPrivileges, p.checkPrivileges(ctx, conn, o.unguarded)); err != nil {
		return err
	}
	p.findGone(o)
	if err := refuse(topicTables, p.chooseTables(ctx, conn, o)); err != nil {
		return err
	}
	return refuse(topicPrivileges, p.readable(src))
}
