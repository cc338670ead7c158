package e2e

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// replicaRole begins with a role that may do nothing on the replica and gives it what each refusal asks for, word by word.
func (s *servers) replicaRole(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), shop)
	primary := startPrimary(t, sourceURL)
	super := pgtest.Connect(t, targetURL)
	newRole(t, super, "copier")
	newRole(t, super, "somebody_else")
	// One table is there already and belongs to somebody else.
	pgtest.Exec(t, super, `REVOKE ALL ON SCHEMA public FROM PUBLIC;
		CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY, item int NOT NULL, note text);
		ALTER TABLE sales.orders OWNER TO somebody_else; GRANT USAGE ON SCHEMA sales TO copier`)
	message := closeMessages(t, super)
	role := asRole(t, targetURL, "copier")
	database := postgres.Ident(databaseOf(t, targetURL))
	before := objects(t, super)

	text := refusal(t, "replica", "--postgres", role)
	t.Log(text)
	grant := "GRANT CREATE ON DATABASE " + database + ` TO "copier"`
	requireWords(t, text, grant)
	requireUnchanged(t, before, objects(t, super))
	pgtest.Exec(t, super, grant)

	replica := startReplica(t, role)
	for _, grant := range []string{
		`GRANT SET ON PARAMETER session_replication_role TO "copier"`,
		`GRANT USAGE, CREATE ON SCHEMA "public" TO "copier"`,
		"GRANT EXECUTE ON FUNCTION " + message + " TO copier",
		`GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE "sales"."orders" TO "copier"`,
	} {
		_, err := replica.create("all", primary.grpc)
		requireRefused(t, err, codes.FailedPrecondition, "MISSING_PRIVILEGE", grant)
		requireNoReplication(t, replica)
		requireUnchanged(t, before, objects(t, super))
		pgtest.Exec(t, super, grant)
	}
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), "UPDATE items SET price = 1 WHERE id < 10; TRUNCATE sales.orders; DELETE FROM items WHERE id = 50")
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
	if leaked := replica.out.String(); containsSecret(leaked) {
		t.Error("the password is in the replica's output")
	}
}

// rowSecurity refuses a table whose rows the role does not see, with both ways out.
func (s *servers) rowSecurity(t *testing.T) {
	sourceURL := s.source.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), shop)
	primary := startPrimary(t, sourceURL)
	for _, mend := range []string{`ALTER ROLE "copier" BYPASSRLS`, `GRANT "somebody_else" TO "copier"`} {
		t.Run(mend, func(t *testing.T) {
			targetURL := s.target.Database(t)
			super := pgtest.Connect(t, targetURL)
			newRole(t, super, "copier")
			newRole(t, super, "somebody_else")
			pgtest.Exec(t, super, fmt.Sprintf(`CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2)); ALTER TABLE items OWNER TO somebody_else;
				ALTER TABLE items ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON items USING (id < 5);
				GRANT ALL ON items TO copier; GRANT ALL ON SCHEMA public TO copier;
				GRANT CREATE ON DATABASE %s TO copier; GRANT SET ON PARAMETER session_replication_role TO copier`, postgres.Ident(databaseOf(t, targetURL))))
			replica := startReplica(t, asRole(t, targetURL, "copier"))
			before := objects(t, super)
			_, err := replica.create("all", primary.grpc)
			requireRefused(t, err, codes.FailedPrecondition, "MISSING_PRIVILEGE", "public.items", "row level security", mend)
			requireNoReplication(t, replica)
			requireUnchanged(t, before, objects(t, super))
			pgtest.Exec(t, super, mend)
			replica.mustCreate("all", primary.grpc)
			replica.waitApplied("all", time.Minute)
			pgtest.RequireEqual(t, sourceURL, targetURL)
		})
	}
}

// withoutSelect has a table that the primary's role may publish and not read: a replication of it is refused with the GRANT, and one that
// copies anew stops with it, and goes on once it is given.
func (s *servers) withoutSelect(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	super := pgtest.Connect(t, sourceURL)
	newRole(t, super, "reader", "REPLICATION")
	pgtest.Exec(t, super, shop+`ALTER TABLE items OWNER TO reader; ALTER TABLE sales.orders OWNER TO reader; GRANT USAGE ON SCHEMA sales TO reader;
		REVOKE SELECT ON items FROM reader; GRANT CREATE ON DATABASE `+postgres.Ident(databaseOf(t, sourceURL))+` TO reader`)
	primary, replica := startPrimary(t, asRole(t, sourceURL, "reader")), startReplica(t, targetURL)
	grant := `GRANT SELECT ON TABLE "public"."items" TO "reader"`
	_, err := replica.create("all", primary.grpc)
	requireRefused(t, err, codes.FailedPrecondition, "PERMISSION_DENIED", "public.items", grant)
	requireNoReplication(t, replica)
	pgtest.Exec(t, super, grant)
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	pgtest.Exec(t, super, "REVOKE SELECT ON items FROM reader")
	if _, err := replica.applier().ResyncReplication(t.Context(), &applierv1.ResyncReplicationRequest{Name: "all"}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	failed := replica.waitFailed("all", time.Minute)
	t.Log(failed.GetReasonCode(), failed.GetReason())
	if failed.GetReasonCode() != "PERMISSION_DENIED" {
		t.Errorf("the reason is %s", failed.GetReasonCode())
	}
	requireWords(t, failed.GetReason(), grant)
	pgtest.Exec(t, super, grant)
	replica.restart("all")
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}

// noSlotForCopy leaves no slot for the moment that a first copy begins: it waits, says why, and goes on by itself.
func (s *servers) noSlotForCopy(t *testing.T) {
	source := newSource(t, pgtest.WithFsync(false), pgtest.WithSetting("max_replication_slots", "2"))
	sourceURL, targetURL := source.Database(t), s.target.Database(t)
	conn := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, conn, shop)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL, "--retry-max", "1s")
	pgtest.Exec(t, conn, "SELECT pg_create_physical_replication_slot('somebody')")
	replica.mustCreate("all", primary.grpc)
	waiting := replica.waitState("all", time.Minute, applierv1.State_STATE_RETRYING)
	t.Log(waiting.GetReasonCode(), waiting.GetReason())
	if waiting.GetReasonCode() != "TOO_MANY_SLOTS" {
		t.Errorf("the reason is %s", waiting.GetReasonCode())
	}
	requireWords(t, waiting.GetReason(), "max_replication_slots", "pg_replication_slots")
	pgtest.Exec(t, conn, "SELECT pg_drop_replication_slot('somebody')")
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}
