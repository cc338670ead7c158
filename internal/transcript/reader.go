package transcript

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// The fields of FollowResponse that are not handed on.
const (
	fieldStarted  = 1
	fieldRelation = 2
	fieldBlock    = 3
)

// Sink takes what a stream tells, in its order. An error of it ends the reading.
type Sink interface {
	// Record takes one record of a transaction. It owns it, but for Content, which is valid during the call only.
	Record(r *Record) error
	// Event takes what is no record: where the stream began, a heartbeat, the end.
	Event(answer *loggerv1.FollowResponse) error
}

// Reader turns the answers of one Follow stream into records.
type Reader struct {
	sink         Sink
	position     change.Position
	transactions int64
	relations    map[change.RelationHash]*changev1.Relation
	assembler    *block.Assembler // nil before the stream has said where it begins
	record       block.Record
}

// NewReader returns a Reader that hands everything to the sink.
func NewReader(sink Sink) *Reader {
	return &Reader{sink: sink, relations: make(map[change.RelationHash]*changev1.Relation)}
}

// Position returns the end of the last transaction whose commit was handed to the sink, or else where the stream began; zero
// before that.
func (r *Reader) Position() change.Position { return r.position }

// Transactions returns how many commits were handed to the sink.
func (r *Reader) Transactions() int64 { return r.transactions }

// Take reads one serialized FollowResponse. It returns ErrAnswer, ErrNoRelation, errors of package block, and those of the sink.
func (r *Reader) Take(data []byte) error {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 || kind != protowire.BytesType {
		return ErrAnswer
	}
	body, m := protowire.ConsumeBytes(data[n:])
	if m < 0 || n+m != len(data) {
		return ErrAnswer
	}
	switch number {
	case fieldRelation:
		relation := &changev1.Relation{}
		if err := proto.Unmarshal(body, relation); err != nil || len(relation.GetHash()) != len(change.RelationHash{}) {
			return fmt.Errorf("read relation: %w", ErrAnswer)
		}
		r.relations[change.RelationHash(relation.GetHash())] = relation
		return nil
	case fieldBlock:
		b, err := block.Parse(body)
		if err != nil {
			return err
		}
		return r.block(b)
	}
	answer := &loggerv1.FollowResponse{}
	if err := proto.Unmarshal(data, answer); err != nil {
		return ErrAnswer
	}
	if number == fieldStarted {
		if err := r.start(answer.GetStarted()); err != nil {
			return err
		}
	}
	return r.sink.Event(answer)
}

func (r *Reader) start(started *loggerv1.Started) error {
	id, err := change.ParseLogID(started.GetPosition().GetLogId())
	if err != nil {
		return fmt.Errorf("read start: %w", err)
	}
	r.position = change.Position{LogID: id, LSN: change.LSN(started.GetPosition().GetLsn())}
	r.assembler = block.NewAssembler(r.position)
	return nil
}

func (r *Reader) block(b *block.Block) error {
	if r.assembler == nil {
		return ErrAnswer
	}
	if err := r.assembler.Push(b); err != nil {
		return err
	}
	for {
		more, err := r.assembler.Next(&r.record)
		if err != nil || !more {
			return err
		}
		record, err := recordOf(b, &r.record, r.relations)
		if err != nil {
			return err
		}
		if r.record.Kind == block.KindCommit {
			r.position.LSN = r.record.Commit.EndLSN
			r.transactions++
		}
		if err := r.sink.Record(record); err != nil {
			return err
		}
	}
}
