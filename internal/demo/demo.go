package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgserver"
)

// Options say what to show. DefaultOptions are its defaults.
type Options struct {
	Replicas int           // how many replicas, from 1 on
	Duration time.Duration // of the live part
	Scale    float64       // size of the company; 1 is some 400 MB
	Keep     bool          // leave everything running at the end until the context ends

	Binary   string    // path of the syncline program
	Out      io.Writer // where the user looks
	Terminal bool      // whether Out is a terminal
}

// DefaultOptions are those of `syncline demo`.
func DefaultOptions() Options {
	return Options{Replicas: 2, Duration: 30 * time.Second, Scale: 1}
}

// Bounds of the options.
const (
	MaxReplicas = 8
	MaxScale    = 100
	MinDuration = time.Second
)

// ErrOptions means that an option cannot be used.
var ErrOptions = errors.New("invalid option")

// ErrInterrupted means that the context ended before the demonstration did.
var ErrInterrupted = errors.New("interrupted: everything that was started is stopped and removed")

func (o Options) check() error {
	switch {
	case o.Replicas < 1 || o.Replicas > MaxReplicas:
		return fmt.Errorf("%w: %d replicas: use 1 to %d", ErrOptions, o.Replicas, MaxReplicas)
	case o.Scale <= 0 || o.Scale > MaxScale:
		return fmt.Errorf("%w: scale %g: use more than 0 and at most %d", ErrOptions, o.Scale, MaxScale)
	case o.Duration < MinDuration:
		return fmt.Errorf("%w: duration %s: use at least %s", ErrOptions, o.Duration, MinDuration)
	}
	return nil
}

// demo is one demonstration.
type demo struct {
	options  Options
	screen   *screen
	business business
	pgbench  string // path, "" for none

	primary  *node
	replicas []*node
	source   *source
	watchers []*watcher
	load     *load

	watching sync.WaitGroup
	unwatch  context.CancelFunc
}

// Run shows everything. It returns ErrDifferent when a replica is not equal at the end, ErrInterrupted when ctx ends
// before the proof, and nil when it ends afterwards.
func Run(ctx context.Context, options Options) (err error) {
	if err := options.check(); err != nil {
		return err
	}
	d := &demo{
		options:  options,
		screen:   &screen{out: options.Out, terminal: options.Terminal, every: liveEvery},
		business: sized(options.Scale),
	}
	defer func() {
		d.screen.settle()
		var broken *brokenError
		if errors.As(err, &broken) && ctx.Err() == nil {
			d.screen.say("What %s printed last:\n%s", broken.node.name, broken.node.logTail())
		}
		closed := d.close()
		switch {
		case err != nil && ctx.Err() != nil:
			err = errors.Join(ErrInterrupted, closed)
		default:
			err = errors.Join(err, closed)
		}
	}()
	for _, stage := range []func(context.Context) error{d.startServers, d.fill, d.replicate, d.showLive, d.finish} {
		if err := stage(ctx); err != nil {
			return err
		}
	}
	return d.keep(ctx)
}

func (d *demo) nodes() []*node { return append([]*node{d.primary}, d.replicas...) }

func (d *demo) startServers(ctx context.Context) error {
	bin, err := pgserver.Find("")
	if err != nil {
		return err
	}
	d.pgbench, _ = bin.Pgbench()
	d.screen.say("Starting 1 primary and %s, each with a PostgreSQL %s of its own …", plural(d.options.Replicas, "replica"), bin.Version)
	d.replicas = make([]*node, d.options.Replicas)
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		d.primary, err = newNode(groupCtx, d.options.Binary, "primary", "primary")
		return err
	})
	for i := range d.replicas {
		group.Go(func() (err error) {
			d.replicas[i], err = newNode(groupCtx, d.options.Binary, "replica", fmt.Sprintf("replica %d", i+1))
			return err
		})
	}
	return group.Wait()
}

func (d *demo) fill(ctx context.Context) error {
	what := "a company's business"
	if d.pgbench != "" {
		what += " and pgbench's tables"
	}
	d.screen.say("Filling the primary with %s …", what)
	began := time.Now()
	filled, err := d.business.fill(ctx, d.primary.url(), d.pgbench, func(what string) {
		if d.screen.terminal {
			d.screen.show("  " + what)
		}
	})
	d.screen.clear()
	if err != nil {
		return err
	}
	d.screen.say("  %d tables, %s rows, %s in %s", filled.tables, count(filled.rows), size(filled.bytes), spell(time.Since(began)))
	return nil
}

// replicate starts the processes, the writing and the replications, and returns when every replica follows.
func (d *demo) replicate(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for _, n := range d.nodes() {
		group.Go(func() error { return n.start(groupCtx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	d.load = startLoad(ctx, d.business, d.primary.url(), d.pgbench)
	d.screen.say("Writing to the primary from now on. The first copy, meanwhile:")
	d.startWatching(ctx)
	copies := make([]*copying, len(d.replicas))
	for i, n := range d.replicas {
		_, err := applierv1.NewApplierServiceClient(n.conn).CreateReplication(ctx, &applierv1.CreateReplicationRequest{
			Name: replicationName, Spec: &applierv1.ReplicationSpec{Source: d.primary.grpc},
		})
		if err != nil {
			return fmt.Errorf("create the replication of %s: %s", n.name, why(err))
		}
		w := &watcher{node: n}
		d.watchers = append(d.watchers, w)
		d.watch(ctx, w.run)
		copies[i] = newCopying(n, w)
	}
	return watchCopies(ctx, d.screen, copies, func() error { return d.check(true) })
}

func (d *demo) startWatching(ctx context.Context) {
	d.source = &source{node: d.primary}
	d.watch(ctx, d.source.run)
}

// watch runs one watcher until close.
func (d *demo) watch(ctx context.Context, run func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	before := d.unwatch
	d.unwatch = func() {
		cancel()
		if before != nil {
			before()
		}
	}
	d.watching.Go(func() { run(ctx) })
}

func (d *demo) showLive(ctx context.Context) error {
	d.screen.say("Live for %s. Look around from another terminal:", spell(d.options.Duration))
	d.screen.say("%s", d.tour())
	err := d.live(ctx)
	d.screen.settle()
	return err
}

// finish stops the writing and proves that all is equal.
func (d *demo) finish(ctx context.Context) error {
	if err := d.load.finish(ctx); err != nil {
		return err
	}
	d.screen.say("Stopped writing, after %s transactions of the company. Waiting for the replicas …", count(d.load.committed.Load()))
	if err := d.drain(ctx); err != nil {
		return err
	}
	d.screen.settle()
	d.screen.say("Comparing every row of every table …")
	if err := d.prove(ctx); err != nil {
		return err
	}
	d.screen.say("Every table is equal on all %d servers. Nothing was lost, nothing doubled.", 1+len(d.replicas))
	return nil
}

// keep leaves everything running until ctx ends.
func (d *demo) keep(ctx context.Context) error {
	if !d.options.Keep {
		d.screen.say("Everything is stopped and removed now; make demo DEMO_FLAGS=--keep leaves it running.")
		return nil
	}
	d.screen.say("Running until Ctrl-C. What you write to the primary appears on the replicas:\n%s", d.tour())
	<-ctx.Done()
	d.screen.say("Stopping and removing everything …")
	return nil
}

// close ends and removes everything, in the order in which data flows.
func (d *demo) close() error {
	if d.load != nil {
		d.load.stop()
		<-d.load.done
	}
	if d.unwatch != nil {
		d.unwatch()
	}
	d.watching.Wait()
	var errs []error
	started := make([]*node, 0, 1+len(d.replicas))
	for _, n := range append(append([]*node(nil), d.replicas...), d.primary) {
		if n != nil {
			started = append(started, n)
		}
	}
	for _, step := range []func(*node) error{(*node).stop, (*node).close} {
		results := make(chan error, len(started))
		for _, n := range started {
			go func() { results <- step(n) }()
		}
		for range started {
			errs = append(errs, <-results)
		}
	}
	return errors.Join(errs...)
}
