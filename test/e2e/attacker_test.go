package e2e

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// attackedTables hold marks that no answer to acme may have: globex's rows and keys, and what is beside the set.
const attackedTables = `
CREATE SCHEMA org;
CREATE TYPE org.hiddenmood AS ENUM ('hiddenlabel');
CREATE TABLE org.hiddenpayroll (hiddenid serial PRIMARY KEY, org text, mood org.hiddenmood);
CREATE FUNCTION org.hiddenfunction() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE VIEW org.hiddenview AS SELECT 1;
CREATE TABLE org.orders (id bigint, org text, note text, payroll int REFERENCES org.hiddenpayroll, PRIMARY KEY (org, id));
INSERT INTO org.hiddenpayroll (org) SELECT 'acme' FROM generate_series(1, 5) n;
INSERT INTO org.orders SELECT n, 'acme', 'ours' FROM generate_series(1, 50) n;
INSERT INTO org.orders SELECT 7770000 + n, 'globex', 'markofglobex' FROM generate_series(1, 50) n;`

// marks are what acme may never see.
var marks = []string{"markofglobex", "777000", "hidden"}

// attack is acme's connection, and what it has found out of globex.
type attack struct {
	t        *testing.T
	conn     *grpc.ClientConn
	log      string // id of the change log
	head     uint64 // where streams end
	snapshot string // globex's
	page     string // of globex's list of updates
}

// syncline are all methods that a server has, also those that were added since.
func syncline() (methods []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				if strings.HasPrefix(string(file.Package()), "syncline.") {
					methods = append(methods, file.Services().Get(i).Methods().Get(j))
				}
			}
		}
		return true
	})
	return methods
}

// variant is what a request asks for.
type variant struct {
	what, set  string
	parameters map[string]string
	selection  bool
	table      string
	key        string
}

func variants() []variant {
	acme, globex := map[string]string{"org": "acme"}, map[string]string{"org": "globex"}
	list := []variant{
		{what: "nothing named"}, {what: "an inline selection", selection: true}, {what: "the set without parameters", set: "by-org"},
		{what: "another's parameter", set: "by-org", parameters: globex}, {what: "another set", set: "everything"}, {what: "no such set", set: "nowhere"},
		{what: "the set and a selection", set: "by-org", parameters: acme, selection: true},
		{what: "another parameter too", set: "by-org", parameters: map[string]string{"org": "acme", "ORG": "globex"}},
		{what: "its own", set: "by-org", parameters: acme},
		{what: "its own, by another's key", set: "by-org", parameters: acme, key: "7770001"},
		{what: "its own, by a key that is none", set: "by-org", parameters: acme, key: "x' OR true --"},
	}
	for _, table := range []string{"hiddenpayroll", "nowhere", "hiddenview", `orders" WHERE true --`} {
		list = append(list, variant{what: "its own, table " + table, set: "by-org", parameters: acme, table: table})
	}
	for _, value := range []string{"acme' OR '1'='1", `acme\' OR true --`, "acme%", "", "ACME", "acme\u0000globex", `{"$ne": "acme"}`} {
		list = append(list, variant{what: "the value " + value, set: "by-org", parameters: map[string]string{"org": value}})
	}
	return list
}

// request fills in whatever a message has a field for.
func (a *attack) request(v variant, of protoreflect.MessageDescriptor) proto.Message {
	typ, err := protoregistry.GlobalTypes.FindMessageByName(of.FullName())
	if err != nil {
		a.t.Fatal(err)
	}
	m := typ.New()
	table, key := v.table, v.key
	if table == "" {
		table = "orders"
	}
	if key == "" {
		key = "1"
	}
	set := func(name string, value func(protoreflect.FieldDescriptor)) {
		if fd := of.Fields().ByName(protoreflect.Name(name)); fd != nil {
			value(fd)
		}
	}
	for name, text := range map[string]string{"set": v.set, "schema": "org", "table": table, "snapshot_id": a.snapshot, "follower": "globex/main", "page_token": a.page, "name": "by-org"} {
		set(name, func(fd protoreflect.FieldDescriptor) {
			if fd.Kind() == protoreflect.StringKind && text != "" && !fd.IsList() {
				m.Set(fd, protoreflect.ValueOfString(text))
			}
		})
	}
	set("parameters", func(fd protoreflect.FieldDescriptor) {
		for name, value := range v.parameters {
			m.Mutable(fd).Map().Set(protoreflect.ValueOfString(name).MapKey(), protoreflect.ValueOfString(value))
		}
	})
	if v.selection {
		set("selection", func(fd protoreflect.FieldDescriptor) {
			m.Set(fd, protoreflect.ValueOfMessage((&loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "org.*"}}}).ProtoReflect()))
		})
	}
	switch r := m.Interface().(type) {
	case *loggerv1.FollowRequest:
		r.Start, r.ToLsn = loggerv1.Start_START_EARLIEST, a.head
	case *loggerv1.ListUpdatedSinceRequest:
		r.Position = &changev1.Position{LogId: a.log}
	case *inventoryv1.ChecksumRequest:
		r.Rows, r.Key, r.Columns = true, []string{"org", "id"}, []string{"org", "id", "note"}
		r.Order, r.Ranges = inventoryv1.ChecksumOrder_CHECKSUM_ORDER_KEY, []*inventoryv1.KeyRange{{After: []string{"globex", "0"}}}
	case *inventoryv1.ReadRowsRequest:
		r.Columns, r.Key = []string{"org", "id", "note"}, []string{"org", "id"}
		r.Keys = []*inventoryv1.RowKey{{Values: []string{"globex", key}}, {Values: []string{"acme", key}}}
	case *inventoryv1.DumpRequest:
		r.Format = inventoryv1.DumpFormat_DUMP_FORMAT_COPY_TEXT
	}
	return m.Interface()
}

// call makes a call and returns everything that comes back, the error too.
func (a *attack) call(method protoreflect.MethodDescriptor, request proto.Message) (text string, data []byte, err error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	stream, err := a.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err == nil {
		err = stream.SendMsg(request)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	typ, unknown := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	if unknown != nil {
		a.t.Fatal(unknown)
	}
	var all strings.Builder
	for n := 0; err == nil && n < 200; n++ {
		answer := typ.New().Interface()
		if err = stream.RecvMsg(answer); err == nil {
			all.WriteString(prototext.Format(answer))
			raw, marshalled := proto.Marshal(answer)
			if marshalled != nil {
				a.t.Fatal(marshalled)
			}
			data = append(data, raw...) // also what is packed in bytes
		}
	}
	if err != nil && err.Error() != "EOF" {
		all.WriteString(rpc.Message(err) + fmt.Sprint(err))
	}
	return all.String(), data, err
}

// TestAttacker has the credential of one organisation's replica ask everything that can be asked, in the ways of somebody who wants
// another's rows: no answer and no error has a trace of them, nor of tables beside the set.
func TestAttacker(t *testing.T) {
	t.Parallel()
	f := openFortress(t)
	source := pgtest.Connect(t, f.source)
	pgtest.Exec(t, source, attackedTables)
	olga := loggerv1.NewLoggerServiceClient(f.as("olga"))
	for name, spec := range map[string]*loggerv1.SetSpec{
		"by-org": {Tables: []*loggerv1.SetTable{{Pattern: "org.orders", Rows: orgSelector}}}, "everything": {},
	} {
		pgtest.Eventually(t, time.Minute, func() error {
			_, err := olga.CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: name, Spec: spec})
			return err
		})
	}
	byAda := []string{"--addr", f.primary.grpc, "--tls-ca", f.ours.ca, "--token-file", f.tokenFile("ada")}
	f.create("acme", "replicator", append(byAda, "--set", "by-org:org=acme")...)
	f.create("globex", "replicator", append(byAda, "--set", "by-org:org=globex")...)
	pgtest.Eventually(t, time.Minute, func() error { return getServer(t, f.as("globex")) })
	pgtest.Eventually(t, time.Minute, func() error {
		state, err := olga.GetState(t.Context(), &loggerv1.GetStateRequest{})
		if err == nil && !slices.Contains(state.GetTables(), `"org"."orders"`) {
			err = fmt.Errorf("not captured yet: %v", state.GetTables())
		}
		return err
	})
	pgtest.Exec(t, source, "UPDATE org.orders SET note = note || '!'; DELETE FROM org.orders WHERE id % 10 = 3; INSERT INTO org.hiddenpayroll (org) VALUES ('acme')")
	globex := f.as("globex")
	barrier, err := loggerv1.NewLoggerServiceClient(globex).EmitBarrier(t.Context(), &loggerv1.EmitBarrierRequest{})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	theirs := map[string]string{"org": "globex"}
	a := &attack{t: t, conn: f.as("acme"), log: barrier.GetPosition().GetLogId(), head: barrier.GetPosition().GetLsn(), snapshot: openSnapshot(t, inventoryv1.NewInventoryServiceClient(globex))}
	ranges, err := olga.GetRanges(t.Context(), &loggerv1.GetRangesRequest{})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	listing := &loggerv1.ListUpdatedSinceRequest{Position: &changev1.Position{LogId: a.log, Lsn: ranges.GetFirstLsn()}, Set: "by-org", Parameters: theirs, PageSize: 5}
	pgtest.Eventually(t, time.Minute, func() error {
		page, err := loggerv1.NewLoggerServiceClient(globex).ListUpdatedSince(t.Context(), listing)
		if a.page = page.GetNextPageToken(); err == nil && a.page == "" {
			err = fmt.Errorf("globex's own list has %d rows", len(page.GetUpdates()))
		}
		return err
	})

	refused, answered := 0, 0
	var rows []string // the methods by which it has its own
	for _, method := range syncline() {
		var before string
		for i, v := range variants() {
			if i > 0 && method.Input().Fields().ByName("set") == nil && method.Input().Fields().ByName("table") == nil {
				break // it can be asked in one way only
			}
			if method.Name() == "CloseSnapshot" {
				continue // whoever knows a snapshot's id may close it
			}
			request := a.request(v, method.Input())
			if r, is := request.(*loggerv1.ListUpdatedSinceRequest); is {
				r.Position.Lsn = ranges.GetFirstLsn()
				if v.what == "its own" {
					r.PageToken = ""
				}
			}
			text, data, err := a.call(method, request)
			if v.table != "" {
				text = strings.ReplaceAll(text, v.table, "T") // it is what was asked for
			}
			for _, mark := range marks {
				if v.key != "" && strings.Contains(v.key, mark) {
					text = strings.ReplaceAll(text, v.key, "K")
				}
				if strings.Contains(text, mark) || strings.Contains(string(data), mark) {
					t.Errorf("%s, %s: the answer tells of %q: %.600s", method.FullName(), v.what, mark, text)
				}
			}
			granted := v.set == "by-org" && v.parameters["org"] == "acme" && !v.selection
			if v.what == "its own" && strings.Contains(string(data), "ours") {
				rows = append(rows, string(method.Name()))
			}
			switch code := rpc.Code(err); {
			case code == codes.PermissionDenied, code == codes.Unimplemented:
				refused++
			case err == nil || err.Error() == "EOF":
				answered++
			}
			scoped := method.Input().Fields().ByName("set") != nil
			if scoped && !granted && v.set != "by-org" && rpc.Code(err) != codes.PermissionDenied && rpc.Code(err) != codes.Unimplemented {
				t.Errorf("%s, %s: %v", method.FullName(), v.what, err)
			}
			// What is beside the set and what is not there at all are one to whoever asks.
			switch v.table {
			case "hiddenpayroll":
				before = text
			case "nowhere", "hiddenview":
				if method.Input().Fields().ByName("table") != nil && text != before {
					t.Errorf("%s: a table that is there says %q, and %s %q", method.FullName(), before, v.table, text)
				}
			}
		}
	}
	for _, name := range []string{"Dump", "ReadRows", "Follow"} {
		if !slices.Contains(rows, name) {
			t.Errorf("%s does not give acme its own rows (%v do), so it was not tried", name, rows)
		}
	}
	if refused < 100 || answered < 20 {
		t.Errorf("%d refused, %d answered", refused, answered)
	}

	// Another's follower is no follower of its own, so it can neither let the log be purged nor be removed.
	followers, err := olga.ListFollowers(t.Context(), &loggerv1.ListFollowersRequest{})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	for _, follower := range followers.GetFollowers() {
		if strings.HasPrefix(follower.GetName(), "globex/") {
			t.Errorf("acme is follower %s", follower.GetName())
		}
	}

	f.attackREST(t, a.snapshot)
}

// attackREST asks the same of the HTTP address.
func (f *fortress) attackREST(t *testing.T, snapshot string) {
	t.Helper()
	bearer := map[string]string{"Authorization": "Bearer " + f.tokens["acme"]}
	own := "set=by-org&parameters[org]=acme"
	for path, want := range map[string]int{
		"/v1/inventory": 403, "/v1/inventory?" + own: 200, "/v1/inventory?set=by-org&parameters[org]=globex": 403, "/v1/inventory?set=everything": 403,
		"/v1/inventory?set=by-org&set=everything&parameters[org]=acme": 400, "/v1/inventory?set=by-org&parameters[org]=acme&parameters[org]=globex": 400,
		"/v1/snapshots/" + snapshot + ":dump?schema=org&table=orders&format=DUMP_FORMAT_JSON_LINES&" + own:                             200,
		"/v1/snapshots/" + snapshot + ":dump?schema=org&table=orders&set=by-org&parameters[org]=globex":                                403,
		"/v1/snapshots/" + snapshot + ":dump?schema=org&table=hiddenpayroll&" + own:                                                    404,
		"/v1/logger:follow?start=START_EARLIEST&wait=0s&" + own:                                                                        200,
		"/v1/logger:follow?start=START_EARLIEST&wait=0s&set=by-org&parameters[org]=" + url.QueryEscape("acme' OR '1'='1"):              403,
		"/v1/logger:follow?start=START_EARLIEST&wait=0s&set=by-org&parameters[org]=acme&selection.tables[0].pattern=org.hiddenpayroll": 400,
	} {
		code, _, text := f.get(t, f.browser(t), "GET", path, bearer)
		if code != want {
			t.Errorf("%s: %d %.300s, expected %d", path, code, text, want)
		}
		for _, mark := range marks {
			if strings.Contains(text, mark) && !strings.Contains(path, mark) {
				t.Errorf("%s: the answer tells of %q: %.500s", path, mark, text)
			}
		}
	}
}
