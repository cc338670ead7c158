package main

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/transcript"
)

var orders = &change.Relation{OID: 1, Schema: "public", Name: "Orders", Identity: change.IdentityDefault, Columns: []change.Column{
	{Name: "id", TypeOID: 23, TypeModifier: -1, Key: true}, {Name: "note", TypeOID: 25, TypeModifier: -1}, {Name: "big", TypeOID: 25, TypeModifier: -1},
}}

// tuple makes a row of texts, nil for NULL; "\x00u" is an unchanged value.
func tuple(values ...any) pgoutput.Tuple {
	t := pgoutput.Tuple{N: len(values)}
	for _, v := range values {
		text, ok := v.(string)
		switch {
		case !ok:
			t.Raw = append(t.Raw, pgoutput.ValueNull)
		case text == "\x00u":
			t.Raw = append(t.Raw, pgoutput.ValueUnchanged)
		default:
			t.Raw = append(binary.BigEndian.AppendUint32(append(t.Raw, pgoutput.ValueText), uint32(len(text))), text...)
		}
	}
	return t
}

func answer(t *testing.T, m *loggerv1.FollowResponse) *rpc.Frame {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &rpc.Frame{Data: data}
}

// blockTag is the tag of FollowResponse.block.
const blockTag = 3<<3 | 2

// stream is what a logger sends: three blocks, one of them with a change that is larger than a block.
func stream(t *testing.T) (frames []*rpc.Frame, last change.Position) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	started := &loggerv1.Started{Position: at(0x10), ServerId: somebody.ServerID}
	frames = append(frames, answer(t, &loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Started{Started: started}}))
	frames = append(frames, answer(t, &loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Heartbeat{Heartbeat: &loggerv1.Heartbeat{Head: at(0x10)}}}))
	hash := orders.Hash()
	relation := &changev1.Relation{Hash: hash[:], Oid: orders.OID, Schema: orders.Schema, Name: orders.Name, Identity: "d"}
	for _, c := range orders.Columns {
		relation.Columns = append(relation.Columns, &changev1.Column{Name: c.Name, TypeOid: c.TypeOID, TypeModifier: c.TypeModifier, Key: c.Key})
	}
	frames = append(frames, answer(t, &loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Relation{Relation: relation}}))

	b := block.NewBuilder(block.State{LogID: logID, Number: 4, Through: 0x10})
	cut := func() {
		data := b.Cut().Data()
		frames = append(frames, &rpc.Frame{Prefix: binary.AppendUvarint([]byte{blockTag}, uint64(len(data))), Data: data})
	}
	when := change.TimestampOf(longAgo)
	must(b.Begin(block.Begin{CommitLSN: 0x20, CommitTime: when, XID: 7}))
	must(b.Origin(block.Origin{ServerID: "other"}))
	must(b.Change(&block.Source{Operation: block.Insert, Relation: hash, New: tuple("1", "a \"b\"\n=c", nil)}))
	must(b.Change(&block.Source{Operation: block.Update, Relation: hash, New: tuple("1", "", "\x00u")}))
	must(b.Change(&block.Source{Operation: block.Update, Relation: hash, HasOld: true, OldIsKey: true, Old: tuple("1", nil, nil), New: tuple("2", "<NULL>", "NULL")}))
	must(b.Change(&block.Source{Operation: block.Delete, Relation: hash, HasOld: true, OldIsKey: true, Old: tuple("2", nil, nil)}))
	must(b.Commit(block.Commit{CommitLSN: 0x20, EndLSN: 0x28, CommitTime: when, XID: 7}))
	cut()
	must(b.Begin(block.Begin{CommitLSN: 0x30, CommitTime: when, XID: 8}))
	must(b.Change(&block.Source{Operation: block.Insert, Relation: hash, New: tuple("3", strings.Repeat("x", 3*block.TargetSize), nil)}))
	for b.Full() {
		cut()
	}
	must(b.Message(block.Message{Prefix: "app", Content: []byte("done\x01"), LSN: 0x2f}))
	must(b.Truncate([]change.RelationHash{hash}, true, false))
	must(b.Commit(block.Commit{CommitLSN: 0x30, EndLSN: 0x38, CommitTime: when, XID: 8}))
	for b.Ready() || b.Full() {
		cut()
	}
	return frames, change.Position{LogID: logID, LSN: 0x38}
}

func TestFollow(t *testing.T) {
	frames, last := stream(t)
	logger := &fakeLogger{answers: frames, end: rpc.Errorf(codes.OutOfRange, "POSITION_TOO_OLD", "it is gone")}
	address := serveFake(t, logger)
	out, errOut, code := command(t, nil, "follow", "--from", "earliest", "--addr", address)
	// No strings.Replacer: it takes quadratic time for such a text.
	shorten := func(text string) string {
		return strings.ReplaceAll(text, strings.Repeat("x", 3*block.TargetSize), "xxx…")
	}
	golden(t, "follow", shorten(out))
	if code != exitFailed || errOut != "syncline: it is gone; go on with --from "+last.String()+"\n" {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if logger.asked.GetStart() != loggerv1.Start_START_EARLIEST {
		t.Errorf("asked for %v", logger.asked)
	}

	out, _, _ = command(t, nil, "follow", "--from", last.String(), "--json", "--addr", address)
	golden(t, "follow_json", shorten(out))
	for one := range strings.Lines(out) {
		if !json.Valid([]byte(one)) {
			t.Errorf("not JSON: %.100s", one)
		}
	}
	if logger.asked.GetPosition().GetLsn() != uint64(last.LSN) || logger.asked.GetPosition().GetLogId() != logID.String() {
		t.Errorf("asked for %v", logger.asked)
	}

	out, errOut, code = command(t, nil, "follow", "--limit", "1", "--addr", address)
	if code != exitDone || errOut != "" || strings.Count(out, "COMMIT") != 1 || !strings.HasSuffix(out, "0/28\n") {
		t.Errorf("limit: exit code %d, %s, %s", code, errOut, out)
	}
}

func TestFollowPassesOverNoHole(t *testing.T) {
	frames, _ := stream(t)
	damaged := append([]byte(nil), frames[3].Data...)
	damaged[len(damaged)/2] ^= 1
	for name, test := range map[string]struct {
		frames []*rpc.Frame
		want   string
	}{
		"missing block":    {append(append([]*rpc.Frame(nil), frames[:4]...), frames[5:]...), block.ErrChain.Error()},
		"damaged block":    {[]*rpc.Frame{frames[0], frames[2], {Prefix: frames[3].Prefix, Data: damaged}}, block.ErrChecksum.Error()},
		"missing relation": {[]*rpc.Frame{frames[0], frames[3]}, transcript.ErrNoRelation.Error()},
		"missing start":    {frames[2:], transcript.ErrAnswer.Error()},
		"no answer":        {[]*rpc.Frame{{Data: []byte{0xff}}}, transcript.ErrAnswer.Error()},
		"other relation": {[]*rpc.Frame{frames[0], answer(t, &loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Relation{Relation: func() *changev1.Relation {
			hash := orders.Hash()
			return &changev1.Relation{Hash: hash[:], Schema: "public", Name: "Orders"}
		}()}}), frames[3]}, "3 columns instead of 0"},
		"end": {frames[:1], "the server has ended the stream"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errOut, code := command(t, nil, "follow", "--addr", serveFake(t, &fakeLogger{answers: test.frames}))
			if code != exitFailed || !strings.Contains(errOut, test.want) {
				t.Errorf("exit code %d, %s", code, errOut)
			}
		})
	}
}
