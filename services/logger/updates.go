package logger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
)

// Bounds of a page of ListUpdatedSince.
const (
	defaultPageSize = 1000
	maxPageSize     = 10_000
	// cutKeys and cutBytes are how much a page holds when it ends inside a transaction, and scanBytes how much of the log is read for one.
	cutKeys   = maxPageSize
	cutBytes  = 2 << 20
	scanBytes = 64 << 20
)

// pageToken is where a page begins. Its form is nobody's business but ours.
type pageToken struct {
	Log    string     `json:"log"`
	From   change.LSN `json:"from"`
	End    change.LSN `json:"end"`
	Tables string     `json:"tables"` // digest of the selection
	// Inside is set when the page begins inside the transaction after From.
	Inside *insideToken `json:"inside,omitempty"`
}

// insideToken is a place inside a large transaction.
type insideToken struct {
	Block  uint64           `json:"block"`
	Events uint64           `json:"events"` // of the transaction, that were shown
	Commit change.LSN       `json:"commit"`
	Time   change.Timestamp `json:"time"`
}

func (t *pageToken) String() string {
	text, err := json.Marshal(t)
	if err != nil {
		panic(err) // numbers and texts
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// parsePageToken reads a token, which may be anybody's words.
func parsePageToken(text string) (*pageToken, change.LogID, error) {
	refused := refusedToken()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, change.LogID{}, refused
	}
	var t pageToken
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return nil, change.LogID{}, refused
	}
	id, err := change.ParseLogID(t.Log)
	if err != nil || t.From == 0 || t.From > t.End {
		return nil, change.LogID{}, refused
	}
	return &t, id, nil
}

// ListUpdatedSince gives a page. It holds that page in memory, and a block of the log.
func (s *Service) ListUpdatedSince(ctx context.Context, request *loggerv1.ListUpdatedSinceRequest) (*loggerv1.ListUpdatedSinceResponse, error) {
	p, err := s.openPage(ctx, request)
	if err != nil {
		return nil, err
	}
	if err := p.read(ctx); err != nil {
		return nil, s.positionError(err, p.from)
	}
	answer := &loggerv1.ListUpdatedSinceResponse{
		Updates: p.latest.list(), From: positionProto(p.from), End: positionProto(p.end),
		Through: positionProto(p.through), TransactionContinues: p.inside != nil,
	}
	if p.inside != nil || p.through.LSN < p.end.LSN {
		next := pageToken{Log: p.end.LogID.String(), From: p.through.LSN, End: p.end.LSN, Tables: p.digest, Inside: p.inside}
		answer.NextPageToken = next.String()
	}
	return answer, nil
}

// openPage checks a request.
func (s *Service) openPage(ctx context.Context, request *loggerv1.ListUpdatedSinceRequest) (*page, error) {
	listed, err := s.listedSet(ctx, request)
	if err != nil {
		return nil, err
	}
	if size := request.GetPageSize(); size < 0 || size > maxPageSize {
		return nil, rpc.Invalid("page_size", "it has to be 0 for %d, or up to %d", defaultPageSize, maxPageSize)
	}
	p := &page{
		service: s, tables: newSetTables(s.lookup(), listed, request.GetParameters()), size: int(request.GetPageSize()),
		digest: selectionDigest(request, listed), latest: newLatest(),
	}
	if p.size == 0 {
		p.size = defaultPageSize
	}
	if request.GetPageToken() == "" {
		if p.from, err = parsePosition("position", request.GetPosition()); err != nil {
			return nil, err
		}
		if err := s.ready(); err != nil {
			return nil, err
		}
		p.end = s.changes.Head().Position
		return p, nil
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	token, id, err := parsePageToken(request.GetPageToken())
	if err != nil {
		return nil, err
	}
	if token.Tables != p.digest {
		return nil, rpc.Invalid("page_token", "it is of another list: ask for all pages with the same tables, or the same set in the same version")
	}
	if head := s.changes.Head().Position; id == head.LogID && token.End > head.LSN {
		return nil, refusedToken()
	}
	p.from, p.end = change.Position{LogID: id, LSN: token.From}, change.Position{LogID: id, LSN: token.End}
	p.inside = token.Inside
	return p, nil
}

// listedSet is what a list selects.
func (s *Service) listedSet(ctx context.Context, request *loggerv1.ListUpdatedSinceRequest) (*set, error) {
	if request.GetSet() != "" || len(request.GetParameters()) > 0 {
		if len(request.GetIncludeTables())+len(request.GetExcludeTables()) > 0 {
			return nil, rpc.Invalid("set", "a set selects the tables: include_tables and exclude_tables have to be empty")
		}
		return s.usedSet(ctx, request.GetSet(), request.GetParameters(), 0)
	}
	selection, err := schema.ParseSelection(request.GetIncludeTables(), nil)
	if err != nil {
		return nil, rpc.Invalid("include_tables", "%v", err)
	}
	excluded, err := schema.ParseSelection(nil, request.GetExcludeTables())
	if err != nil {
		return nil, rpc.Invalid("exclude_tables", "%v", err)
	}
	selection.Exclude = excluded.Exclude
	return &set{definition: sets.Of(selection)}, nil
}

// selectionDigest tells lists apart.
func selectionDigest(request *loggerv1.ListUpdatedSinceRequest, listed *set) string {
	text, err := json.Marshal([]any{request.GetIncludeTables(), request.GetExcludeTables(), request.GetSet(), listed.version, request.GetParameters()})
	if err != nil {
		panic(err) // numbers and texts
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// refusedToken refuses a token that names no place of a list.
func refusedToken() error {
	return rpc.Invalid("page_token", "it is none that this call has given: begin again with a position")
}
