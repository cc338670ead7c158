// Command sql runs statements on a PostgreSQL database and prints the first column of the rows, as `psql -qAtX` does: for the examples
// where there is no psql.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sql:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: %s URL STATEMENTS", os.Args[0])
	}
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Args[1])
	if err != nil {
		return fmt.Errorf("connect to %s: not possible", postgres.Redact(os.Args[1]))
	}
	defer func() { _ = conn.Close(ctx) }() // the process ends with it
	results, err := conn.PgConn().Exec(ctx, os.Args[2]).ReadAll()
	if err != nil {
		return fmt.Errorf("%s: %w", os.Args[2], err)
	}
	for _, result := range results {
		for _, row := range result.Rows {
			fmt.Println(string(row[0]))
		}
	}
	return nil
}
