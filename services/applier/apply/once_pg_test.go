package apply

import (
	"testing"

	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// TestExactlyOne has the server count rows, as it does when COMMIT travels with them.
func TestExactlyOne(t *testing.T) {
	conn := pgtest.Connect(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, conn, `CREATE TABLE items (id int, name text);
		INSERT INTO items VALUES (1, 'a'), (2, 'b'), (2, 'c'), (7, 'd');
		CREATE TABLE swallows (id int);
		CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER swallow BEFORE INSERT ON swallows FOR EACH ROW EXECUTE FUNCTION swallow()`)
	for sql, fails := range map[string]bool{
		"INSERT INTO items VALUES (3, 'd')":                  false,
		"UPDATE items SET name = 'x' WHERE id = 1":           false,
		"UPDATE items SET name = 'x' WHERE id = 2":           true,
		"UPDATE items SET name = 'x' WHERE id = 9":           true,
		"DELETE FROM items WHERE id = 9":                     true,
		"DELETE FROM items WHERE id = 2":                     true,
		"DELETE FROM items WHERE id = 7":                     false,
		"INSERT INTO swallows VALUES (1)":                    true,
		"INSERT INTO items SELECT 4 WHERE 1 IN (2)":          true,
		"INSERT INTO items SELECT 4 WHERE 1 IN (1, 2)":       false,
		"INSERT INTO items SELECT i FROM (SELECT 5) AS f(i)": false,
	} {
		_, err := conn.Exec(t.Context(), exactlyOne(sql))
		if (err != nil) != fails || fails && postgres.Code(err) != codeDivisionByZero {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for _, sql := range []string{"SELECT FROM items FOR UPDATE", "WITH gone AS (DELETE FROM items) INSERT INTO items SELECT 1"} {
		if got := exactlyOne(sql); got != "" {
			t.Errorf("%s became %s", sql, got)
		}
	}
}
