package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestGuard takes identities away and writes at once, in the same transaction: nothing fails.
func TestGuard(t *testing.T) {
	url := database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, tables)
	pgtest.Exec(t, conn, `CREATE TYPE code AS ENUM ('x'); CREATE TABLE typed (c code PRIMARY KEY, v int); INSERT INTO typed VALUES ('x', 1);
		INSERT INTO keyed VALUES (1); INSERT INTO by_index VALUES (1); INSERT INTO full_identity VALUES ('1'); INSERT INTO parted VALUES (1, 5), (1, 15);
		CREATE TABLE turns_full (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO turns_full VALUES (1)`)
	cfg := config(t, nil, nil, nil)
	if err := Prepare(t.Context(), conn, cfg); err != nil {
		t.Fatal(err)
	}
	reconcile(t, conn, cfg)
	for range 2 { // the second time it is there
		if there, err := Guard(t.Context(), conn, cfg); err != nil || !there {
			t.Fatal(there, err)
		}
	}
	for _, statements := range []string{
		"ALTER TABLE keyed DROP CONSTRAINT keyed_pkey; UPDATE keyed SET v = 'x'; DELETE FROM keyed",
		"ALTER TABLE by_index DROP CONSTRAINT by_index_a_key; UPDATE by_index SET a = 2",
		"ALTER TABLE full_identity REPLICA IDENTITY NOTHING; UPDATE full_identity SET v = 'y'",
		"ALTER TABLE turns_full REPLICA IDENTITY FULL; UPDATE turns_full SET a = 2",
		"DROP TYPE code CASCADE; UPDATE typed SET v = 2",
		"ALTER TABLE parted_1 REPLICA IDENTITY NOTHING; UPDATE parted SET id = id; DELETE FROM parted WHERE day = 5",
	} {
		pgtest.Exec(t, conn, "BEGIN; "+statements+"; COMMIT")
	}
	check := func(partition string) {
		t.Helper()
		listed := " " + members(t, conn, "syncline") + " "
		for _, gone := range []string{"keyed", "by_index", "full_identity", "typed", "parted", "parted_1"} {
			if strings.Contains(listed, " public."+gone+" ") {
				t.Errorf("%s is still listed in%s", gone, listed)
			}
		}
		if !strings.Contains(listed, " public."+partition+" ") {
			t.Errorf("%s is not listed in%s", partition, listed)
		}
	}
	check("parted_2_a")
	if state := reconcile(t, conn, cfg); state.Pending != nil {
		t.Errorf("pending: %v", state.Pending)
	}
	check("parted_2") // the same partition, and future ones
}

// TestGuardUnderReconcile takes identities away and gives them back while the catalog is looked at all the time.
func TestGuardUnderReconcile(t *testing.T) {
	url := database(t)
	conn := pgtest.Connect(t, url)
	cfg := config(t, nil, nil, nil)
	cfg.LockTimeout = 300 * time.Millisecond
	if err := Prepare(t.Context(), conn, cfg); err != nil {
		t.Fatal(err)
	}
	if there, err := Guard(t.Context(), conn, cfg); err != nil || !there {
		t.Fatal(there, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var looking, writing sync.WaitGroup
	looking.Go(func() {
		looker := pgtest.Connect(t, url)
		for ctx.Err() == nil {
			if _, err := Reconcile(ctx, looker, cfg); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
				return
			}
		}
	})
	for n := range 3 {
		writing.Go(func() {
			writer := pgtest.Connect(t, url)
			name := fmt.Sprintf("busy_%d", n)
			if _, err := writer.Exec(ctx, "CREATE TABLE "+name+" (id int); INSERT INTO "+name+" VALUES (1)"); err != nil {
				t.Error(err)
			}
			for range 40 {
				for _, sql := range []string{
					"ALTER TABLE %[1]s ADD PRIMARY KEY (id)", "UPDATE %[1]s SET id = id",
					"BEGIN; UPDATE %[1]s SET id = id; ALTER TABLE %[1]s DROP CONSTRAINT %[1]s_pkey; UPDATE %[1]s SET id = id; COMMIT",
					"UPDATE %[1]s SET id = id",
				} {
					if _, err := writer.Exec(ctx, fmt.Sprintf(sql, name)); err != nil {
						t.Errorf("%s: %v", fmt.Sprintf(sql, name), err)
						return
					}
				}
			}
		})
	}
	writing.Wait()
	stop()
	looking.Wait()
}
