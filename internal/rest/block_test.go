package rest

import (
	"encoding/binary"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/rpc"
)

var (
	testLog = change.LogID{0xab, 0xcd}
	longAgo = change.TimestampOf(time.Date(2026, 3, 1, 12, 30, 15, 0, time.UTC))
)

// blockTag is the tag of FollowResponse.block.
const blockTag = 3<<3 | 2

// transactions is what a logger sends to one that asks for a limit: the start, a heartbeat, a relation, one block with n inserts that
// commit 16 bytes apart, and the end.
func transactions(t *testing.T, n int) []*rpc.Frame {
	t.Helper()
	orders := &change.Relation{OID: 1, Schema: "public", Name: "Orders", Identity: change.IdentityDefault, Columns: []change.Column{
		{Name: "id", TypeOID: 23, TypeModifier: -1, Key: true}, {Name: "note", TypeOID: 25, TypeModifier: -1},
	}}
	hash := orders.Hash()
	relation := &changev1.Relation{Hash: hash[:], Oid: 1, Schema: "public", Name: "Orders", Identity: "d", Columns: []*changev1.Column{{Name: "id", TypeOid: 23, TypeModifier: -1, Key: true}, {Name: "note", TypeOid: 25, TypeModifier: -1}}}
	place := func(lsn uint64) *changev1.Position { return &changev1.Position{LogId: testLog.String(), Lsn: lsn} }
	end := uint64(8 + 16*n)
	var frames []*rpc.Frame
	add := func(answer *loggerv1.FollowResponse) {
		data, err := proto.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, &rpc.Frame{Data: data})
	}
	add(&loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Started{Started: &loggerv1.Started{Position: place(1), ServerId: "s"}}})
	add(&loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Heartbeat{Heartbeat: &loggerv1.Heartbeat{Head: place(end)}}})
	add(&loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Relation{Relation: relation}})
	b := block.NewBuilder(block.State{LogID: testLog, Number: 1, Through: 1})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		xid, lsn := uint32(i+1), change.LSN(16*(i+1))
		id := strconv.Itoa(i + 1)
		raw := append(binary.BigEndian.AppendUint32([]byte{pgoutput.ValueText}, uint32(len(id))), id...)
		must(b.Begin(block.Begin{CommitLSN: lsn, CommitTime: longAgo, XID: xid}))
		must(b.Change(&block.Source{Operation: block.Insert, Relation: hash, New: pgoutput.Tuple{N: 2, Raw: append(raw, pgoutput.ValueNull)}}))
		must(b.Commit(block.Commit{CommitLSN: lsn, EndLSN: lsn + 8, CommitTime: longAgo, XID: xid}))
	}
	data := b.Cut().Data()
	frames = append(frames, &rpc.Frame{Prefix: binary.AppendUvarint([]byte{blockTag}, uint64(len(data))), Data: data})
	add(&loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Ended{Ended: &loggerv1.Ended{Position: place(end), FirstLsn: 1}}})
	return frames
}
