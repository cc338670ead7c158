package applier

import (
	"maps"
	"slices"
	"strings"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/schema"
)

// set tells of the set, whose parameters the source has looked at.
func (h *handshake) set(src *source, r *stored, exists bool) {
	name := r.spec.GetSet()
	if name == "" {
		return
	}
	h.out.SetVersion = src.set.version
	with := ""
	for _, parameter := range slices.Sorted(maps.Keys(r.spec.GetParameters())) {
		with += ", " + parameter
	}
	if with != "" {
		with = " with " + strings.TrimPrefix(with, ", ")
	}
	if exists && r.setVersion != 0 && r.setVersion != src.set.version {
		h.note(topicSet, "", "set %s is version %d, and the replica holds version %d: it copies anew what is selected otherwise, by itself", name, src.set.version, r.setVersion)
		return
	}
	h.ok(topicSet, "set %s, version %d%s", name, src.set.version, with)
}

// tables tells of each table what fits, what does not, and what has changed since it was taken into the replication.
func (h *handshake) tables(p *plan, before map[schema.Name]storedShapes) {
	said := map[string]bool{}
	for _, m := range p.mismatches {
		said[m.String()] = true
		h.mismatch(m)
	}
	for _, w := range p.warnings {
		if !said[w] {
			h.note(topicTables, "", "%s", w)
		}
	}
	compared, created := 0, 0
	for _, t := range p.source.Tables {
		if !t.HasRows() {
			continue
		}
		name := p.source.Source(t.FullName())
		described, _ := p.described.Table(name)
		shape := described.Shape()
		one := &applierv1.TableShapes{Schema: name.Schema, Name: name.Name, SourceFingerprint: schema.Fingerprint(shape)}
		h.out.Tables = append(h.out.Tables, one)
		was, known := before[name]
		if known {
			one.StoredSourceFingerprint, one.StoredTargetFingerprint = schema.Fingerprint(was.source), schema.Fingerprint(was.target)
			h.changed(name, "source", was, was.source, shape)
		}
		target, routed := schema.Route(p.source.Database, p.target, t.FullName())
		if !routed || slices.Contains(p.create, t.FullName()) {
			created++
			continue
		}
		compared++
		there, _ := p.target.Table(target)
		one.Target, one.TargetFingerprint = target.String(), schema.Fingerprint(there.Shape())
		if known {
			h.changed(name, "replica", was, was.target, there.Shape())
		}
	}
	if !slices.ContainsFunc(h.out.GetFindings(), func(f *applierv1.Finding) bool {
		return f.GetTopic() == topicTables && f.GetVerdict() == applierv1.Verdict_VERDICT_PROBLEM
	}) {
		h.ok(topicTables, "%d tables fit, %d are to be created", compared, created)
	}
}

func (h *handshake) mismatch(m schema.Mismatch) {
	f := &applierv1.Finding{Topic: topicTables, Subject: m.Table.String(), Column: m.Column, Verdict: applierv1.Verdict_VERDICT_NOTE, Text: m.Problem, Mend: m.Mend}
	if m.Source != "" || m.Target != "" {
		f.Text += " (source: " + orNothing(m.Source) + ", replica: " + orNothing(m.Target) + ")"
	}
	if !m.Warning {
		f.Verdict, f.Code = applierv1.Verdict_VERDICT_PROBLEM, reasonMismatch
		if f.GetMend() == "" {
			f.Mend = "alter the replica's table, or drop it so that it is created, or leave it out with --exclude-table"
		}
	}
	h.add(f)
}

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

// changed names what is different on one side since a table was taken into the replication.
func (h *handshake) changed(table schema.Name, side string, was storedShapes, before, now []string) {
	changes := schema.ShapeChanges(before, now)
	if changes == nil {
		return
	}
	h.add(&applierv1.Finding{
		Topic: topicTables, Verdict: applierv1.Verdict_VERDICT_NOTE, Subject: table.String(),
		Text: "changed on the " + side + " since " + was.at.UTC().Format("2006-01-02 15:04:05 MST") + ": " + strings.Join(changes, "; "),
	})
}
