package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"
)

// errChangedMind rolls a transaction back on purpose: what it did must never be seen on a replica.
var errChangedMind = errors.New("changed my mind")

// deed is one kind of transaction of the company.
type deed struct {
	name string
	do   func(ctx context.Context, tx pgx.Tx, b business, r *rand.Rand) error
}

// deeds is every kind, as often as it shall be done.
var deeds = []deed{
	{"place an order", placeOrder}, {"place an order", placeOrder}, {"place an order", placeOrder}, {"place an order", placeOrder},
	{"pay an order", payOrder}, {"pay an order", payOrder}, {"pay an order", payOrder},
	{"edit a customer", editCustomer}, {"edit a customer", editCustomer},
	{"log events", logEvents}, {"log events", logEvents},
	{"rename a document", renameDocument}, {"rewrite a document", rewriteDocument}, {"change a document's key", rekeyDocument},
	{"move an order to another month", moveOrder},
	{"delete an order", deleteOrder},
	{"correct a stock move", correctStockMove},
	{"change one's mind", changeMind},
	{"half change one's mind", halfChangeMind},
	{"raise prices", raisePrices},
}

// all runs statements that return nothing.
func all(ctx context.Context, tx pgx.Tx, statements ...statement) error {
	for _, s := range statements {
		if _, err := tx.Exec(ctx, s.sql, s.args...); err != nil {
			return err
		}
	}
	return nil
}

type statement struct {
	sql  string
	args []any
}

func do(sql string, args ...any) statement { return statement{sql, args} }

func (b business) anyProduct(r *rand.Rand) string { return fmt.Sprintf("P-%06d", 1+r.IntN(b.products)) }
func (b business) anyOrder(r *rand.Rand) int      { return 1 + r.IntN(b.orders) }

const anyDocument = `(SELECT id FROM office.documents WHERE id >= $1 ORDER BY id LIMIT 1)`

func randomUUID(r *rand.Rand) string {
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", r.Uint32(), r.Uint32N(1<<16), r.Uint32N(1<<12), r.Uint32N(1<<12), r.Uint64N(1<<48))
}

func placeOrder(ctx context.Context, tx pgx.Tx, b business, r *rand.Rand) error {
	var id int64
	err := tx.QueryRow(ctx, `INSERT INTO shop.orders (ordered_on, customer_id, status, total, placed_at, placed_from, delivery, note)
		VALUES (current_date, $1, 'new', ROW($2::float8::numeric(12,2), 'EUR')::shop.amount, now(), '2001:db8::7', tstzrange(now(), NULL), 'placed just now')
		RETURNING id`, 1+r.IntN(b.customers), r.Float64()*500).Scan(&id)
	if err != nil {
		return err
	}
	for line := range 1 + r.IntN(4) {
		if err := all(ctx, tx, do(`INSERT INTO shop.order_items (order_id, ordered_on, line, product_code, quantity, unit_price)
			VALUES ($1, current_date, $2, $3, $4, 9.95)`, id, line+1, b.anyProduct(r), 1+r.IntN(5))); err != nil {
			return err
		}
	}
	product := b.anyProduct(r)
	return all(ctx, tx,
		do(`UPDATE shop.products SET stock = stock - 1 WHERE code = $1`, product),
		do(`INSERT INTO office.stock_moves VALUES ($1, now(), -1, 'sold')`, product))
}

func payOrder(ctx context.Context, tx pgx.Tx, b business, r *rand.Rand) error {
	id := b.anyOrder(r)
	return all(ctx, tx,
		do(`UPDATE shop.orders SET status = 'paid', delivery = tstzrange(now(), now() + interval '2 days') WHERE id = $1`, id),
		do(`UPDATE shop.invoices SET paid = NOT paid, body = body || '{"reminded": true}' WHERE order_id = $1`, id))
}

func editCustomer(ctx context.Context, tx pgx.Tx, b business, r *rand.Rand) error {
	id := 1 + r.IntN(b.customers)
	return all(ctx, tx,
		do(`UPDATE shop.customers SET preferences = jsonb_set(preferences, '{seen}', to_jsonb($2::int)), name = name || '.',
			tags = array_append(tags[1:3], 'edited'), vip = NOT vip, credit = ROW($2::int, 'EUR')::shop.amount, updated_at = now()
			WHERE id = $1`, id, r.IntN(1000)),
		do(`INSERT INTO shop.addresses (customer_id, kind, street, city, postcode, country, valid)
			VALUES ($1, 'summer', 'Strandweg 1', 'Kiel', '24103', 'DE', daterange(current_date, NULL))`, id))
}

func logEvents(ctx context.Context, tx pgx.Tx, _ business, r *rand.Rand) error {
	return all(ctx, tx, do(`INSERT INTO office.events (at, severity, host, session, codes, busy, took, message)
		SELECT now(), 'info', '192.168.7.1', gen_random_uuid(), ARRAY[$1, n], int4range(n, n + 2), interval '0.3 s', 'request ' || n
		FROM generate_series(1, 20) n`, r.IntN(100)))
}

// renameDocument leaves the large values alone: they do not even stand in the primary's WAL.
func renameDocument(ctx context.Context, tx pgx.Tx, _ business, r *rand.Rand) error {
	return all(ctx, tx, do(`UPDATE office.documents SET title = 'Renamed minutes ' || $2::int, version = version + 1 WHERE id = `+anyDocument,
		randomUUID(r), r.IntN(1000)))
}

func rewriteDocument(ctx context.Context, tx pgx.Tx, _ business, r *rand.Rand) error {
	return all(ctx, tx, do(`UPDATE office.documents SET body = reverse(body), attachment = NULL, version = version + 1, written_at = now() WHERE id = `+anyDocument,
		randomUUID(r)))
}

func rekeyDocument(ctx context.Context, tx pgx.Tx, _ business, r *rand.Rand) error {
	return all(ctx, tx, do(`UPDATE office.documents SET id = gen_random_uuid() WHERE id = `+anyDocument, randomUUID(r)))
}

func moveOrder(ctx context.Context, tx pgx.Tx, b business, r *rand.Rand) error {
	return all(ctx, tx, do(`UPDATE shop.orders SET ordered_on = ordered_on - 31, status = 'returned' WHERE id = $1`, b.anyOrder(r)))
}

func deleteOrder(ctx context.Context, tx pgx.Tx, b business, r *rand.Rand) error {
	return all(ctx, tx, do(`DELETE FROM shop.orders WHERE id = $1`, b.anyOrder(r)))
}

// correctStockMove changes a table without a key, by the place of a row.
func correctStockMove(ctx context.Context, tx pgx.Tx, _ business, r *rand.Rand) error {
	return all(ctx, tx,
		do(`UPDATE office.stock_moves SET amount = amount + 1 WHERE ctid = $1::text::tid`, fmt.Sprintf("(%d,%d)", r.IntN(100), 1+r.IntN(60))),
		do(`DELETE FROM office.stock_moves WHERE ctid = $1::text::tid`, fmt.Sprintf("(%d,%d)", r.IntN(100), 1+r.IntN(60))))
}

func changeMind(ctx context.Context, tx pgx.Tx, b business, r *rand.Rand) error {
	if err := placeOrder(ctx, tx, b, r); err != nil {
		return err
	}
	return errChangedMind
}

// halfChangeMind rolls back to a savepoint and commits the rest.
func halfChangeMind(ctx context.Context, tx pgx.Tx, b business, r *rand.Rand) error {
	return all(ctx, tx,
		do(`UPDATE shop.products SET stock = stock + 10 WHERE code = $1`, b.anyProduct(r)),
		do(`SAVEPOINT second_thoughts`),
		do(`DELETE FROM office.events WHERE id BETWEEN $1 AND $1 + 50`, 1+r.IntN(b.events)),
		do(`ROLLBACK TO SAVEPOINT second_thoughts`),
		do(`DELETE FROM office.events WHERE id = $1`, 1+r.IntN(b.events)))
}

// raisePrices touches many rows in one transaction.
func raisePrices(ctx context.Context, tx pgx.Tx, b business, r *rand.Rand) error {
	first := b.anyProduct(r)
	return all(ctx, tx, do(`UPDATE shop.products SET price = price + 0.01 WHERE code IN
		(SELECT code FROM shop.products WHERE code >= $1 ORDER BY code LIMIT 200 FOR UPDATE)`, first))
}
