package applier

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
)

// clockTolerance is how far clocks may be apart before it is said. It concerns only people who compare times.
const clockTolerance = 2.0 // seconds

// examineServers compares who both sides are and what they can do.
func (s *Service) examineServers(ctx context.Context, h *handshake, src *source, r *stored, exists bool) error {
	server := src.server
	h.ok(topicSource, "server %s, database %s, answers at %s; its logger is at %s and its inventory at %s", server.GetServerId(), server.GetDatabase(), r.spec.GetSource(),
		server.GetLoggerAddress(), cmp.Or(r.spec.GetInventory(), server.GetInventoryAddress()))
	if err := h.refuse(ctx, topicSource, s.notMyself(src, r.spec)); err != nil {
		return err
	}
	if exists && server.GetServerId() != r.sourceServerID {
		h.problem(topicSource, reasonSourceChanged, fmt.Sprintf("point the address to the right server, or run `syncline replication update %s --accept-source`", r.name),
			"the source is another server than the replication was created from (%s)", r.sourceServerID)
	}
	if err := h.refuse(ctx, topicSource, s.notTwice(r.name, r.spec, server.GetServerId())); err != nil {
		return err
	}
	if exists && r.hasPosition {
		if err := src.holds(ctx, r.position); err != nil {
			if err := h.refuse(ctx, topicPosition, err); err != nil {
				return err
			}
		} else {
			h.ok(topicPosition, "the source's change log holds %s, where the replica is", r.position)
		}
	}
	if err := s.examineVersions(ctx, h, src); err != nil {
		return err
	}
	return h.clock(ctx, src)
}

// examineVersions compares the versions of Syncline and of PostgreSQL.
func (s *Service) examineVersions(ctx context.Context, h *handshake, src *source) error {
	theirs := []string{src.server.GetVersion()}
	for _, of := range []struct {
		role string
		conn grpc.ClientConnInterface
	}{{"logger", src.logger}, {"inventory", src.inventory}} {
		process, err := whoIs(ctx, of.conn, of.role+" of the source")
		if err == nil {
			err = src.sameServer(of.role, process.GetServerId())
		}
		if err := h.refuse(ctx, topicVersions, err); err != nil {
			return err
		}
		if process != nil && !slices.Contains(theirs, process.GetVersion()) {
			theirs = append(theirs, process.GetVersion())
		}
	}
	if slices.Equal(theirs, []string{s.config.Version}) {
		h.ok(topicVersions, "both run Syncline %s", s.config.Version)
	} else {
		h.note(topicVersions, "", "the source runs Syncline %q and the replica %q; what both need is there", theirs, s.config.Version)
	}
	return nil
}

func (h *handshake) clock(ctx context.Context, src *source) error {
	offset, err := src.clock(ctx)
	if err != nil {
		return h.refuse(ctx, topicClock, err)
	}
	if offset == nil {
		return nil
	}
	h.out.Clock = offset
	ahead, bound := offset.GetOffsetSeconds(), offset.GetBoundSeconds()
	where := "ahead of"
	if ahead < 0 {
		where = "behind"
	}
	if math.Abs(ahead)-bound > clockTolerance {
		h.note(topicClock, "run a time service on both", "the source's clock is %.1f s %s the replica's (give or take %.1f s): times of both cannot be compared, as in lags and logs; nothing is decided by them", math.Abs(ahead), where, bound)
	} else {
		h.ok(topicClock, "the source's clock is %.3f s %s the replica's, give or take %.3f s", math.Abs(ahead), where, bound)
	}
	return nil
}

// databases compares the PostgreSQL servers and what their databases were created with.
func (h *handshake) databases(src *source, p *plan) {
	source, target := p.source.ServerVersion, p.target.ServerVersion
	versions := fmt.Sprintf("PostgreSQL %s on the source and %s on the replica", pgVersion(source), pgVersion(target))
	if source/10000 > target/10000 {
		h.note(topicVersions, "", "%s, which is older: what only the source's version knows is left out or refused, and named by table", versions)
	} else {
		h.ok(topicVersions, "%s", versions)
	}
	s, t := src.told.settings, p.settings
	if s == nil {
		h.note(topicDatabase, "update the source", "the source's version of Syncline does not tell the settings of its database, so encodings and collations are not compared")
		return
	}
	if s.GetEncoding() == t.Encoding {
		h.ok(topicDatabase, "both have encoding %s", t.Encoding)
	} else {
		h.note(topicDatabase, "", "the source has encoding %s and the replica %s: a character that the replica's does not have stops the replication, and the row is named", s.GetEncoding(), t.Encoding)
	}
	theirs, ours := collationOf(s), collationOf(&inventoryv1.DatabaseSettings{
		CollationProvider: t.Provider, Locale: t.Locale, Collate: t.Collate, Ctype: t.CType, CollationVersion: t.CollationVersion, ActualCollationVersion: t.CollationActual,
	})
	if theirs == ours {
		h.ok(topicDatabase, "both sort text by %s", ours)
	} else {
		h.note(topicDatabase, "", "the source sorts text by %s and the replica by %s: queries may give another order there; rows are the same", theirs, ours)
	}
	if t.CollationVersion != t.CollationActual {
		h.note(topicDatabase, "REINDEX DATABASE; ALTER DATABASE … REFRESH COLLATION VERSION on the replica", "the replica's indexes were built with version %s of its collation, and the library has %s: they may be wrong", t.CollationVersion, t.CollationActual)
	}
	if s.GetCollationVersion() != s.GetActualCollationVersion() {
		h.note(topicDatabase, "REINDEX DATABASE; ALTER DATABASE … REFRESH COLLATION VERSION on the source", "the source's indexes were built with version %s of its collation, and the library has %s: they may be wrong", s.GetCollationVersion(), s.GetActualCollationVersion())
	}
	if src.told.snapshotProblem != "" {
		h.note(topicDatabase, "", "no copy could begin now, and it would be tried again: %s", src.told.snapshotProblem)
	}
}

// collationOf is how a database sorts text, in words.
func collationOf(s *inventoryv1.DatabaseSettings) string {
	name := s.GetCollate()
	if s.GetCollationProvider() != "libc" {
		name = s.GetLocale()
	}
	text := s.GetCollationProvider() + " " + name
	if s.GetCtype() != s.GetCollate() {
		text += " (letters " + s.GetCtype() + ")"
	}
	if s.GetActualCollationVersion() != "" {
		text += " " + s.GetActualCollationVersion()
	}
	return text
}

func pgVersion(number int) string { return fmt.Sprintf("%d.%d", number/10000, number%10000) }

// sameCluster tells apart another database of the same PostgreSQL server and one of a physical copy of it.
func (h *handshake) sameCluster(src *source, p *plan, systemIdentifier string) {
	if src.server.GetSystemIdentifier() != systemIdentifier || systemIdentifier == "" || src.told.settings == nil {
		return
	}
	if src.told.settings.GetStartTime().AsTime().Equal(p.settings.Start.UTC()) {
		h.ok(topicSource, "source and replica are two databases of one PostgreSQL server")
		return
	}
	h.note(topicSource, "", "the PostgreSQL servers of source and replica have the same system identifier %s: one is a physical copy of the other; their Syncline server ids differ, so they are told apart", systemIdentifier)
}
