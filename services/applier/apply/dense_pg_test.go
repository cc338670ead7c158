package apply

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestDense tells which keys lie close together.
func TestDense(t *testing.T) {
	steps := func(from, step, rows int) (keys []int) {
		for i := range rows {
			keys = append(keys, from+i*step)
		}
		return keys
	}
	for _, test := range []struct {
		name      string
		keys      []int
		low, high int
		dense     bool
	}{
		{name: "one after the other", keys: steps(1, 1, denseRows), low: 1, high: denseRows, dense: true},
		{name: "backwards, over zero", keys: steps(100, -1, denseRows), low: 101 - denseRows, high: 100, dense: true},
		{name: "every second", keys: steps(-7, 2, denseRows), low: -7, high: 2*denseRows - 9, dense: true},
		{name: "every third", keys: steps(-7, 3, denseRows)},
		{name: "one far away", keys: append(steps(1, 1, denseRows), 30000)},
		{name: "both ends of the type", keys: append(steps(1, 1, denseRows), -32768, 32767)},
		{name: "too few", keys: steps(1, 1, denseRows-1)},
	} {
		for _, oid := range []uint32{pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID} {
			t.Run(fmt.Sprint(test.name, oid), func(t *testing.T) {
				target := &Target{Schema: "public", Name: "orders", Columns: []TargetColumn{{Name: "id", Equality: EqualityExact, Operator: "=", TypeOID: oid, HasArray: true}}}
				p, err := NewPlan(relation('d', "k", "id"), target)
				if err != nil {
					t.Fatal(err)
				}
				a := newArrays(p, p.locator)
				for _, key := range test.keys {
					if !a.add([]value{{'t', strconv.AppendInt(nil, int64(key), 10)}}) {
						t.Fatalf("%d has no binary form", key)
					}
				}
				low, high, ok := a.dense()
				if ok != test.dense || ok && (signed(low) != int64(test.low) || signed(high) != int64(test.high)) {
					t.Errorf("dense: %t, from %x to %x", ok, low, high)
				}
			})
		}
	}
}

const denseTables = `CREATE TABLE two (id smallint PRIMARY KEY, v text); CREATE TABLE four (v text, id integer PRIMARY KEY); CREATE TABLE eight (id bigint PRIMARY KEY, v text);
	CREATE TABLE spread (id bigint PRIMARY KEY, v text); CREATE TABLE pair (a integer, id integer, v text, PRIMARY KEY (a, id)); CREATE TABLE named (id text PRIMARY KEY, v text);
	CREATE TABLE tiny (id integer PRIMARY KEY, v text);
	CREATE TABLE parts (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
	CREATE TABLE low PARTITION OF parts FOR VALUES FROM (MINVALUE) TO (0); CREATE TABLE high PARTITION OF parts FOR VALUES FROM (0) TO (MAXVALUE);
	INSERT INTO two SELECT n, repeat('v', 150) FROM generate_series(-1000, 2000) n; INSERT INTO four SELECT repeat('v', 150), n FROM generate_series(-1000, 2000) n;
	INSERT INTO eight SELECT n, repeat('v', 150) FROM generate_series(-1000, 2000) n; INSERT INTO spread SELECT n * 1000, repeat('v', 150) FROM generate_series(-1000, 2000) n;
	INSERT INTO pair SELECT n, n, repeat('v', 150) FROM generate_series(-1000, 2000) n; INSERT INTO named SELECT n, repeat('v', 150) FROM generate_series(-1000, 2000) n;
	INSERT INTO parts SELECT n, repeat('v', 150) FROM generate_series(-1000, 2000) n; INSERT INTO tiny SELECT n, n FROM generate_series(1, 20) n;
	-- Autovacuum would have the server make its plans anew.
	DO $$ DECLARE t regclass; BEGIN
		FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', t); END LOOP;
	END $$;
	ANALYZE`

// TestPlansOfSets changes rows whose keys lie close together, and others, more than there are in one set, and looks at the plans: those of a dense set walk over a part of the index, all others
// look each row up, also those that are made after one, and those of a table that has a page only as yet.
func TestPlansOfSets(t *testing.T) {
	s := newSourceDatabase(t, denseTables)
	for round := range 3 {
		err := pgx.BeginFunc(t.Context(), s.conn, func(tx pgx.Tx) error {
			for _, table := range []string{"two", "four", "tiny", "eight", "spread", "pair", "named", "parts"} {
				sql := fmt.Sprintf("UPDATE %[1]s SET v = v || 'a'; UPDATE %[1]s SET v = v || 'b' WHERE id::bigint %% 2 = 0; DELETE FROM %[1]s WHERE id::bigint %% 7 = %[2]d", table, round)
				if _, err := tx.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
					return err
				}
			}
			_, err := tx.Exec(t.Context(), "DELETE FROM four WHERE id BETWEEN $1 AND $2", round*400, round*400+399)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	messages := s.read()
	for _, sliceBytes := range []int{1000, 60_000, 64 << 20} {
		t.Run(fmt.Sprint(sliceBytes), func(t *testing.T) {
			l := encodeLog(t, s, messages, 1, nil)
			g := newTestTarget(t, l, denseTables)
			plans := map[string]string{}
			g.apply(l, allQueued, withOptions(func(o *Options) { o.SliceBytes, o.GroupBytes = sliceBytes, 3*sliceBytes }), func(r *testRun) {
				r.Applied = func(Progress) error { return setPlans(t.Context(), r.Session.Conn(), plans) }
			})
			g.requireAt(l.lsn)
			pgtest.RequireEqualWith(t, s.url, g.url, withoutNoise)
			if g.progress.Fallbacks > 0 {
				t.Errorf("%d slices could not be written set-wise", g.progress.Fallbacks)
			}
			dense := map[string]bool{}
			for sql, plan := range plans {
				if within := strings.Contains(sql, ">="); within != strings.Contains(plan, "Hash Join") || strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "Merge Join") {
					t.Errorf("%s:\n%s", sql, plan)
				} else if within {
					_, table, _ := strings.Cut(sql, "ONLY ")
					dense[strings.Fields(table)[0]] = true
				}
			}
			want := map[string]bool{}
			if sliceBytes > 1000 {
				want = map[string]bool{`"public"."two"`: true, `"public"."four"`: true, `"public"."eight"`: true, `"public"."low"`: true, `"public"."high"`: true}
			}
			if !maps.Equal(dense, want) {
				t.Errorf("joined %v, expected %v", dense, want)
			}
		})
	}
}

// setPlans adds the plans of the session's statements that change rows.
func setPlans(ctx context.Context, conn *pgx.Conn, plans map[string]string) error {
	rows, err := conn.Query(ctx, "SELECT name, statement, cardinality(parameter_types) FROM pg_prepared_statements WHERE statement ~ '^(UPDATE|DELETE).*public'")
	if err != nil {
		return err
	}
	type prepared struct {
		Name, Statement string
		Parameters      int
	}
	statements, err := pgx.CollectRows(rows, pgx.RowToStructByPos[prepared])
	if err != nil {
		return err
	}
	for _, p := range statements {
		nulls := strings.TrimSuffix(strings.Repeat("NULL, ", p.Parameters), ", ")
		rows, err := conn.Query(ctx, fmt.Sprintf("EXPLAIN EXECUTE %s (%s)", p.Name, nulls), pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return err
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		plans[p.Statement] = strings.Join(plan, "\n")
	}
	return nil
}
