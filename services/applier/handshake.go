package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// What findings are about.
const (
	topicSource     = "source"
	topicVersions   = "versions"
	topicDatabase   = "database"
	topicClock      = "clock"
	topicSet        = "set"
	topicTables     = "tables"
	topicPrivileges = "privileges"
	topicPosition   = "position"
)

// CheckReplication compares source and replica. What a replication would be refused for is found by the same plan that creating it makes.
func (s *Service) CheckReplication(ctx context.Context, in *applierv1.CheckReplicationRequest) (*applierv1.CheckReplicationResponse, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	switch {
	case in.GetName() == "" && in.GetSpec() == nil:
		return nil, rpc.Invalid("spec", "is missing: say what a replication would do, or name one that there is")
	case in.GetName() != "" && in.GetSpec() != nil:
		return nil, rpc.Invalid("spec", "replication %s has its own; leave out one of name and spec", in.GetName())
	}
	checked := &stored{spec: in.GetSpec()}
	if in.GetName() != "" {
		if _, err := s.runner(ctx, in.GetName()); err != nil {
			return nil, err
		}
		var err error
		if checked, err = s.store.get(ctx, in.GetName()); err != nil {
			return nil, err
		}
	}
	p := &problems{}
	s.config.checkSpec(p, checked.spec)
	if err := p.result(); err != nil {
		return nil, err
	}
	found, err := s.shakeHands(ctx, checked, in.GetName() != "")
	if err != nil {
		return nil, refusal(err)
	}
	return &applierv1.CheckReplicationResponse{Handshake: found}, nil
}

// handshake gathers what is found.
type handshake struct{ out *applierv1.Handshake }

func (h *handshake) add(f *applierv1.Finding) { h.out.Findings = append(h.out.Findings, f) }

func (h *handshake) ok(topic, format string, args ...any) {
	h.add(&applierv1.Finding{Topic: topic, Verdict: applierv1.Verdict_VERDICT_OK, Text: fmt.Sprintf(format, args...)})
}

func (h *handshake) note(topic, mend, format string, args ...any) {
	h.add(&applierv1.Finding{Topic: topic, Verdict: applierv1.Verdict_VERDICT_NOTE, Text: fmt.Sprintf(format, args...), Mend: mend})
}

func (h *handshake) problem(topic, code, mend, format string, args ...any) {
	h.add(&applierv1.Finding{Topic: topic, Verdict: applierv1.Verdict_VERDICT_PROBLEM, Text: fmt.Sprintf(format, args...), Mend: mend, Code: code})
}

// refuse makes problems of an error that a replication would be refused with, and has the comparison go on. Mismatches are left to whoever
// looks at the plan. An error that says nothing of source and replica comes back.
func (h *handshake) refuse(ctx context.Context, topic string, err error) error {
	var lacks *privilegeError
	var missing *schema.MissingObjectsError
	var conflict *schema.ConflictError
	var mismatch *schema.MismatchError
	if err == nil || errors.As(err, &mismatch) {
		return nil
	}
	code := classify(err).code
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &lacks):
		for _, l := range lacks.lacks {
			h.problem(topicPrivileges, code, l.mend, "%s", l.text)
		}
	case errors.As(err, &missing):
		for _, o := range missing.Objects {
			h.add(&applierv1.Finding{
				Topic: topic, Verdict: applierv1.Verdict_VERDICT_PROBLEM, Subject: o.Owner.String(), Column: o.Need.Column, Code: code, Mend: o.Mend,
				Text: fmt.Sprintf("it needs %s %s, which the replica lacks", o.Need.Kind, o.Need.Identity),
			})
		}
	case errors.As(err, &conflict):
		for _, text := range conflict.Problems {
			h.problem(topic, code, "", "%s", text)
		}
	case code == reasonPrivilege && topic == topicTables: // of a look into a table: what is missing is among the privileges
	case strings.HasPrefix(code, "SET_") || code == rpc.ReasonInvalid:
		h.problem(topicSet, code, "", "%s", rpc.Message(err))
	case code == reasonInternal:
		return err
	default:
		h.problem(topic, code, "", "%s", rpc.Message(err))
	}
	return nil
}

// shakeHands compares source and replica. exists says that the replication is stored; otherwise it need not have a name.
func (s *Service) shakeHands(ctx context.Context, r *stored, exists bool) (*applierv1.Handshake, error) {
	h := &handshake{&applierv1.Handshake{ReplicaServerId: s.config.ServerID}}
	if err := s.examine(ctx, h, r, exists); err != nil {
		return nil, err
	}
	h.out.Ok = !slices.ContainsFunc(h.out.GetFindings(), func(f *applierv1.Finding) bool { return f.GetVerdict() == applierv1.Verdict_VERDICT_PROBLEM })
	return h.out, nil
}

func (s *Service) examine(ctx context.Context, h *handshake, r *stored, exists bool) error {
	src, err := s.config.dialSource(ctx, r.name, r.spec)
	if err != nil {
		return h.refuse(ctx, topicSource, err)
	}
	defer src.close()
	h.out.Source = proto.CloneOf(src.server)
	if err := s.examineServers(ctx, h, src, r, exists); err != nil {
		return err
	}
	conn, err := s.store.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("compare source and replica: %w", err)
	}
	defer conn.Release()
	o := planOptions{replication: r.name, replace: r.spec.GetReplace(), incremental: mends(r.spec), all: r.pending.all()}
	if o.selection, err = schema.ParseSelection(r.spec.GetIncludeTables(), r.spec.GetExcludeTables()); err != nil {
		return err //nolint:wrapcheck // it was parsed before
	}
	if o.renaming, err = renamingOf(r.spec); err != nil {
		return err
	}
	o.shared = r.spec.GetShared()
	if o.unguarded, err = unguarded(ctx, conn.Conn()); err != nil {
		return err
	}
	shapes := map[schema.Name]storedShapes{}
	if exists {
		tables, err := listTables(ctx, conn, r.name)
		if err != nil {
			return err
		}
		if o.known = byName(tables); len(tables) > 0 {
			o.incremental = false
		}
		if shapes, err = listShapes(ctx, conn, r.name); err != nil {
			return err
		}
	}
	if len(o.known) == 0 {
		o.restored, err = findRestored(ctx, conn, src, r.spec)
		if err := h.refuse(ctx, topicTables, err); err != nil {
			return err
		}
	}
	p := &plan{all: o.all}
	if err := p.make(ctx, conn.Conn(), src, o, func(topic string, err error) error { return h.refuse(ctx, topic, err) }); err != nil {
		return err
	}
	if p.target.ServerVersion == 0 || p.source.ServerVersion == 0 {
		return nil // it could not be read, as was said
	}
	if err := h.refuse(ctx, topicTables, p.restored.unchanged(ctx, conn)); err != nil {
		return err
	}
	h.out.SourcePosition = src.told.position
	h.sameCluster(src, p, s.config.SystemIdentifier)
	h.databases(src, p)
	h.set(src, r, exists)
	h.tables(p, shapes)
	if !slices.ContainsFunc(h.out.GetFindings(), func(f *applierv1.Finding) bool { return f.GetTopic() == topicPrivileges }) {
		h.ok(topicPrivileges, "role %s may do here what is needed, and the source's role may read the tables", p.target.Role.Name)
	}
	return nil
}
