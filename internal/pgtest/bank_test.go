package pgtest

import (
	"fmt"
	"testing"
	"time"
)

func waitForBank(t *testing.T, b *Bank, more int) {
	t.Helper()
	from := b.Stats().Promised
	Eventually(t, time.Minute, func() error {
		if s := b.Stats(); s.Promised < from+more {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

func TestBankSurvivesCrashes(t *testing.T) {
	s := New(t)
	url := s.Database(t)
	p := NewProxy(t, s.Addr())
	b := NewBank(t, url, BankOptions{Accounts: 20, Patience: 2 * time.Second})
	b.Start(t, p.URL(t, url), 6, 1)
	waitForBank(t, b, 50)
	for range 3 {
		s.Kill9(t)
		s.Start(t)
		waitForBank(t, b, 50)
		if err := b.CheckConsistent(t.Context(), Connect(t, url)); err != nil {
			t.Fatal(err)
		}
	}
	stop := p.StartChaos(t, 1, 100*time.Millisecond)
	waitForBank(t, b, 100)
	stop()
	b.Stop(t)
	stats := b.Stats()
	t.Logf("%+v", stats)
	conn := Connect(t, url)
	// The server may still be at work on what a lost connection asked for.
	Eventually(t, time.Minute, func() error {
		if n := QueryRow[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"); n > 0 {
			return fmt.Errorf("%d sessions are busy", n)
		}
		return nil
	})
	if err := b.Check(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if stats.Absent == 0 || stats.Connects < 12 {
		t.Errorf("%+v", stats)
	}

	// The check must see what is planted.
	for _, plant := range []string{
		"UPDATE bank.accounts SET balance = balance + 1 WHERE id = 3",
		"UPDATE bank.accounts SET balance = balance + CASE id WHEN 3 THEN 1 ELSE -1 END WHERE id IN (3, 4)",
		"DELETE FROM bank.accounts WHERE id = 3 AND false; UPDATE bank.accounts SET moves = moves + 1 WHERE id = 5",
		`WITH lost AS (DELETE FROM bank.history WHERE (client, number) = (SELECT client, number FROM bank.history LIMIT 1) RETURNING *),
			moved AS (SELECT account, sum(amount) AS amount, sum(n) AS n FROM
				(SELECT debtor AS account, amount, 1 AS n FROM lost UNION ALL SELECT creditor, -amount, 1 FROM lost) m GROUP BY account)
			UPDATE bank.accounts a SET balance = balance + m.amount, moves = moves - m.n FROM moved m WHERE m.account = a.id`,
	} {
		Exec(t, conn, "BEGIN")
		Exec(t, conn, plant)
		if err := b.Check(t.Context(), conn); err == nil {
			t.Errorf("not seen: %s", plant)
		}
		Exec(t, conn, "ROLLBACK")
	}
}

func TestBankReportsFailure(t *testing.T) {
	url := Shared(t).Database(t)
	b := NewBank(t, url, BankOptions{})
	Exec(t, Connect(t, url), "ALTER TABLE bank.history DROP COLUMN note")
	b.Start(t, url, 1, 1)
	Eventually(t, time.Minute, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.failure == nil {
			return fmt.Errorf("no failure yet")
		}
		return nil
	})
	b.halt()
}
