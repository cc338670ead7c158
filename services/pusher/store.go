package pusher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/encoding/protojson"

	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
)

// Whether a user wants a push to run, as stored.
const (
	wantedRunning = "running"
	wantedStopped = "stopped"
)

// stored is a push as the primary's database holds it. It does not change: another one takes its place.
type stored struct {
	name           string
	spec           *pushv1.PushSpec // with its secrets
	wanted         string
	made           bool // the target's replication has been there
	targetServerID string
	revision       int64
	createdAt      time.Time
}

// etag changes whenever what the user decided changes, also when a push is deleted and created again.
func (r *stored) etag() string { return fmt.Sprintf("%x-%d", r.createdAt.UnixMicro(), r.revision) }

type store struct{ pool *pgxpool.Pool }

const pushQuery = `SELECT p.name, p.spec, s.secrets, p.wanted, p.made, p.target_server_id, p.revision, p.created_at
	FROM syncline.pushes p LEFT JOIN syncline.push_secrets s ON s.push = p.name`

func scanPush(row pgx.CollectableRow) (*stored, error) {
	var r stored
	var spec, hidden []byte
	if err := row.Scan(&r.name, &spec, &hidden, &r.wanted, &r.made, &r.targetServerID, &r.revision, &r.createdAt); err != nil {
		return nil, err
	}
	r.spec = &pushv1.PushSpec{}
	if err := protojson.Unmarshal(spec, r.spec); err != nil {
		return nil, fmt.Errorf("read stored options of push %s: %w", r.name, err)
	}
	if err := addSecrets(r.spec, hidden); err != nil {
		return nil, fmt.Errorf("push %s: %w", r.name, err)
	}
	return &r, nil
}

func (s *store) list(ctx context.Context) ([]*stored, error) {
	rows, err := s.pool.Query(ctx, pushQuery+` ORDER BY p.name COLLATE "C"`)
	if err != nil {
		return nil, fmt.Errorf("list pushes: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanPush)
	if err != nil {
		return nil, fmt.Errorf("list pushes: %w", err)
	}
	return list, nil
}

func getPush(ctx context.Context, tx pgx.Tx, name string) (*stored, error) {
	rows, err := tx.Query(ctx, pushQuery+" WHERE p.name = $1", name)
	if err != nil {
		return nil, fmt.Errorf("read push %s: %w", name, err)
	}
	one, err := pgx.CollectExactlyOneRow(rows, scanPush)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read push %s: %w", name, err)
	}
	return one, nil
}

// storeTimeout bounds what is stored. Whoever asked for it may be gone meanwhile: it is carried out all the same, so that what is stored
// and what runs agree.
const storeTimeout = 15 * time.Second

// write changes a push, and tells of it unless kind is empty, in one transaction; it returns what is durable then.
func (s *store) write(ctx context.Context, name string, kind eventKind, change func(ctx context.Context, tx pgx.Tx) error) (fresh *stored, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := change(ctx, tx); err != nil {
			return err
		}
		if fresh, err = getPush(ctx, tx, name); err != nil || kind == "" {
			return err
		}
		return insertEvents(ctx, tx, &event{push: name, kind: kind})
	})
	return fresh, err
}

// get reads what is stored of a push.
func (s *store) get(ctx context.Context, name string) (fresh *stored, err error) {
	return s.write(ctx, name, "", func(context.Context, pgx.Tx) error { return nil })
}

func (s *store) insert(ctx context.Context, name string, spec *pushv1.PushSpec) (*stored, error) {
	return s.write(ctx, name, kindCreated, func(ctx context.Context, tx pgx.Tx) error {
		text, err := protojson.Marshal(withoutSecrets(spec))
		if err != nil {
			return fmt.Errorf("store push %s: %w", name, err)
		}
		tag, err := tx.Exec(ctx, "INSERT INTO syncline.pushes (name, spec, wanted) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", name, string(text), wantedRunning)
		if err != nil {
			return fmt.Errorf("store push %s: %w", name, err)
		}
		if tag.RowsAffected() == 0 {
			return exists(name)
		}
		return storeSecrets(ctx, tx, name, spec)
	})
}

func (s *store) update(ctx context.Context, name string, spec *pushv1.PushSpec) (*stored, error) {
	return s.write(ctx, name, kindUpdated, func(ctx context.Context, tx pgx.Tx) error {
		text, err := protojson.Marshal(withoutSecrets(spec))
		if err != nil {
			return fmt.Errorf("store push %s: %w", name, err)
		}
		if _, err := tx.Exec(ctx, "UPDATE syncline.pushes SET spec = $2, revision = revision + 1 WHERE name = $1", name, string(text)); err != nil {
			return fmt.Errorf("store push %s: %w", name, err)
		}
		return storeSecrets(ctx, tx, name, spec)
	})
}

// setWanted stores what a user wants. Who starts a push whose replication was deleted at the target wants another one there.
func (s *store) setWanted(ctx context.Context, name, wanted string, again bool) (*stored, error) {
	kind := kindStarted
	if wanted == wantedStopped {
		kind = kindStopped
	}
	return s.write(ctx, name, kind, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE syncline.pushes SET wanted = $2, made = made AND NOT $3 WHERE name = $1", name, wanted, again); err != nil {
			return fmt.Errorf("store state of push %s: %w", name, err)
		}
		return nil
	})
}

// setMade stores that the target's replication is there.
func (s *store) setMade(ctx context.Context, name, serverID string) (*stored, error) {
	return s.write(ctx, name, "", func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE syncline.pushes SET made = true, target_server_id = $2 WHERE name = $1", name, serverID); err != nil {
			return fmt.Errorf("store the target of push %s: %w", name, err)
		}
		return nil
	})
}

func (s *store) remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM syncline.pushes WHERE name = $1", name); err != nil {
			return fmt.Errorf("delete push %s: %w", name, err)
		}
		return insertEvents(ctx, tx, &event{push: name, kind: kindDeleted})
	})
}
