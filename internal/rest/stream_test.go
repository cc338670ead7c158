package rest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// TestStreamEndsWithItsError reads lines as they come, and then why the stream breaks off.
func TestStreamEndsWithItsError(t *testing.T) {
	f := start(t, DefaultLimits())
	read := make(chan struct{})
	f.applier.watch = func(stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
		for n := range 3 {
			if err := stream.Send(&applierv1.WatchReplicationResponse{Replication: &applierv1.Replication{Name: fmt.Sprint(n)}}); err != nil {
				return err
			}
			<-read // a line is flushed before the next one is made
		}
		return rpc.Errorf(codes.NotFound, "REPLICATION_UNKNOWN", "it was deleted").With("replication", "shop")
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/v1/replications/shop:watch?interval=1s", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != typeLines {
		t.Errorf("%d, %s", answer.StatusCode, answer.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(answer.Body)
	for n := range 3 {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), `{"replication":{"name":"`+fmt.Sprint(n)) {
			t.Fatalf("line %d: %s, %v", n, lines.Text(), lines.Err())
		}
		read <- struct{}{}
	}
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	var last failure
	if err := json.Unmarshal(lines.Bytes(), &last); err != nil || last.Error.Reason != "REPLICATION_UNKNOWN" || last.Error.Code != http.StatusNotFound || last.Error.Metadata["replication"] != "shop" {
		t.Errorf("%s, %v", lines.Text(), err)
	}
	if lines.Scan() {
		t.Errorf("after the end: %s", lines.Text())
	}
}

func TestStreamFailsAtOnce(t *testing.T) {
	f := start(t, DefaultLimits())
	failure := rpc.Errorf(codes.OutOfRange, "POSITION_TOO_OLD", "it is gone").With("first_lsn", "0/10")
	f.logger.end = failure
	f.applier.watch = func(grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error { return failure }
	f.inventory.dump = func(*inventoryv1.DumpRequest, grpc.ServerStreamingServer[inventoryv1.DumpResponse]) error {
		return failure
	}
	for _, path := range []string{"/v1/replications/shop:watch", "/v1/logger:follow", "/v1/snapshots/s:dump"} {
		answer, body := f.call(t, "GET", path, "")
		if p := requireProblem(t, answer, body, http.StatusBadRequest, "POSITION_TOO_OLD"); p.Metadata["first_lsn"] != "0/10" {
			t.Errorf("%s: %s", path, body)
		}
	}
}

// TestClientGoes ends the call of a client that has gone.
func TestClientGoes(t *testing.T) {
	f := start(t, DefaultLimits())
	ended := make(chan error, 1)
	f.applier.watch = func(stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
		if err := stream.Send(&applierv1.WatchReplicationResponse{}); err != nil {
			return err
		}
		<-stream.Context().Done()
		ended <- stream.Context().Err()
		return stream.Context().Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/v1/replications/shop:watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the call goes on")
	}
}

func TestDumpByRow(t *testing.T) {
	f := start(t, DefaultLimits())
	var asked *inventoryv1.DumpRequest
	f.inventory.dump = func(in *inventoryv1.DumpRequest, stream grpc.ServerStreamingServer[inventoryv1.DumpResponse]) error {
		asked = in
		for _, piece := range []string{"{\"id\":1}\n{\"id\"", ":", "\"é\"}", "\n{}\n"} {
			if err := stream.Send(&inventoryv1.DumpResponse{Data: []byte(piece), Rows: 1}); err != nil {
				return err
			}
		}
		return stream.Send(&inventoryv1.DumpResponse{End: &inventoryv1.DumpEnd{Rows: 3, Bytes: 24}})
	}
	answer, body := f.call(t, "GET", "/v1/snapshots/s1:dump?schema=Odd%20S&table=t&columns=a&columns=b&format=DUMP_FORMAT_JSON_LINES", "")
	want := "{\"row\":{\"id\":1}}\n{\"row\":{\"id\":\"é\"}}\n{\"row\":{}}\n{\"end\":{\"rows\":\"3\",\"bytes\":\"24\"}}\n"
	if answer.StatusCode != http.StatusOK || body != want {
		t.Errorf("%d\n%s", answer.StatusCode, body)
	}
	if asked.GetSnapshotId() != "s1" || asked.GetSchema() != "Odd S" || len(asked.GetColumns()) != 2 {
		t.Errorf("asked for %v", asked)
	}
	answer, body = f.call(t, "GET", "/v1/snapshots/s1:dump?format=DUMP_FORMAT_CSV", "")
	if answer.StatusCode != http.StatusOK || strings.Count(body, "\n") != 5 || !strings.HasPrefix(body, `{"data":"eyJpZCI6MX0KeyJpZCI=","end":null,"rows":"1","resumePage":"0"}`) && !strings.HasPrefix(body, `{"data":"eyJpZCI6MX0KeyJpZCI=","rows":"1","resumePage":"0"}`) {
		t.Errorf("%d\n%s", answer.StatusCode, body)
	}
}

// TestFollowLimit ends within a block, and says that there is more.
func TestFollowLimit(t *testing.T) {
	f := start(t, DefaultLimits())
	f.logger.frames = transactions(t, 5)
	for limit, want := range map[int]string{
		2: `{"ended":{"position":{"logId":"` + testLog.String() + `","lsn":"40"},"more":true,"firstLsn":"1"}}`,
		5: `{"ended":{"position":{"logId":"` + testLog.String() + `","lsn":"88"},"more":false,"firstLsn":"1"}}`,
	} {
		answer, body := f.call(t, "GET", fmt.Sprintf("/v1/logger:follow?start=START_EARLIEST&limit=%d", limit), "")
		lines := strings.Split(strings.TrimSpace(body), "\n")
		if answer.StatusCode != http.StatusOK || strings.Count(body, `"kind":"commit"`) != limit || lines[len(lines)-1] != want {
			t.Errorf("limit %d: %d\n%s", limit, answer.StatusCode, body)
		}
		if !strings.HasPrefix(lines[0], `{"started":{"position":{"logId":`) || !strings.HasPrefix(lines[1], `{"heartbeat":`) {
			t.Errorf("it begins with\n%s\n%s", lines[0], lines[1])
		}
	}
	_, body := f.call(t, "GET", "/v1/logger:follow?start=START_EARLIEST&limit=1", "")
	for _, want := range []string{
		`{"record":{"kind":"begin","xid":1,"commitTime":"2026-03-01T12:30:15.000000Z"}}`,
		`{"record":{"kind":"insert","table":"public.\"Orders\"","new":{"id":"1","note":null}}}`,
		`{"record":{"kind":"commit","xid":1,"commitTime":"2026-03-01T12:30:15.000000Z","position":{"logId":"` + testLog.String() + `","lsn":"24"}}}`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("%s is not in\n%s", want, body)
		}
	}
}

// TestFollowFindsHoles says in a last line that a block is missing.
func TestFollowFindsHoles(t *testing.T) {
	f := start(t, DefaultLimits())
	frames := transactions(t, 1)
	f.logger.frames = append(frames[:3:3], &rpc.Frame{Prefix: frames[3].Prefix, Data: frames[3].Data[:len(frames[3].Data)-1]})
	answer, body := f.call(t, "GET", "/v1/logger:follow?start=START_EARLIEST", "")
	lines := strings.Split(strings.TrimSpace(body), "\n")
	var last failure
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Error.Reason == "" || answer.StatusCode != http.StatusOK {
		t.Errorf("%d, %v\n%s", answer.StatusCode, err, body)
	}
}
