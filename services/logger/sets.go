package logger

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
)

// Reasons of errors about sets.
const (
	ReasonSetExists  = "SET_EXISTS"
	ReasonSetUnknown = "SET_UNKNOWN"
	ReasonSetChanged = "SET_CHANGED"
)

var setNameForm = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// set is one version of a replication set; it does not change.
type set struct {
	name             string // empty for what a stream selects by itself
	version          int64
	spec             *loggerv1.SetSpec
	definition       *sets.Definition
	created, updated time.Time
}

func (s *set) String() string {
	if s.name == "" {
		return "selection"
	}
	return "set " + s.name
}

func (s *set) proto() *loggerv1.Set {
	return &loggerv1.Set{
		Name: s.name, Spec: s.spec, Version: s.version, Parameters: s.definition.Parameters(),
		CreateTime: timestamppb.New(s.created), UpdateTime: timestamppb.New(s.updated),
	}
}

// setList knows the sets as the primary's database has them. Only this service changes them there.
type setList struct {
	mu     sync.RWMutex
	byName map[string]*set // nil before they were read
	edit   sync.Mutex      // held while the database and then byName are changed
}

// parseSet reads what a set selects; field is where that stands in the request.
func parseSet(field string, spec *loggerv1.SetSpec) (*sets.Definition, error) {
	definition, err := sets.Parse(sets.SpecOf(spec))
	return definition, setRefusal(field, err)
}

// setRefusal names the field that is wrong.
func setRefusal(within string, err error) error {
	var field *sets.FieldError
	if errors.As(err, &field) {
		return rpc.Invalid(within+"."+field.Field, "%v", field.Reason)
	}
	return err
}

// loadSets reads the sets, unless they are known.
func (s *Service) loadSets(ctx context.Context) error {
	if s.sets.known() {
		return nil
	}
	unlock, err := s.editSets(ctx)
	if err == nil {
		unlock()
	}
	return err
}

// editSets has the sets known, and lets nobody else change them until unlock is called.
func (s *Service) editSets(ctx context.Context) (unlock func(), err error) {
	s.sets.edit.Lock()
	if !s.sets.known() {
		if err := s.readSets(ctx); err != nil {
			s.sets.edit.Unlock()
			return nil, err
		}
	}
	return s.sets.edit.Unlock, nil
}

func (l *setList) known() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byName != nil
}

// readSets reads the sets. The caller holds edit.
func (s *Service) readSets(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, "SELECT name, version, spec, created_at, updated_at FROM syncline.sets")
	if err != nil {
		return unreachable("read sets", err)
	}
	list, err := pgx.CollectRows(rows, scanSet)
	if err != nil {
		return unreachable("read sets", err)
	}
	byName := make(map[string]*set, len(list))
	for _, one := range list {
		byName[one.name] = one
	}
	s.sets.mu.Lock()
	defer s.sets.mu.Unlock()
	s.sets.byName = byName
	return nil
}

func scanSet(row pgx.CollectableRow) (*set, error) {
	one := &set{spec: &loggerv1.SetSpec{}}
	var spec []byte
	if err := row.Scan(&one.name, &one.version, &spec, &one.created, &one.updated); err != nil {
		return nil, err
	}
	err := protojson.Unmarshal(spec, one.spec)
	if err == nil {
		one.definition, err = parseSet("spec", one.spec)
	}
	if err != nil {
		return nil, fmt.Errorf("set %s as it is stored: %w", one.name, err)
	}
	return one, nil
}

// unreachable gives an error of the primary's its status.
func unreachable(what string, err error) error {
	if postgres.IsTransient(err) {
		return rpc.Errorf(codes.Unavailable, CodeConnectionLost, "%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// findSet returns the present version of a set.
func (s *Service) findSet(ctx context.Context, name string) (*set, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if err := s.loadSets(ctx); err != nil {
		return nil, err
	}
	if one := s.sets.present(name); one != nil {
		return one, nil
	}
	return nil, setUnknown(name)
}

// setUnknown says that there is no set of a name.
func setUnknown(name string) error {
	return rpc.Errorf(codes.NotFound, ReasonSetUnknown, "there is no set %q; `syncline set list` shows those that there are", name).With("set", name)
}

// present returns the set of a name as it is now, nil if there is none.
func (l *setList) present(name string) *set {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byName[name]
}

// usedSet returns the set that a request names, with parameters that fit; nil if it names none.
func (s *Service) usedSet(ctx context.Context, name string, parameters map[string]string, version int64) (*set, error) {
	if name == "" {
		if len(parameters) > 0 || version != 0 {
			return nil, rpc.Invalid("set", "parameters and set_version belong to a set, and none is named")
		}
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	one, err := s.findSet(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := one.definition.CheckParameters(parameters); err != nil {
		return nil, rpc.Invalid("parameters", "set %s: %v", name, err)
	}
	if version != 0 && version != one.version {
		return nil, setChanged(name, version, one)
	}
	return one, nil
}

// followedSet returns what a stream is to select, nil for everything.
func (s *Service) followedSet(ctx context.Context, request *loggerv1.FollowRequest) (*set, error) {
	spec := request.GetSelection()
	if spec == nil {
		return s.usedSet(ctx, request.GetSet(), request.GetParameters(), request.GetSetVersion())
	}
	if request.GetSet() != "" || request.GetSetVersion() != 0 {
		return nil, rpc.Invalid("selection", "a set is named too, and one of them is needed")
	}
	definition, err := parseSet("selection", spec)
	if err != nil {
		return nil, err
	}
	if err := definition.CheckParameters(request.GetParameters()); err != nil {
		return nil, rpc.Invalid("parameters", "%v", err)
	}
	return &set{spec: spec, definition: definition}, nil
}

// lookup is how streams find out about tables.
func (s *Service) lookup() lookup {
	return lookup{relation: s.changes.Relation, version: s.families.version.Load, above: func(ctx context.Context, oid, xid uint32) ([]schema.Name, error) {
		return s.families.of(ctx, s.pool, oid, xid)
	}, partitions: func(ctx context.Context, xid uint32) (map[uint32][]schema.Name, error) {
		return s.families.refresh(ctx, s.pool, xid)
	}}
}

// sameSet makes sure that a set is still what it was.
func (s *Service) sameSet(ctx context.Context, one *set) error {
	if one.name == "" || s.sets.present(one.name) == one {
		return nil
	}
	now, err := s.findSet(ctx, one.name)
	if err == nil && now.version != one.version {
		err = setChanged(one.name, one.version, now)
	}
	return err
}

// setChanged says that a version of a set is no longer the present one, which is nil when the set was deleted.
func setChanged(name string, version int64, present *set) error {
	if present == nil {
		return setUnknown(name)
	}
	return rpc.Errorf(codes.FailedPrecondition, ReasonSetChanged, "set %s is now version %d, and version %d was asked for", name, present.version, version).
		With("set", name).With("version", fmt.Sprint(present.version))
}

// CreateSet makes a set.
func (s *Service) CreateSet(ctx context.Context, request *loggerv1.CreateSetRequest) (*loggerv1.CreateSetResponse, error) {
	name := request.GetName()
	if len(name) > sets.MaxNameSize || !setNameForm.MatchString(name) {
		return nil, rpc.Invalid("name", "%q is not a name of 1 to %d characters of a-z, 0-9, - and _ that begins with a letter", name, sets.MaxNameSize)
	}
	one, err := s.newSet(ctx, name, request.GetSpec())
	if err != nil {
		return nil, err
	}
	unlock, err := s.editSets(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.sets.present(name) != nil {
		return nil, rpc.Errorf(codes.AlreadyExists, ReasonSetExists, "there is a set named %s already; change it with `syncline set update`, or choose another name", name).With("set", name)
	}
	if err := s.storeSet(ctx, one); err != nil {
		return nil, err
	}
	return &loggerv1.CreateSetResponse{Set: one.proto()}, nil
}

// newSet checks what a set is to select against the tables that there are.
func (s *Service) newSet(ctx context.Context, name string, spec *loggerv1.SetSpec) (*set, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	spec = proto.CloneOf(spec)
	if spec == nil {
		spec = &loggerv1.SetSpec{}
	}
	patterns := &loggerv1.SetSpec{ExcludeTables: spec.GetExcludeTables()}
	for _, t := range spec.GetTables() {
		patterns.Tables = append(patterns.Tables, &loggerv1.SetTable{Pattern: t.GetPattern()})
	}
	tables, err := parseSet("spec", patterns)
	if err != nil {
		return nil, err
	}
	if err := s.loadSets(ctx); err != nil {
		return nil, err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, unreachable("connect to the primary", err)
	}
	defer conn.Release()
	if err := leavesOut(ctx, conn.Conn(), tables); err != nil {
		return nil, err
	}
	db, err := schema.Read(ctx, conn.Conn(), tables.Selection())
	if err != nil {
		return nil, unreachable("read the primary's tables", err)
	}
	if err := sets.FillKeys(spec, db); err != nil {
		return nil, setRefusal("spec", err)
	}
	definition, err := parseSet("spec", spec)
	if err != nil {
		return nil, err
	}
	if err := mayCompare(ctx, conn.Conn(), definition); err != nil {
		return nil, err
	}
	if err := definition.Check(db, s.status.insertOnlyTables()); err != nil {
		return nil, setRefusal("spec", err)
	}
	return &set{name: name, spec: spec, definition: definition}, nil
}

// leavesOut refuses names of tables that are not there: a misspelt one would leave nothing out. What is no table is left out in any case.
func leavesOut(ctx context.Context, conn *pgx.Conn, definition *sets.Definition) error {
	for _, p := range definition.Selection().Exclude {
		name, exact := p.Exact()
		if !exact {
			continue
		}
		var there bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = $1 AND c.relname = $2)`, name.Schema, name.Name).Scan(&there)
		switch {
		case err != nil:
			return unreachable("read the primary's tables", err)
		case !there:
			return rpc.Invalid("spec.exclude_tables", "there is no table %s that could be left out; for one that is still to come write a pattern with a star", name)
		}
	}
	return nil
}

// mayCompare refuses selectors in a database in which texts have other bytes than in the change log.
func mayCompare(ctx context.Context, conn *pgx.Conn, definition *sets.Definition) error {
	if !definition.Selects() {
		return nil
	}
	var encoding string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('server_encoding')").Scan(&encoding); err != nil {
		return unreachable("read the primary's encoding", err)
	}
	if encoding != "UTF8" {
		return rpc.Invalid("spec.tables", "rows can be selected in a database with encoding UTF8 only, and this one has %s", encoding)
	}
	return nil
}

// storeSet writes a set to the database, and then shows it. The caller holds edit.
func (s *Service) storeSet(ctx context.Context, one *set) error {
	spec, err := protojson.Marshal(one.spec)
	if err != nil {
		return fmt.Errorf("write set %s: %w", one.name, err)
	}
	err = s.pool.QueryRow(ctx, `
		INSERT INTO syncline.sets (name, version, spec) VALUES ($1, nextval('syncline.set_version'), $2)
		ON CONFLICT (name) DO UPDATE SET version = excluded.version, spec = excluded.spec, updated_at = now()
		RETURNING version, created_at, updated_at`, one.name, string(spec)).Scan(&one.version, &one.created, &one.updated)
	if err != nil {
		// It may be committed all the same: what is in the database counts.
		s.sets.forget()
		return unreachable("store set "+one.name, err)
	}
	s.sets.mu.Lock()
	defer s.sets.mu.Unlock()
	s.sets.byName[one.name] = one
	return nil
}

// forget has the sets read again when they are needed next.
func (l *setList) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byName = nil
}

// GetSet returns one set.
func (s *Service) GetSet(ctx context.Context, request *loggerv1.GetSetRequest) (*loggerv1.GetSetResponse, error) {
	one, err := s.findSet(ctx, request.GetName())
	if err != nil {
		return nil, err
	}
	return &loggerv1.GetSetResponse{Set: one.proto()}, nil
}

// ListSets returns all sets.
func (s *Service) ListSets(ctx context.Context, _ *loggerv1.ListSetsRequest) (*loggerv1.ListSetsResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if err := s.loadSets(ctx); err != nil {
		return nil, err
	}
	s.sets.mu.RLock()
	defer s.sets.mu.RUnlock()
	answer := &loggerv1.ListSetsResponse{}
	for _, one := range s.sets.byName {
		answer.Sets = append(answer.Sets, one.proto())
	}
	slices.SortFunc(answer.Sets, func(a, b *loggerv1.Set) int { return strings.Compare(a.GetName(), b.GetName()) })
	return answer, nil
}

// UpdateSet changes a set. Streams notice it before the next block that they send.
func (s *Service) UpdateSet(ctx context.Context, request *loggerv1.UpdateSetRequest) (*loggerv1.UpdateSetResponse, error) {
	if _, err := s.findSet(ctx, request.GetName()); err != nil {
		return nil, err
	}
	one, err := s.newSet(ctx, request.GetName(), request.GetSpec())
	if err != nil {
		return nil, err
	}
	unlock, err := s.editSets(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	before := s.sets.present(one.name)
	if before == nil {
		return nil, setUnknown(one.name)
	}
	if version := request.GetVersion(); version != 0 && version != before.version {
		return nil, rpc.Errorf(codes.Aborted, ReasonSetChanged, "set %s is now version %d, and version %d was to be changed; look at it again and repeat the change", one.name, before.version, version).
			With("set", one.name).With("version", fmt.Sprint(before.version))
	}
	if err := s.storeSet(ctx, one); err != nil {
		return nil, err
	}
	return &loggerv1.UpdateSetResponse{Set: one.proto()}, nil
}

// DeleteSet removes a set.
func (s *Service) DeleteSet(ctx context.Context, request *loggerv1.DeleteSetRequest) (*loggerv1.DeleteSetResponse, error) {
	if _, err := s.findSet(ctx, request.GetName()); err != nil {
		return nil, err
	}
	unlock, err := s.editSets(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := s.pool.Exec(ctx, "DELETE FROM syncline.sets WHERE name = $1", request.GetName()); err != nil {
		s.sets.forget()
		return nil, unreachable("delete set "+request.GetName(), err)
	}
	s.sets.mu.Lock()
	defer s.sets.mu.Unlock()
	delete(s.sets.byName, request.GetName())
	return &loggerv1.DeleteSetResponse{}, nil
}
