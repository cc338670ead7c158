package logger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

// States of a follower.
const (
	FollowerFollowing = "following"
	FollowerAway      = "away"
	FollowerSilent    = "silent"
	FollowerLost      = "lost"
)

// view is what a follower is judged by.
type view struct {
	now         time.Time
	head, first change.Position
	// retained is where the log would begin by its age and size alone; bytes is its size, room the one from which the oldest goes,
	// and keep the one up to which something is kept for followers. 0 is no limit, or nothing that is kept.
	retained          change.LSN
	bytes, room, keep int64
}

// view looks at the log once, whatever the number of followers.
func (s *Service) view() view {
	ranges, c := s.changes.Ranges(), s.settings.config()
	v := view{
		now: time.Now(), head: s.changes.Head().Position, first: change.Position{LogID: ranges.LogID, LSN: ranges.First},
		retained: s.changes.RetentionStart(), bytes: int64(ranges.Bytes), keep: c.GetKeepForFollowersBytes(),
	}
	if c.GetMaxBytes() > 0 {
		v.room = max(c.GetMaxBytes(), v.keep)
	}
	return v
}

// at is what a follower has: applied, or sent while it has reported nothing.
func (f *follower) at() change.Position {
	if f.applied.LSN != 0 {
		return f.applied
	}
	return f.sent
}

// state judges a follower. The lock is held.
func (r *followers) state(f *follower, head, first change.Position, now time.Time) string {
	at := f.at()
	switch {
	case at.LogID != head.LogID || at.LSN < first.LSN:
		return FollowerLost
	case f.cancel != nil:
		return FollowerFollowing
	case r.patience > 0 && now.Sub(f.contact) > r.patience:
		return FollowerSilent
	}
	return FollowerAway
}

// known tells whether the registered followers were read.
func (r *followers) known() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loaded
}

// expect sets how long a follower counts that is not connected.
func (r *followers) expect(patience time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.patience = patience
}

// needed returns what the furthest behind of the registered followers has applied, of those that count and can still follow a log
// that begins at first.
func (r *followers) needed(first change.Position, now time.Time) (needed change.Position, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.named {
		if f.applied.LSN == 0 {
			continue
		}
		if state := r.state(f, first, first, now); state == FollowerLost || state == FollowerSilent {
			continue
		}
		if !ok || f.applied.LSN < needed.LSN {
			needed, ok = f.applied, true
		}
	}
	return needed, ok
}

// sample notes how far each follower is now.
func (r *followers) sample(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.named {
		f.speed.add(now, int64(f.at().LSN))
	}
	for f := range r.all {
		if f.name == "" {
			f.speed.add(now, int64(f.sent.LSN))
		}
	}
}

// list describes all followers by name. since tells how long the log has had what an LSN lacks.
func (r *followers) list(v view, since func(change.LSN) (time.Time, bool)) []*loggerv1.Follower {
	r.mu.Lock()
	list := make([]*follower, 0, len(r.named)+len(r.all))
	for _, f := range r.named {
		list = append(list, f)
	}
	for f := range r.all {
		if f.name == "" {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b *follower) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.address, b.address))
	})
	answer := make([]*loggerv1.Follower, len(list))
	ends := make([]change.Position, len(list))
	for i, f := range list {
		ends[i] = f.at()
		answer[i] = r.describe(f, v)
	}
	r.mu.Unlock()
	for i, at := range ends { // a look into the log takes time
		if at.LogID != v.head.LogID {
			continue
		}
		if at.LSN >= v.head.LSN {
			answer[i].LagSeconds = proto.Float64(0)
		} else if began, ok := since(at.LSN); ok {
			answer[i].LagSeconds = proto.Float64(max(0, v.now.Sub(began).Seconds()))
		}
	}
	return answer
}

// describe is called with the lock held.
func (r *followers) describe(f *follower, v view) *loggerv1.Follower {
	at := f.at()
	answer := &loggerv1.Follower{
		Name: f.name, Connected: f.cancel != nil, Address: f.address, Sent: positionProto(f.sent), Applied: positionProto(f.applied),
		State: r.state(f, v.head, v.first, v.now), BytesPerSecond: f.speed.perSecond(),
	}
	answer.Reason = f.trouble(answer.GetState(), v, r.patience)
	if at.LogID == v.head.LogID && v.head.LSN > at.LSN {
		answer.LagBytes = int64(v.head.LSN - at.LSN)
	}
	if !f.contact.IsZero() {
		answer.LastContactTime = timestamppb.New(f.contact)
	}
	if f.cancel != nil {
		answer.ConnectTime = timestamppb.New(f.since)
	}
	return answer
}

const (
	// nearStart is the part of the log in which somebody is near its start, and nearFull that of the room from which on the log is
	// nearly full.
	nearStart = 10
	nearFull  = 0.8
)

// trouble says what stands in a follower's way, or soon will.
func (f *follower) trouble(state string, v view, patience time.Duration) string {
	at := f.at()
	switch {
	case state == FollowerLost && at.LogID != v.head.LogID:
		return fmt.Sprintf("it is at %v, of another change log than %v: the replica has to be copied anew (`syncline followers forget` when it comes no more)", at.LSN, v.head.LogID)
	case state == FollowerLost:
		return fmt.Sprintf("it is at %v, and the change log begins at %v: what it needs has been purged, and the replica has to be copied anew "+
			"(`syncline followers forget` when it comes no more)", at.LSN, v.first.LSN)
	case f.applied.LSN == 0:
		return "" // nothing is kept for somebody who reports nothing
	case state == FollowerSilent:
		return fmt.Sprintf("it was not heard of since %s, for longer than %v: nothing is kept for it", f.contact.UTC().Format(time.RFC3339), patience)
	case v.keep > 0 && at.LSN < v.retained && v.retained > v.first.LSN:
		return fmt.Sprintf("changes are kept for it beyond their time: the change log has %d bytes, and from %d on the oldest go, and the replica has to be copied anew",
			v.bytes, v.keep)
	case v.room > 0 && float64(v.bytes) >= nearFull*float64(v.room) && at.LSN < v.first.LSN+(v.head.LSN-v.first.LSN)/nearStart:
		return fmt.Sprintf("it is near the start of the change log, which has %d bytes: from %d on the oldest changes go, and the replica has to be copied anew", v.bytes, v.room)
	}
	return ""
}

// warnings name the followers that something stands in the way of.
func (r *followers) warnings(v view) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for _, f := range r.named {
		if why := f.trouble(r.state(f, v.head, v.first, v.now), v, r.patience); why != "" {
			list = append(list, fmt.Sprintf("follower %s: %s", f.name, why))
		}
	}
	slices.Sort(list)
	return list
}

// behindSince returns since when the log has had something that lies after an LSN. What the timeline does not reach back to
// is looked up in the log.
func (s *Service) behindSince(ctx context.Context) func(change.LSN) (time.Time, bool) {
	lookups := maxLookups
	return func(lsn change.LSN) (time.Time, bool) {
		if at, ok := s.heads.after(lsn); ok {
			return at, true
		}
		if lookups--; lookups < 0 {
			return time.Time{}, false
		}
		at, ok, err := s.changes.StoredAfter(ctx, lsn)
		return at, ok && err == nil
	}
}

// maxLookups bounds how often one answer looks into the log: each takes some twenty reads.
const maxLookups = 20
