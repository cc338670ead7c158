package e2e

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// TestCheck compares sources and replicas before the first run and later.
func TestCheck(t *testing.T) {
	s := &servers{newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))}
	for name, run := range map[string]func(*servers, *testing.T){
		"differences": (*servers).checkDifferences, "since": (*servers).checkSince, "servers": (*servers).checkServers, "set": (*servers).checkSet,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(s, t)
		})
	}
}

// check compares, of a replication that there is, or of a spec.
func (n *node) check(name string, spec *applierv1.ReplicationSpec) *applierv1.Handshake {
	n.t.Helper()
	answer, err := n.applier().CheckReplication(n.t.Context(), &applierv1.CheckReplicationRequest{Name: name, Spec: spec})
	if err != nil {
		n.t.Fatal(rpc.Message(err))
	}
	return answer.GetHandshake()
}

// requireFindings wants just these findings that are not ok, in any order: "note tables public.a column b: words", with the end cut.
func requireFindings(t testing.TB, h *applierv1.Handshake, want ...string) {
	t.Helper()
	var got []string
	problems := 0
	for _, f := range h.GetFindings() {
		if f.GetVerdict() == applierv1.Verdict_VERDICT_OK {
			continue
		}
		line := strings.ToLower(strings.TrimPrefix(f.GetVerdict().String(), "VERDICT_")) + " " + f.GetTopic() + " "
		if f.GetSubject() != "" {
			line += f.GetSubject()
			if f.GetColumn() != "" {
				line += " column " + f.GetColumn()
			}
			line += ": "
		}
		line += f.GetText()
		if f.GetVerdict() == applierv1.Verdict_VERDICT_PROBLEM {
			problems++
			if f.GetCode() == "" {
				t.Errorf("a problem without a code: %s", line)
			}
		}
		got = append(got, line+" -> "+f.GetMend())
	}
	if h.GetOk() != (problems == 0) {
		t.Errorf("ok: %v, with %d problems", h.GetOk(), problems)
	}
	for _, w := range want {
		found := false
		for i, line := range got {
			if words := strings.Split(w, " … "); strings.HasPrefix(line, words[0]) && strings.Contains(line, words[len(words)-1]) {
				got = append(got[:i:i], got[i+1:]...)
				found = true
				break
			}
		}
		if !found {
			t.Errorf("not found: %s", w)
		}
	}
	for _, line := range got {
		t.Errorf("found too: %s", line)
	}
}

// checkDifferences names everything at once that a replication is refused for, and once all is mended there is nothing left.
func (s *servers) checkDifferences(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	source, target := pgtest.Connect(t, sourceURL), pgtest.Connect(t, targetURL)
	newRole(t, source, "checked_reader", "REPLICATION")
	newRole(t, target, "checked_writer")
	pgtest.Exec(t, source, `CREATE TYPE mood AS ENUM ('sad', 'ok');
		CREATE TABLE a (id bigint PRIMARY KEY, note text, mood mood); CREATE TABLE b (id bigint PRIMARY KEY, n int); CREATE TABLE fresh (id bigint PRIMARY KEY, n int);
		CREATE TABLE hidden (id bigint PRIMARY KEY); CREATE TABLE filled (id bigint PRIMARY KEY); CREATE TABLE keyless (n int);
		INSERT INTO a VALUES (1, NULL, 'ok'); INSERT INTO b VALUES (1, 1); INSERT INTO hidden VALUES (1); INSERT INTO filled VALUES (1);
		DO $$ DECLARE t text; BEGIN FOREACH t IN ARRAY ARRAY['a', 'b', 'fresh', 'hidden', 'filled', 'keyless'] LOOP EXECUTE 'ALTER TABLE '||t||' OWNER TO checked_reader'; END LOOP; END $$;
		REVOKE SELECT ON hidden FROM checked_reader; GRANT CREATE ON DATABASE `+postgres.Ident(databaseOf(t, sourceURL))+` TO checked_reader`)
	pgtest.Exec(t, target, `CREATE TYPE mood AS ENUM ('sad');
		CREATE TABLE a (id bigint PRIMARY KEY, note varchar(10) NOT NULL, mood mood); CREATE TABLE b (id bigint PRIMARY KEY);
		CREATE TABLE filled (id int8 PRIMARY KEY, more text); INSERT INTO filled VALUES (7);
		GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON a, filled TO checked_writer; GRANT SELECT ON b TO checked_writer;
		GRANT ALL ON SCHEMA public TO checked_writer; GRANT CREATE ON DATABASE `+postgres.Ident(databaseOf(t, targetURL))+` TO checked_writer`)
	primary := startPrimary(t, asRole(t, sourceURL, "checked_reader"), "--slot", "checked_differences", "--exclude-table", "public.keyless")
	replica := startReplica(t, asRole(t, targetURL, "checked_writer"))
	before := [2][]string{objects(t, source), objects(t, target)}
	spec := &applierv1.ReplicationSpec{Source: primary.grpc}
	h := replica.check("", spec)
	requireFindings(t, h,
		`problem tables public.a column note: the type differs … ALTER TABLE "public"."a" ALTER COLUMN "note" TYPE text`,
		`problem tables public.a column note: the source can hold NULLs … ALTER TABLE "public"."a" ALTER COLUMN "note" DROP NOT NULL`,
		`problem tables public.b column n: the column is missing … ALTER TABLE "public"."b" ADD COLUMN "n" integer`,
		`problem tables public.mood: the target's enum lacks a label (source: ok`,
		`problem tables tables of the replica already hold rows: public.filled`,
		`problem privileges table public.b has to be read and written … GRANT INSERT, UPDATE, DELETE, TRUNCATE ON TABLE "public"."b" TO "checked_writer"`,
		`problem privileges the source may not read table public.hidden … GRANT SELECT ON TABLE "public"."hidden" TO "checked_reader"`,
		`note tables table public.keyless is not replicated`)
	if h.GetSource().GetServerId() == "" || h.GetReplicaServerId() == "" || h.GetSourcePosition().GetLsn() == 0 || len(h.GetTables()) != 5 {
		t.Errorf("handshake %v", h)
	}
	if c := h.GetClock(); c == nil || c.GetOffsetSeconds() < -c.GetBoundSeconds()-0.001 || c.GetOffsetSeconds() > c.GetBoundSeconds()+0.001 {
		t.Errorf("one clock is apart from itself: %v", c)
	}
	_, err := replica.create("all", primary.grpc)
	requireRefused(t, err, codes.FailedPrecondition, "SCHEMA_MISMATCH", "public.a column note", "public.b column n")
	requireNoReplication(t, replica)
	out, errOut, code := run(t, "replication", "check", "--source", primary.grpc, "--addr", replica.grpc)
	if code != 1 || !strings.Contains(out, `-> ALTER TABLE "public"."b" ADD COLUMN "n" integer`) || !strings.Contains(errOut, "7 problems") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
	requireUnchanged(t, before[0], objects(t, source))
	requireUnchanged(t, before[1], objects(t, target))

	// Word by word what it says.
	for _, f := range h.GetFindings() {
		switch {
		case strings.HasPrefix(f.GetMend(), "ALTER TABLE"), strings.Contains(f.GetMend(), "checked_writer"):
			pgtest.Exec(t, target, strings.TrimSuffix(f.GetMend(), " as a superuser"))
		case strings.Contains(f.GetMend(), "checked_reader"):
			pgtest.Exec(t, source, f.GetMend())
		}
	}
	pgtest.Exec(t, target, "ALTER TYPE mood ADD VALUE 'ok'")
	pgtest.Exec(t, target, "DELETE FROM filled")
	requireFindings(t, replica.check("", spec), "note tables table public.keyless is not replicated")
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	if n := pgtest.QueryRow[int](t, target, "SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b) + (SELECT count(*) FROM hidden) + (SELECT count(*) FROM filled)"); n != 4 {
		t.Errorf("%d rows of 4 were copied", n)
	}
}

// checkSince names what has changed on either side since the tables were copied, and not what has not.
func (s *servers) checkSince(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	source, target := pgtest.Connect(t, sourceURL), pgtest.Connect(t, targetURL)
	pgtest.LoadAllKinds(t, source)
	pgtest.Exec(t, source, "CREATE TABLE a (id bigint PRIMARY KEY, note varchar(10)); CREATE TABLE b (id bigint PRIMARY KEY, n int)")
	pgtest.Exec(t, target, "CREATE TABLE b (n int8, id bigint PRIMARY KEY)")
	primary, replica := startPrimary(t, sourceURL, "--slot", "checked_since", "--exclude-table", "kinds.keyless_generated"), startReplica(t, targetURL)
	answer, err := replica.applier().CreateReplication(t.Context(), &applierv1.CreateReplicationRequest{Name: "all", Spec: &applierv1.ReplicationSpec{Source: primary.grpc}, ValidateOnly: true})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	if h := answer.GetHandshake(); !h.GetOk() || len(h.GetTables()) < 10 {
		t.Errorf("with validate_only: %v", h)
	}
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	changes := func() (list []string) {
		h := replica.check("all", nil)
		if !h.GetOk() {
			t.Errorf("%v", h.GetFindings())
		}
		for _, f := range h.GetFindings() {
			if _, after, found := strings.Cut(f.GetText(), " since "); found && strings.HasPrefix(f.GetText(), "changed on the ") {
				_, what, _ := strings.Cut(after, ": ")
				list = append(list, f.GetSubject()+" "+strings.Fields(f.GetText())[3]+" "+what)
			}
		}
		return list
	}
	if list := changes(); list != nil {
		t.Errorf("nothing has changed, and yet %q", list)
	}
	pgtest.Exec(t, target, "ALTER TABLE a ALTER note TYPE text, ADD more int; CREATE UNIQUE INDEX ON b (n)")
	pgtest.Exec(t, source, "CREATE UNIQUE INDEX ON b (n); ALTER TABLE b ALTER n SET NOT NULL")
	want := []string{
		"public.a replica column more integer is new; column note was character varying(10) and is text",
		"public.b source column n was integer and is integer NOT NULL; unique (n) is new", "public.b replica unique (n) is new",
	}
	if got := changes(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("changed %q", got)
	}
	// Copied anew, they are compared with what they are then.
	if _, err := replica.applier().ResyncReplication(t.Context(), &applierv1.ResyncReplicationRequest{Name: "all"}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	replica.waitApplied("all", time.Minute)
	if list := changes(); list != nil {
		t.Errorf("changed since the copy: %q", list)
	}
	pgtest.Exec(t, target, "DROP TABLE b; CREATE TABLE b (id bigint PRIMARY KEY, other int)")
	requireHas := replica.check("all", nil)
	found := false
	for _, f := range requireHas.GetFindings() {
		found = found || f.GetCode() == "SCHEMA_MISMATCH" && f.GetSubject() == "public.b" && f.GetColumn() == "n"
	}
	if requireHas.GetOk() || !found {
		t.Errorf("the lost column is not named: %v", requireHas.GetFindings())
	}
}

// checkServers tells who the servers are and what they lack: another server in the source's place, services of two servers, nobody.
func (s *servers) checkServers(t *testing.T) {
	sourceURL, otherURL, targetURL := s.source.Database(t), s.source.Database(t), s.target.Database(t)
	for _, url := range []string{sourceURL, otherURL} {
		pgtest.Exec(t, pgtest.Connect(t, url), "CREATE TABLE a (id bigint PRIMARY KEY)")
	}
	primary, other := startPrimary(t, sourceURL, "--slot", "checked_servers_1"), startPrimary(t, otherURL, "--slot", "checked_servers_2")
	replica := startReplica(t, targetURL)
	spec := func(source, inventory string) *applierv1.ReplicationSpec {
		return &applierv1.ReplicationSpec{Source: source, Inventory: inventory}
	}
	requireFindings(t, replica.check("", spec(primary.grpc, "")))
	requireFindings(t, replica.check("", spec("127.0.0.1:1", "")), "problem source no Syncline server answers at 127.0.0.1:1")
	requireFindings(t, replica.check("", spec(replica.grpc, "")), "problem source the Syncline server at … is no primary")
	// The rows of one primary and the changes of another would make no replica of either.
	mixed := replica.check("", spec(primary.grpc, other.grpc))
	requireFindings(t, mixed, "problem versions the inventory of the source belongs to server", "problem tables the inventory of the source belongs to server … --inventory")
	_, err := replica.create("mixed", primary.grpc, func(s *applierv1.ReplicationSpec) { s.Inventory = other.grpc })
	requireRefused(t, err, codes.FailedPrecondition, "SOURCE_MIXED", "inventory", "two databases")
	requireNoReplication(t, replica)

	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	requireFindings(t, replica.check("all", nil))
	requireFindings(t, replica.check("", spec(primary.grpc, "")), "problem source replication all carries the same tables", "problem tables tables of the replica are written by another replication")
	_, err = replica.applier().CheckReplication(t.Context(), &applierv1.CheckReplicationRequest{Name: "all", Spec: spec(primary.grpc, "")})
	requireRefused(t, err, codes.InvalidArgument, "INVALID_FIELD", "spec")
	_, err = replica.applier().CheckReplication(t.Context(), &applierv1.CheckReplicationRequest{})
	requireRefused(t, err, codes.InvalidArgument, "INVALID_FIELD", "spec")
	_, err = replica.applier().CheckReplication(t.Context(), &applierv1.CheckReplicationRequest{Name: "nobody"})
	requireRefused(t, err, codes.NotFound, "REPLICATION_NOT_FOUND", "nobody")
}

// checkSet tells of the set, its parameters and its version.
func (s *servers) checkSet(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), "CREATE TABLE a (org text, id bigint, PRIMARY KEY (org, id)); INSERT INTO a VALUES ('acme', 1), ('globex', 2)")
	primary, replica := startPrimary(t, sourceURL, "--slot", "checked_set"), startReplica(t, targetURL)
	set := &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "public.a", Rows: orgSelector}}}
	made, err := primary.logger().CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: "by-org", Spec: set})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	spec := func(set string, parameters map[string]string) *applierv1.ReplicationSpec {
		return &applierv1.ReplicationSpec{Source: primary.grpc, Set: set, Parameters: parameters}
	}
	requireFindings(t, replica.check("", spec("nobodys", nil)), "problem set … nobodys")
	requireFindings(t, replica.check("", spec("by-org", nil)), "problem set … org")
	acme := map[string]string{"org": "acme"}
	h := replica.check("", spec("by-org", acme))
	requireFindings(t, h)
	if h.GetSetVersion() != made.GetSet().GetVersion() {
		t.Errorf("version %d, made as %d", h.GetSetVersion(), made.GetSet().GetVersion())
	}
	replica.mustCreate("acme", primary.grpc, func(s *applierv1.ReplicationSpec) { s.Set, s.Parameters = "by-org", acme })
	replica.waitApplied("acme", time.Minute)
	requireFindings(t, replica.check("acme", nil))
}
