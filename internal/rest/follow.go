package rest

import (
	"net/http"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/transcript"
)

// follow serves the records of transactions, each on a line, instead of the blocks in which they are stored.
func (h *Handler) follow(w http.ResponseWriter, r *http.Request, params map[string]string) {
	request := &loggerv1.FollowRequest{}
	if err := parameters(r, params, request); err != nil {
		WriteError(w, err)
		return
	}
	out := &liner{ResponseWriter: w}
	reader := transcript.NewReader(&records{out: out, limit: request.GetLimit()})
	out.serve(r.Context(), h.conn, loggerv1.LoggerService_Follow_FullMethodName, request, reader.Take)
}

// record is a record as it stands on a line: with names and positions as in every other answer.
type record struct {
	*transcript.Record
	Time     string    `json:"commitTime,omitempty"`
	Position *position `json:"position,omitempty"`
}

type position struct {
	LogID string     `json:"logId"`
	LSN   change.LSN `json:"lsn,string"`
}

// records writes a stream's records up to the limit. The logger ends the stream with the block in which the limit lies, so what comes
// after it is thrown away, and the end says that there is more.
type records struct {
	out      *liner
	limit    int64 // transactions; 0 for none
	seen     int64
	position change.Position // of the transaction that reaches the limit
	more     bool            // after that one
}

// Record implements transcript.Sink.
func (s *records) Record(r *transcript.Record) error {
	if s.limit > 0 && s.seen >= s.limit {
		s.more = true
		return nil
	}
	out := record{Record: r, Time: r.Time}
	if r.Kind == transcript.KindCommit {
		at, err := change.ParsePosition(r.Position)
		if err != nil {
			return err
		}
		s.seen++
		s.position, out.Position = at, &position{at.LogID.String(), at.LSN}
	}
	r.Time = "" // it stands in out
	return s.out.put(line(map[string]record{"record": out}))
}

// Event implements transcript.Sink.
func (s *records) Event(answer *loggerv1.FollowResponse) error {
	var text []byte
	var err error
	switch event := answer.GetEvent().(type) {
	case *loggerv1.FollowResponse_Started:
		text, err = named("started", event.Started)
	case *loggerv1.FollowResponse_Heartbeat:
		text, err = named("heartbeat", event.Heartbeat)
	case *loggerv1.FollowResponse_Ended:
		ended := event.Ended
		if s.more {
			ended.More = true
			ended.Position = &changev1.Position{LogId: s.position.LogID.String(), Lsn: uint64(s.position.LSN)}
		}
		text, err = named("ended", ended)
	default:
		return transcript.ErrAnswer
	}
	if err != nil {
		return err
	}
	return s.out.put(text)
}
