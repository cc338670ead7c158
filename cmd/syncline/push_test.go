package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// fakePusher has pushes, and keeps what it is asked.
type fakePusher struct {
	pushv1.UnimplementedPushServiceServer
	pushes []*pushv1.Push
	asked  proto.Message
}

func (f *fakePusher) Register(r grpc.ServiceRegistrar) { pushv1.RegisterPushServiceServer(r, f) }

func (f *fakePusher) CreatePush(_ context.Context, in *pushv1.CreatePushRequest) (*pushv1.CreatePushResponse, error) {
	f.asked = in
	return &pushv1.CreatePushResponse{Push: &pushv1.Push{Name: in.GetName()}}, nil
}

func (f *fakePusher) UpdatePush(_ context.Context, in *pushv1.UpdatePushRequest) (*pushv1.UpdatePushResponse, error) {
	f.asked = in
	return &pushv1.UpdatePushResponse{Push: f.pushes[0]}, nil
}

func (f *fakePusher) GetPush(context.Context, *pushv1.GetPushRequest) (*pushv1.GetPushResponse, error) {
	return &pushv1.GetPushResponse{Push: f.pushes[0]}, nil
}

func (f *fakePusher) ListPushes(context.Context, *pushv1.ListPushesRequest) (*pushv1.ListPushesResponse, error) {
	return &pushv1.ListPushesResponse{Pushes: f.pushes}, nil
}

func (f *fakePusher) DeletePush(_ context.Context, in *pushv1.DeletePushRequest) (*pushv1.DeletePushResponse, error) {
	f.asked = in
	return &pushv1.DeletePushResponse{}, nil
}

func (f *fakePusher) WatchPushes(_ *pushv1.WatchPushesRequest, stream grpc.ServerStreamingServer[pushv1.WatchPushesResponse]) error {
	if err := stream.Send(&pushv1.WatchPushesResponse{Pushes: f.pushes, Complete: true}); err != nil {
		return err
	}
	if err := stream.Send(&pushv1.WatchPushesResponse{Deleted: []string{"paris"}}); err != nil {
		return err
	}
	return rpc.Errorf(codes.Unavailable, rpc.ReasonStopping, "the server stops")
}

// ListPushEvents answers two at a time, however many are asked for.
func (f *fakePusher) ListPushEvents(_ context.Context, in *pushv1.ListPushEventsRequest) (*pushv1.ListPushEventsResponse, error) {
	f.asked = in
	list := somePushEvents()
	slices.Reverse(list)
	if in.GetPageToken() != "" {
		return &pushv1.ListPushEventsResponse{Events: list[2:]}, nil
	}
	return &pushv1.ListPushEventsResponse{Events: list[:2], NextPageToken: "2"}, nil
}

func somePushEvents() []*pushv1.PushEvent {
	at := timestamppb.New(longAgo)
	return []*pushv1.PushEvent{
		{Id: 1, Push: "berlin", Time: at, Kind: pushv1.PushEventKind_PUSH_EVENT_KIND_CREATED},
		{Id: 2, Push: "berlin", Time: at, Kind: pushv1.PushEventKind_PUSH_EVENT_KIND_RETRIED, Code: "TARGET_UNREACHABLE", Text: "refused", Side: applierv1.FaultSide_FAULT_SIDE_REMOTE, Count: 4},
		{Id: 3, Push: "berlin", Time: at, Kind: pushv1.PushEventKind_PUSH_EVENT_KIND_REPLICATION, ReplicationState: applierv1.State_STATE_FAILED, Code: "ROW_EXISTS", Text: "it is\x1b[31m there", Position: at16()},
		{Id: 4, Time: at, Kind: pushv1.PushEventKind_PUSH_EVENT_KIND_LOST, Text: "3 events could not be written in time", Count: 3},
	}
}

func somePushes() []*pushv1.Push {
	at := timestamppb.New(longAgo)
	lag := 1.5
	return []*pushv1.Push{
		{
			Name: "berlin", Spec: &pushv1.PushSpec{Target: "replica.example:7500", Set: "by-org", Parameters: map[string]string{"org": "7", "land": "de"}, Description: "the office there"},
			State: pushv1.PushState_PUSH_STATE_ATTACHED, StateTime: at, TargetServerId: "b1", ReplicationState: applierv1.State_STATE_RUNNING, Position: at16(),
			LagBytes: 4096, LagSeconds: &lag, LastContactTime: at, SentBytes: 1 << 20, Etag: "5-1",
		},
		{
			Name: "paris", Spec: &pushv1.PushSpec{Target: "10.0.0.5:7500"}, State: pushv1.PushState_PUSH_STATE_RETRYING, StateTime: at, Reason: "no connection to the target at 10.0.0.5:7500: refused",
			ReasonCode: "TARGET_UNREACHABLE", Side: applierv1.FaultSide_FAULT_SIDE_REMOTE, ErrorCount: 3, NextRetryTime: at, Etag: "6-1",
		},
	}
}

// clock is the time of a line of a watch.
var clock = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d`)

func TestPushTranscripts(t *testing.T) {
	fake := &fakePusher{pushes: somePushes()}
	address := serveFake(t, identify("logger", "inventory"), fake)
	var all strings.Builder
	for _, words := range []string{"list", "show berlin", "list --json"} {
		out, errOut, code := command(t, nil, append(append([]string{"push"}, strings.Fields(words)...), "--addr", address)...)
		if code != exitDone {
			t.Errorf("%s: exit code %d, %s", words, code, errOut)
		}
		all.WriteString("$ syncline push " + words + "\n" + out + "\n")
	}
	for _, words := range []string{"log", "log berlin --limit 3 --json"} {
		out, errOut, code := command(t, nil, append(append([]string{"push"}, strings.Fields(words)...), "--addr", address)...)
		if code != exitDone {
			t.Errorf("%s: exit code %d, %s", words, code, errOut)
		}
		all.WriteString("$ syncline push " + words + "\n" + out + "\n")
	}
	for _, words := range []string{"list --watch", "list --watch --json"} { // until the server stops
		out, errOut, code := command(t, nil, append(append([]string{"push"}, strings.Fields(words)...), "--addr", address)...)
		if code != exitFailed || !strings.Contains(errOut, "the server stops") {
			t.Errorf("%s: exit code %d, %s", words, code, errOut)
		}
		all.WriteString("$ syncline push " + words + "\n" + clock.ReplaceAllString(out, "HH:MM:SS") + "\n")
	}
	fake.pushes = fake.pushes[1:]
	out, _, _ := command(t, nil, "push", "show", "paris", "--addr", address)
	all.WriteString("$ syncline push show paris\n" + out + "\n")
	fake.pushes = nil
	out, _, _ = command(t, nil, "push", "list", "--addr", address)
	golden(t, "pushes", all.String()+"$ syncline push list\n"+out)
}

func TestPushFlags(t *testing.T) {
	fake := &fakePusher{pushes: somePushes()}
	address := serveFake(t, fake)
	token, ca := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "ca")
	for path, text := range map[string]string{token: "s3cret\n", ca: "authorities"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		args, env []string
		want      proto.Message
	}{
		"all of create": {[]string{
			"create", "berlin", "--target", "db2:7500", "--target-token-file", token, "--target-tls-ca", ca, "--target-tls-server-name", "db2.example", "--set", "by-org", "--param", "org=7",
			"--replication", "shop", "--description", "d", "--push-retry-cap", "5s", "--copy-workers", "2", "--compress", "zstd", "--initial", "incremental", "--retry-cap", "9s", "--replace",
		}, []string{"SYNCLINE_TARGET_PROXY=socks5h://u:p@proxy:1080"}, &pushv1.CreatePushRequest{Name: "berlin", Spec: &pushv1.PushSpec{
			Target: "db2:7500", Replication: "shop", Set: "by-org", Parameters: map[string]string{"org": "7"}, Token: "s3cret", Tls: &accessv1.ClientTLS{Ca: "authorities", ServerName: "db2.example"},
			Proxy: "socks5h://u:p@proxy:1080", Description: "d", RetryCap: durationpb.New(5 * time.Second),
			Options: &applierv1.ReplicationSpec{CopyWorkers: 2, Compression: applierv1.Compression_COMPRESSION_ZSTD, Initial: applierv1.Initial_INITIAL_INCREMENTAL, RetryCap: durationpb.New(9 * time.Second), Replace: true},
		}}},
		"update": {[]string{"update", "berlin", "--target", "db3:7500", "--target-tls", "--etag", "5-1"}, []string{"SYNCLINE_TARGET_TOKEN=t2", "SYNCLINE_TARGET=other:1"}, &pushv1.UpdatePushRequest{
			Name: "berlin", Spec: &pushv1.PushSpec{Target: "db3:7500", Token: "t2", Tls: &accessv1.ClientTLS{}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"target", "tls", "token"}}, Etag: "5-1",
		}},
		"delete": {[]string{"delete", "berlin", "--replication"}, nil, &pushv1.DeletePushRequest{Name: "berlin", DeleteReplication: true}},
	} {
		_, errOut, code := command(t, test.env, append(append([]string{"push"}, test.args...), "--addr", address)...)
		if code != exitDone || !proto.Equal(fake.asked, test.want) {
			t.Errorf("%s: exit code %d, %s, asked %v, expected %v", name, code, errOut, fake.asked, test.want)
		}
	}
	for _, args := range [][]string{
		{"create", "berlin"}, {"create", "berlin", "--target", "db2:7500", "--target-token", "t"}, {"update", "berlin"}, {"create", "berlin", "--target", "db2:7500", "--target-tls-ca", "none"},
		{"create", "berlin", "--target", "db2:7500", "--initial", "odd"}, {"create", "berlin", "--target", "db2:7500", "--target-token-file", "none"},
	} {
		if _, errOut, code := command(t, nil, append(append([]string{"push"}, args...), "--addr", address)...); code != exitWrongUse {
			t.Errorf("%v: exit code %d, %s", args, code, errOut)
		}
	}
}
