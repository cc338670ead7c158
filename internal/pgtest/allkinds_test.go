package pgtest

import (
	"context"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestAllKinds loads and mutates two databases in the same way. They must be equal all the time: a load whose outcome
// hangs on anything but its seed would find differences that no replication made.
func TestAllKinds(t *testing.T) {
	s := Shared(t)
	urls := []string{s.Database(t), s.Database(t)}
	var did []Mutations
	for _, url := range urls {
		conn := Connect(t, url)
		LoadAllKinds(t, conn)
		if s.Major() >= 18 {
			Exec(t, conn, AllKinds18)
		}
		Exec(t, conn, "UPDATE kinds.defaults SET at = '2026-01-01', key = NULL; UPDATE kinds.altered SET moment = NULL")
		Exec(t, conn, "ALTER TABLE kinds.defaults ALTER key DROP DEFAULT, ALTER at SET DEFAULT '2026-02-02'")
		Exec(t, conn, "ALTER TABLE kinds.altered ALTER moment SET DEFAULT '2026-02-02'")
		m, err := MutateAllKinds(t.Context(), conn, rand.New(rand.NewPCG(1, 1)), 600)
		if err != nil {
			t.Fatal(err)
		}
		did = append(did, m)
	}
	t.Logf("%+v", did[0])
	if !reflect.DeepEqual(did[0], did[1]) {
		t.Errorf("the same seed did other things: %+v", did[1])
	}
	RequireEqualWith(t, urls[0], urls[1], CompareOptions{Sequences: true})
	for _, sort := range []string{"insert", "insert on conflict", "upsert", "update", "update of key", "update all", "delete", "truncate", "message"} {
		if did[0].Statements[sort] == 0 {
			t.Errorf("no %s succeeded", sort)
		}
	}
	if did[0].Committed < 300 || did[0].RolledBack == 0 || did[0].Prepared == 0 || did[0].Refused["23505"] == 0 {
		t.Errorf("%+v", did[0])
	}
}

// TestAllKindsCapturable lets a logical slot decode the whole load, as a primary would, with every table in a
// publication: no statement may fail for that.
func TestAllKindsCapturable(t *testing.T) {
	s := Shared(t)
	conn := Connect(t, s.Database(t))
	Exec(t, conn, AllKinds)
	Exec(t, conn, "CREATE PUBLICATION everything FOR ALL TABLES")
	if s.Major() >= 18 {
		// Without it an UPDATE of kinds.keyless_generated is refused on 18.
		Exec(t, conn, "ALTER PUBLICATION everything SET (publish_generated_columns = stored)")
	}
	Exec(t, conn, "SELECT pg_create_logical_replication_slot('capturable', 'pgoutput')")
	Exec(t, conn, AllKindsLoad)
	if _, err := MutateAllKinds(t.Context(), conn, rand.New(rand.NewPCG(2, 2)), 200); err != nil {
		t.Fatal(err)
	}
	changes := QueryRow[int](t, conn, `SELECT count(*) FROM pg_logical_slot_get_binary_changes('capturable', NULL, NULL,
		'proto_version', '1', 'publication_names', 'everything', 'messages', 'true')`)
	if changes < 1000 {
		t.Errorf("%d messages", changes)
	}
}

// TestMutateTogether has several sessions in one database. They meet in locks and constraints, and must not fail.
func TestMutateTogether(t *testing.T) {
	s := Shared(t)
	url := s.Database(t)
	LoadAllKinds(t, Connect(t, url))
	results := make(chan error)
	const sessions = 4
	for i := range sessions {
		go func() {
			conn, err := pgx.Connect(t.Context(), url)
			if err == nil {
				defer conn.Close(context.Background())
				_, err = MutateAllKinds(t.Context(), conn, rand.New(rand.NewPCG(3, uint64(i))), 100)
			}
			results <- err
		}()
	}
	for range sessions {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if err := FinishPrepared(t.Context(), Connect(t, url)); err != nil {
		t.Error(err)
	}
}
