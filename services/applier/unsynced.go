package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

const (
	maxQuarantineLimit = 100_000
	minQuarantineBytes = 64 << 10
	maxQuarantineBytes = 16 << 30
	mostUnsyncedIDs    = 1000
)

// quarantineOf is what a spec says of changes that the target refuses, with the defaults filled in.
func quarantineOf(spec *applierv1.ReplicationSpec) apply.Quarantine {
	q := apply.Quarantine{
		SetAside: spec.GetOnError() == applierv1.OnError_ON_ERROR_QUARANTINE, MaxRows: apply.DefaultQuarantineRows, MaxBytes: apply.DefaultQuarantineBytes,
		Dropped: truncated,
	}
	if n := spec.GetQuarantineLimit(); n > 0 {
		q.MaxRows = n
	}
	if n := spec.GetQuarantineBytes(); n > 0 {
		q.MaxBytes = n
	}
	return q
}

func checkQuarantine(p *problems, spec *applierv1.ReplicationSpec) {
	p.count("spec.quarantine_limit", spec.GetQuarantineLimit(), 1, maxQuarantineLimit)
	p.count("spec.quarantine_bytes", spec.GetQuarantineBytes(), minQuarantineBytes, maxQuarantineBytes)
	if applierv1.OnError_name[int32(spec.GetOnError())] == "" {
		p.add("spec.on_error", "%d is not known", spec.GetOnError())
	}
}

// showUnsynced shows what is in quarantine. The caller holds the lock.
func (s *status) showUnsynced(out *applierv1.Replication) {
	n := s.unsynced
	out.QuarantinedChanges, out.WaitingChanges, out.QuarantinedBytes = n.Quarantined, n.Waiting, n.Bytes
	if n.Rows() > 0 {
		if out.GetState() == applierv1.State_STATE_COMPLETED {
			out.State = applierv1.State_STATE_COMPLETED_WITH_QUARANTINE
		}
		out.Warnings = append(out.Warnings, fmt.Sprintf("%d changes are in quarantine, %d refused and %d waiting behind them, so their rows are not as on the source; `syncline replication unsynced %s` lists them",
			n.Rows(), n.Quarantined, n.Waiting, s.replication))
	}
}

// isCompleted tells whether a run of mode once has ended, whatever is in quarantine.
func isCompleted(state applierv1.State) bool {
	return state == applierv1.State_STATE_COMPLETED || state == applierv1.State_STATE_COMPLETED_WITH_QUARANTINE
}

func (s *status) unsyncedNow() apply.Unsynced {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsynced
}

// maxSettling is about how long applying stands still for a retry at a time.
const maxSettling = 2 * time.Second

// RetryUnsynced applies changes in quarantine again.
func (s *Service) RetryUnsynced(ctx context.Context, in *applierv1.RetryUnsyncedRequest) (*applierv1.RetryUnsyncedResponse, error) {
	pick, err := pickOf(in.GetIds(), in.GetTable(), in.GetAll())
	if err != nil {
		return nil, err
	}
	settle := &apply.Settle{Replication: in.GetName(), Pick: pick}
	var columns []string
	for _, e := range in.GetEdits() {
		if e.GetNull() && e.GetText() != "" {
			return nil, rpc.Invalid("edits", "the value of column %s is NULL and has a text", e.GetColumn())
		}
		settle.Edits = append(settle.Edits, apply.Edit{Column: e.GetColumn(), Null: e.GetNull(), Text: e.GetText()})
		columns = append(columns, e.GetColumn())
	}
	if len(settle.Edits) > 0 && len(pick.IDs) != 1 {
		return nil, rpc.Invalid("edits", "are of one change; name it in ids, alone")
	}
	said := whoCalls(ctx) + " had " + words(pick) + " applied again"
	if len(columns) > 0 {
		said += ", with other values in " + strings.Join(columns, ", ") + " (`syncline replication unsynced " + in.GetName() + " --edits` shows them)"
		settle.Edited = edited(in, access.CallerOf(ctx))
	}
	if err := s.settle(ctx, settle, kindRetriedRows, said); err != nil {
		return nil, err
	}
	out := &applierv1.RetryUnsyncedResponse{Applied: settle.Settled.Applied, Left: settle.Settled.Left, Refused: leftProto(settle.Settled)}
	return out, nil
}

// DiscardUnsynced gives changes in quarantine up.
func (s *Service) DiscardUnsynced(ctx context.Context, in *applierv1.DiscardUnsyncedRequest) (*applierv1.DiscardUnsyncedResponse, error) {
	pick, err := pickOf(in.GetIds(), in.GetTable(), in.GetAll())
	if err != nil {
		return nil, err
	}
	settle := &apply.Settle{Replication: in.GetName(), Pick: pick, Discard: true, WithWaiting: in.GetWithWaiting()}
	if err := s.settle(ctx, settle, kindDiscarded, whoCalls(ctx)+" discarded "+words(pick)); err != nil {
		return nil, err
	}
	n := settle.Settled
	return &applierv1.DiscardUnsyncedResponse{Discarded: n.Discarded, Applied: n.Applied, Left: n.Left, Refused: leftProto(n)}, nil
}

func pickOf(ids []int64, table string, all bool) (apply.Pick, error) {
	given := 0
	for _, is := range []bool{len(ids) > 0, table != "", all} {
		if is {
			given++
		}
	}
	if given != 1 {
		return apply.Pick{}, rpc.Invalid("ids", "say which changes: one of ids, table and all")
	}
	if len(ids) > mostUnsyncedIDs {
		return apply.Pick{}, rpc.Invalid("ids", "are more than %d; name a table, or all", mostUnsyncedIDs)
	}
	name, err := tableOf(table)
	return apply.Pick{IDs: ids, Table: name}, err
}

// tableOf is nil for no table.
func tableOf(text string) (*schema.Name, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	schemaName, name, found := strings.Cut(text, ".")
	if !found || schemaName == "" || name == "" {
		return nil, rpc.Invalid("table", "%q is not of the form schema.table", text)
	}
	return &schema.Name{Schema: schemaName, Name: name}, nil
}

// whoCalls names the user who decides something, where that is known.
func whoCalls(ctx context.Context) string {
	if caller := access.CallerOf(ctx); caller != nil {
		return "user " + caller.Name
	}
	return "a user"
}

func words(p apply.Pick) string {
	switch {
	case len(p.IDs) == 1:
		return fmt.Sprintf("change %d in quarantine", p.IDs[0])
	case len(p.IDs) > 0:
		return fmt.Sprintf("%d changes in quarantine", len(p.IDs))
	case p.Table != nil:
		return fmt.Sprintf("all changes of table %s in quarantine", p.Table)
	}
	return "all changes in quarantine"
}

func leftProto(n apply.Settled) []*applierv1.UnsyncedLeft {
	list := make([]*applierv1.UnsyncedLeft, len(n.Refused))
	for i, r := range n.Refused {
		list[i] = &applierv1.UnsyncedLeft{Id: r.ID, Table: r.Table.String(), WaitsBehind: r.Behind, Sqlstate: r.Code, Message: r.Message}
	}
	return list
}

// settle runs one while nothing else is applied: while the engine stands still, or with a session of its own where no engine runs. What
// applying does is decided under r.control, so nobody stops or starts it meanwhile.
func (s *Service) settle(ctx context.Context, settle *apply.Settle, kind eventKind, said string) error {
	r, _, release, err := s.decide(ctx, settle.Replication, "")
	if err != nil {
		return err
	}
	defer release()
	settle.Note = func(ctx context.Context, tx pgx.Tx, n apply.Settled) error {
		text := fmt.Sprintf("%s: %d applied, %d discarded, %d left", said, n.Applied, n.Discarded, n.Left)
		position, known := r.status.positionIfAny()
		return insertEvents(ctx, tx, &event{replication: r.name, kind: kind, text: text, rows: n.Applied + n.Discarded, position: position, hasPosition: known})
	}
	for more := true; more; {
		if more, err = r.settleSome(ctx, settle); err != nil {
			return settleError(r, err)
		}
	}
	return nil
}

func (r *runner) settleSome(ctx context.Context, settle *apply.Settle) (more bool, err error) {
	r.mu.Lock()
	holds, holder := r.holds, r.holder
	r.mu.Unlock()
	if holds == nil {
		return r.settleAlone(ctx, settle)
	}
	conn, err := apply.ConnectLoader(ctx, r.config.PostgresURL, r.name, holder)
	if err != nil {
		return false, err
	}
	defer closeQuietly(conn)
	if _, err = conn.Exec(ctx, "SET synchronous_commit = on; "+mendingSettings); err != nil {
		return false, fmt.Errorf("settle the quarantine: %w", err)
	}
	err = holds.At(ctx, func(standing change.Position) (change.Position, error) { return standing, nil }, func() error {
		more, err = settle.Run(ctx, conn, time.Now().Add(maxSettling))
		return errors.Join(err, r.reloadHeld(ctx)) // whatever was committed before an error counts
	})
	return more, err
}

// settleAlone takes the replication's lock, so that no engine runs.
func (r *runner) settleAlone(ctx context.Context, settle *apply.Settle) (more bool, err error) {
	session, err := apply.OpenSession(ctx, r.config.PostgresURL, r.name)
	if err != nil {
		return false, err
	}
	defer session.Close()
	if _, err = session.Conn().Exec(ctx, "SET synchronous_commit = on; "+mendingSettings); err != nil {
		return false, fmt.Errorf("settle the quarantine: %w", err)
	}
	more, err = settle.Run(ctx, session.Conn(), time.Now().Add(maxSettling))
	fresh, read := r.store.get(context.WithoutCancel(ctx), r.name)
	if read == nil {
		r.status.update(func(s *status) { s.unsynced = fresh.unsynced })
	}
	return more, errors.Join(err, read)
}

// settleError gives an error the status that says what to do.
func settleError(r *runner, err error) error {
	var missing *apply.NotInQuarantineError
	var edit *apply.EditError
	switch {
	case errors.As(err, &missing):
		return rpc.Errorf(codes.NotFound, reasonNotUnsynced, "replication %s: %w; `syncline replication unsynced %s` lists those that are", r.name, err, r.name)
	case errors.As(err, &edit):
		return rpc.Errorf(codes.FailedPrecondition, reasonEditRefused, "replication %s: %w", r.name, err)
	case errors.Is(err, apply.ErrInUse):
		return rpc.Errorf(codes.FailedPrecondition, reasonInUse, "replication %s is busy in state %s; try again when it is running, or stop it", r.name, stateName(r.status.stateNow()))
	case errors.Is(err, apply.ErrNotApplying):
		return rpc.Errorf(codes.Unavailable, reasonNotRunning, "replication %s was interrupted meanwhile; what was applied stays so; try again", r.name)
	}
	return refusal(err)
}

// unsyncedOrder sorts page tokens.
const unsyncedOrder = "unsynced"

var unsyncedOperations = map[string]applierv1.UnsyncedOperation{
	"I": applierv1.UnsyncedOperation_UNSYNCED_OPERATION_INSERT, "U": applierv1.UnsyncedOperation_UNSYNCED_OPERATION_UPDATE,
	"D": applierv1.UnsyncedOperation_UNSYNCED_OPERATION_DELETE,
}

func idsOf(list []*applierv1.Unsynced) []int64 {
	ids := make([]int64, len(list))
	for i, c := range list {
		ids[i] = c.GetId()
	}
	return slices.Clip(ids)
}
