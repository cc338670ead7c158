package demo

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	removeProgram()
	os.Exit(code)
}

// TestSameCompanyTwice fills two databases and finds the same rows in both.
func TestSameCompanyTwice(t *testing.T) {
	server := pgtest.Shared(t)
	b := sized(0.02)
	first, second := server.Database(t), server.Database(t)
	for _, url := range []string{first, second} {
		got, err := b.fill(t.Context(), url, "", func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		if want := 10; got.tables != want {
			t.Errorf("%d tables, want %d", got.tables, want)
		}
		if got.rows < 10_000 || got.bytes < 1<<20 {
			t.Errorf("filled %+v: that is too little", got)
		}
	}
	pgtest.RequireEqual(t, first, second)
}

// TestEveryDeed has each kind of transaction done, and each of them change what it says.
func TestEveryDeed(t *testing.T) {
	server := pgtest.Shared(t)
	url := server.Database(t)
	b := sized(0.02)
	pgbench, _ := server.Cluster.Binaries().Pgbench()
	if _, err := b.fill(t.Context(), url, pgbench, func(string) {}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := startLoad(ctx, b, url, pgbench)
	pgtest.Eventually(t, time.Minute, func() error {
		if l.committed.Load() < 10*int64(len(deeds)) {
			return context.DeadlineExceeded
		}
		return nil
	})
	if err := l.finish(ctx); err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Connect(t, url)
	for what, query := range map[string]string{
		"orders placed":      `SELECT count(*) FROM shop.orders WHERE note = 'placed just now'`,
		"orders moved":       `SELECT count(*) FROM shop.orders WHERE placed_at::date - ordered_on > 20`,
		"orders deleted":     `SELECT max(id) - count(*) FROM shop.orders WHERE note IS DISTINCT FROM 'placed just now'`,
		"documents renamed":  `SELECT count(*) FROM office.documents WHERE title LIKE 'Renamed%'`,
		"events logged":      `SELECT count(*) FROM office.events WHERE network IS NULL`,
		"stock moves":        `SELECT count(*) FROM office.stock_moves WHERE reason = 'sold'`,
		"customers edited":   `SELECT count(*) FROM shop.customers WHERE tags @> '{edited}'`,
		"invoices reminded":  `SELECT count(*) FROM shop.invoices WHERE body ? 'reminded'`,
		"pgbench's accounts": `SELECT count(*) FROM pgbench_accounts`,
	} {
		var n int64
		if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n == 0 {
			t.Errorf("%s: none", what)
		}
	}
}

func TestSteps(t *testing.T) {
	steps := sized(1).steps()
	if len(steps) != 10 {
		t.Errorf("%d steps", len(steps))
	}
	if found := parameter.FindString(steps[1].sql); found != "" {
		t.Errorf("parameter %q has no value", found)
	}
}
