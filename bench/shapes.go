package main

import (
	"context"
	"fmt"
)

// These workloads differ in the shape of their tables and rows. Their loads are procedures that commit in between, and count
// the changes that they make.

const (
	wideRows    = 200_000
	wideUpdates = 100_000
	wideBatch   = 500 // rows in a transaction
	wideTable   = `CREATE TABLE public.wide (id bigint PRIMARY KEY, customer integer NOT NULL, body text NOT NULL)`
	// A row has 2 kB, just too little to be moved out of line.
	wideChanges = `DO $$ BEGIN
		FOR i IN 0..(%[1]d - 1) / %[3]d LOOP
			INSERT INTO public.wide SELECT n, n %% 10007, repeat(md5(n::text), 59) FROM generate_series(i * %[3]d + 1, least((i + 1) * %[3]d, %[1]d)) n;
			COMMIT;
		END LOOP;
		FOR i IN 0..(%[2]d - 1) / %[3]d LOOP
			UPDATE public.wide SET customer = customer + 1 WHERE id BETWEEN i * %[3]d + 1 AND least((i + 1) * %[3]d, %[2]d);
			COMMIT;
		END LOOP; END $$`
)

func wideLoad() workload {
	return workload{name: "wide", tables: wideTable, load: func(ctx context.Context, e experiment, l *lab) (int, error) {
		inserts, updates := e.sized(wideRows), e.sized(wideUpdates)
		return inserts + updates, l.procedure(ctx, fmt.Sprintf(wideChanges, inserts, updates, wideBatch))
	}}
}

const (
	manyTables       = 500
	manyRows         = 100 // in each table before
	manyLarge        = 2000
	manyInLarge      = 200 // row changes in a large transaction
	manySmall        = 20_000
	manyTablesCreate = `DO $$ BEGIN FOR t IN 1..%[1]d LOOP
		EXECUTE format('CREATE TABLE public.%%I (id bigint PRIMARY KEY, value integer NOT NULL, note text NOT NULL)', 'small_' || t);
		END LOOP; END $$`
	manyTablesFill = `DO $$ BEGIN FOR t IN 1..%[1]d LOOP
		EXECUTE format('INSERT INTO public.%%I SELECT i, i, md5(i::text) FROM generate_series(1, %[2]d) i', 'small_' || t);
		END LOOP; END $$`
	// Neighbouring changes are in different tables. Every other change is an update, so ids of new rows are not used twice.
	manyTablesChange = `DO $$ DECLARE n bigint := 0; t integer; BEGIN
		FOR i IN 1..%[1]d LOOP
			FOR j IN 1..CASE WHEN i <= %[2]d THEN %[3]d ELSE 1 END LOOP
				n := n + 1;
				t := n * 7 %% %[4]d + 1;
				IF n %% 2 = 0 THEN
					EXECUTE format('INSERT INTO public.%%I VALUES ($1, $2, $3)', 'small_' || t) USING %[5]d + n, i, md5(n::text);
				ELSE
					EXECUTE format('UPDATE public.%%I SET value = value + 1 WHERE id = $1', 'small_' || t) USING n / 2 %% %[5]d + 1;
				END IF;
			END LOOP;
			COMMIT;
		END LOOP; END $$`
)

func tablesLoad() workload {
	return workload{
		name:     "tables",
		tablesOf: func(e experiment) string { return fmt.Sprintf(manyTablesCreate, e.sized(manyTables)) },
		fill: func(ctx context.Context, e experiment, l *lab) error {
			return l.procedure(ctx, fmt.Sprintf(manyTablesFill, e.sized(manyTables), manyRows))
		},
		load: func(ctx context.Context, e experiment, l *lab) (int, error) {
			large, small := e.sized(manyLarge), e.sized(manySmall)
			return large*manyInLarge + small,
				l.procedure(ctx, fmt.Sprintf(manyTablesChange, large+small, large, manyInLarge, e.sized(manyTables), manyRows))
		},
	}
}

const (
	documents       = 2000
	documentBatch   = 20 // documents in a transaction
	documentsTable  = `CREATE TABLE public.document (id bigint PRIMARY KEY, title text NOT NULL, body text NOT NULL)`
	documentRewrite = 4 // every so manieth gets a new body, the others only a new title
	// A body has 20 to 100 kB of hexadecimal digits that do not repeat.
	documentChanges = `DO $$ BEGIN
		FOR i IN 0..(%[1]d - 1) / %[2]d LOOP
			INSERT INTO public.document
				SELECT n, 'title ' || n, (SELECT string_agg(md5(n || '-' || k), '') FROM generate_series(1, 625 + n * 7919 %% 2500) k)
				FROM generate_series(i * %[2]d + 1, least((i + 1) * %[2]d, %[1]d)) n;
			COMMIT;
		END LOOP;
		FOR i IN 1..%[1]d LOOP
			IF i %% %[3]d = 0 THEN
				UPDATE public.document SET body = (SELECT string_agg(md5(k || '+' || i), '') FROM generate_series(1, 625 + i * 101 %% 2500) k) WHERE id = i;
			ELSE
				UPDATE public.document SET title = title || ', again' WHERE id = i;
			END IF;
			COMMIT;
		END LOOP; END $$`
)

func toastLoad() workload {
	return workload{name: "toast", tables: documentsTable, load: func(ctx context.Context, e experiment, l *lab) (int, error) {
		n := e.sized(documents)
		return 2 * n, l.procedure(ctx, fmt.Sprintf(documentChanges, n, documentBatch, documentRewrite))
	}}
}

const (
	keylessRows    = 5000
	keylessUpdates = 2000
	keylessDeletes = 1000
	keylessBatch   = 10 // statements in a transaction
	keylessTable   = `CREATE TABLE public.keyless (number integer NOT NULL, amount numeric(10,2) NOT NULL, note text);
		ALTER TABLE public.keyless REPLICA IDENTITY FULL`
	// Some rows are there twice, and some have a null.
	keylessFill    = `INSERT INTO public.keyless SELECT i / 2, (i / 2 %% 1000)::numeric / 100, CASE WHEN i / 2 %% 10 > 0 THEN md5((i / 2)::text) END FROM generate_series(1, %d) i`
	keylessChanges = `DO $$ DECLARE n integer; BEGIN
		FOR i IN 1..%[1]d + %[2]d LOOP
			n := CASE WHEN i <= %[1]d THEN i ELSE i - %[1]d END;
			IF i <= %[1]d THEN
				UPDATE public.keyless SET amount = amount + 1 WHERE ctid = (SELECT min(ctid) FROM public.keyless WHERE number = n);
			ELSE
				DELETE FROM public.keyless WHERE ctid = (SELECT min(ctid) FROM public.keyless WHERE number = n);
			END IF;
			IF i %% %[3]d = 0 THEN COMMIT; END IF;
		END LOOP; END $$`
)

func keylessLoad() workload {
	return workload{
		name: "keyless", tables: keylessTable,
		fill: func(ctx context.Context, e experiment, l *lab) error {
			return l.procedure(ctx, fmt.Sprintf(keylessFill, e.sized(keylessRows)))
		},
		load: func(ctx context.Context, e experiment, l *lab) (int, error) {
			updates, deletes := e.sized(keylessUpdates), e.sized(keylessDeletes)
			return updates + deletes, l.procedure(ctx, fmt.Sprintf(keylessChanges, updates, deletes, keylessBatch))
		},
	}
}

// procedure runs SQL that takes no parameters and may commit.
func (l *lab) procedure(ctx context.Context, sql string) error {
	if _, err := l.conn.Exec(ctx, sql); err != nil {
		const most = 300
		return fmt.Errorf("run %.*s: %w", most, sql, err)
	}
	return nil
}
