package logger

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// TestBoundedFollow reads a log in pieces, each bounded by a number of transactions, and goes on from where each ends.
func TestBoundedFollow(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	from := i.barrier(t)
	const transactions = 25
	for n := range transactions {
		// Each one larger than a block, so that pieces are small and end inside none.
		rows := 1
		if n%5 == 0 {
			rows = 600
		}
		pgtest.Exec(t, conn, "INSERT INTO a SELECT $1 * 1000 + i, repeat('x', 1000) FROM generate_series(1, $2) i", n, rows)
	}
	to := i.barrier(t)
	whole := withoutBarriers(follow(t, i, from, to).history.done)
	if len(whole) != transactions {
		t.Fatalf("%d transactions", len(whole))
	}

	var pieces []transaction
	at := from
	for more := true; more; {
		r := &reader{t: t}
		if err := r.read(t.Context(), i.client, &loggerv1.FollowRequest{Position: at, Limit: 3, Wait: durationpb.New(0)}); err != nil {
			t.Fatal(err)
		}
		if r.ended.GetPosition().GetLsn() != r.position.GetLsn() || r.ended.GetFirstLsn() == 0 || r.ended.GetFirstLsn() > at.GetLsn() {
			t.Fatalf("ended %v after %v from %v", r.ended, r.position, at)
		}
		more = r.ended.GetMore()
		if more && len(r.history.done) < 3 {
			t.Errorf("%d transactions although there are more", len(r.history.done))
		}
		pieces, at = append(pieces, r.history.done...), r.ended.GetPosition()
	}
	if got := fmt.Sprint(withoutBarriers(pieces)); got != fmt.Sprint(whole) {
		t.Errorf("in pieces:\n%s\nas a whole:\n%s", got, fmt.Sprint(whole))
	}
}

// TestFollowWaits ends a stream that waits once nothing has come for the time of the wait, and no earlier than that.
func TestFollowWaits(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY)")
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	from := i.barrier(t)
	const wait = 2 * time.Second
	inserted := make(chan struct{})
	time.AfterFunc(wait/2, func() {
		defer close(inserted)
		pgtest.Exec(t, conn, "INSERT INTO a VALUES (1)")
	})
	r, began := &reader{t: t}, time.Now()
	request := &loggerv1.FollowRequest{Position: from, Wait: durationpb.New(wait), Heartbeat: durationpb.New(minHeartbeat)}
	if err := r.read(t.Context(), i.client, request); err != nil {
		t.Fatal(err)
	}
	<-inserted
	if took := time.Since(began); took < wait+wait/2 {
		t.Errorf("it ended after %s", took)
	}
	if got := withoutBarriers(r.history.done); len(got) != 1 || r.ended == nil || r.beats < 10 {
		t.Errorf("%v, %v, %d heartbeats", got, r.ended, r.beats)
	}
}

// TestIdlePause leaves the log unread for those who want that: heartbeats go on, and everything comes in the end.
func TestIdlePause(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY)")
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	from := i.barrier(t)
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (1)")
	to := i.barrier(t)
	inserted := make(chan struct{})
	time.AfterFunc(time.Second, func() {
		defer close(inserted)
		pgtest.Exec(t, conn, "INSERT INTO a VALUES (2)")
	})
	// What is there is served at once, what comes after that waits for the pause, and so long the stream has nothing but heartbeats.
	r := &reader{t: t}
	request := &loggerv1.FollowRequest{Position: from, Wait: durationpb.New(4 * time.Second), Heartbeat: durationpb.New(minHeartbeat), IdlePause: durationpb.New(maxIdlePause)}
	if err := r.read(t.Context(), i.client, request); err != nil {
		t.Fatal(err)
	}
	<-inserted
	if got := withoutBarriers(r.history.done); len(got) != 1 || r.position.GetLsn() < to.GetLsn() || !r.ended.GetMore() || r.beats < 10 {
		t.Errorf("%v up to %v, ended %v, %d heartbeats", got, r.position, r.ended, r.beats)
	}
	r = &reader{t: t}
	request.IdlePause = durationpb.New(100 * time.Millisecond)
	if err := r.read(t.Context(), i.client, request); err != nil {
		t.Fatal(err)
	}
	if got := withoutBarriers(r.history.done); len(got) != 2 || r.ended.GetMore() {
		t.Errorf("%v, ended %v", got, r.ended)
	}
	for _, wrong := range []time.Duration{-1, maxIdlePause + 1} {
		if err := (&reader{t: t}).read(t.Context(), i.client, &loggerv1.FollowRequest{Position: from, IdlePause: durationpb.New(wrong)}); rpc.Code(err) != codes.InvalidArgument {
			t.Errorf("a pause of %s: %v", wrong, err)
		}
	}
}

func TestFollowBoundsAreChecked(t *testing.T) {
	for field, request := range map[string]*loggerv1.FollowRequest{
		"limit": {Start: loggerv1.Start_START_NOW, Limit: -1},
		"wait":  {Start: loggerv1.Start_START_NOW, Wait: durationpb.New(-time.Second)},
	} {
		_, err := boundsOf(request)
		if rpc.Code(err) != codes.InvalidArgument || len(rpc.Fields(err)) != 1 || rpc.Fields(err)[0].GetField() != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := boundsOf(&loggerv1.FollowRequest{Position: &changev1.Position{}, Wait: durationpb.New(maxFollowWait + 1)}); err == nil {
		t.Error("a wait that is too long was taken")
	}
	if b, err := boundsOf(&loggerv1.FollowRequest{}); err != nil || b.announced() || b.waited(time.Now()) || b.reached(1) {
		t.Errorf("no bound: %+v, %v", b, err)
	}
}
