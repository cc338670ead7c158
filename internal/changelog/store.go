package changelog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The streams of a log and their subjects.
const (
	blocksStream  = "SYNCLINE_BLOCKS"
	blocksSubject = "syncline.blocks"

	stateStream     = "SYNCLINE_STATE"
	stateSubjects   = "syncline.state.>"
	metaSubject     = "syncline.state.meta"
	relationSubject = "syncline.state.relation." // and the hash
)

// requestTimeout bounds one request to the store when the caller sets no bound.
const requestTimeout = 30 * time.Second

// store is the log's streams. What it does not get from embedded it does through JetStream's API only, so that a NATS
// cluster can take the place of the embedded server.
type store struct {
	server *embedded
	// Blocks are written and read on connections of their own: an acknowledgement never waits behind what readers get.
	write, read   *nats.Conn
	writer        jetstream.JetStream
	blocks, state jetstream.Stream // on the reading connection
}

// stored is a message of the store.
type stored struct {
	data []byte
	at   time.Time
}

// bounds is what the store says of the blocks.
type bounds struct {
	first, last         uint64 // first > last when there is none
	bytes               uint64
	firstTime, lastTime time.Time
}

var errNotStored = errors.New("not in the store")

func openStore(ctx context.Context, dir string, log *slog.Logger) (*store, error) {
	if err := settle(filepath.Join(dir, "jetstream")); err != nil {
		return nil, err
	}
	srv, err := startEmbedded(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	s := &store{server: srv}
	if err := s.connect(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *store) connect(ctx context.Context) (err error) {
	if s.write, err = s.server.connect("syncline log writer"); err != nil {
		return err
	}
	if s.read, err = s.server.connect("syncline log readers"); err != nil {
		return err
	}
	s.writer, err = jetstream.New(s.write, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	reader, err := jetstream.New(s.read, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	// No limit of the streams' own: it could cut inside a transaction.
	config := jetstream.StreamConfig{
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Replicas: 1, AllowDirect: true,
		MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, Compression: jetstream.NoCompression,
		Duplicates: 100 * time.Millisecond, // nothing relies on it, and none would stand for two minutes
	}
	blocks := config
	blocks.Name, blocks.Subjects, blocks.Discard = blocksStream, []string{blocksSubject}, jetstream.DiscardNew
	blocks.Description = "blocks of the change log"
	if s.blocks, err = ensureStream(ctx, reader, blocks); err != nil {
		return err
	}
	state := config
	state.Name, state.Subjects, state.MaxMsgsPerSubject = stateStream, []string{stateSubjects}, 1
	state.Description = "what the change log is a log of, and relation versions"
	s.state, err = ensureStream(ctx, reader, state)
	return err
}

func ensureStream(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, config)
	}
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", config.Name, err)
	}
	return stream, nil
}

func (s *store) close() {
	for _, nc := range []*nats.Conn{s.write, s.read} {
		if nc != nil {
			nc.Close()
		}
	}
	s.server.stop()
}

// publish sends block number on its way. It fails, now or later, unless the last block of the store is number-1.
func (s *store) publish(number uint64, data []byte) (jetstream.PubAckFuture, error) {
	return s.send(&nats.Msg{Subject: blocksSubject, Data: data}, jetstream.WithExpectLastSequence(number-1))
}

func (s *store) send(msg *nats.Msg, opts ...jetstream.PublishOpt) (jetstream.PubAckFuture, error) {
	future, err := s.writer.PublishMsgAsync(msg, append(opts, jetstream.WithRetryAttempts(0))...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	return future, nil
}

// healthInterval is the time without an acknowledgement after which the store is asked whether it still works.
const healthInterval = time.Second

// await waits until what was sent is durable, and returns its sequence number. It returns ErrFenced or ErrStore, or the
// cause of stop when that ends first.
func (s *store) await(future jetstream.PubAckFuture, stop <-chan struct{}) (uint64, error) {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for {
		select {
		case ack := <-future.Ok():
			return ack.Sequence, nil
		case err := <-future.Err():
			return 0, storeError(err)
		case <-stop:
			return 0, ErrClosed
		case <-tick.C:
		case <-s.server.log.alarm:
		}
		if err := s.server.health(); err != nil {
			return 0, err
		}
		if s.write.IsClosed() {
			return 0, fmt.Errorf("%w: the store was stopped", ErrStore)
		}
	}
}

// storeError tells a publish that came too late from one that could not be stored.
func storeError(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			return fmt.Errorf("%w: %s", ErrFenced, api.Description)
		}
	}
	return fmt.Errorf("%w: %w", ErrStore, err)
}

// block returns a stored block. It returns errNotStored.
func (s *store) block(ctx context.Context, number uint64) (stored, error) {
	msg, err := s.blocks.GetMsg(ctx, number)
	if err != nil {
		return stored{}, readError(err)
	}
	return stored{data: msg.Data, at: msg.Time}, nil
}

func readError(err error) error {
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return errNotStored
	}
	return fmt.Errorf("read from store: %w", err)
}

func (s *store) bounds(ctx context.Context) (bounds, error) {
	info, err := s.blocks.Info(ctx)
	if err != nil {
		return bounds{}, readError(err)
	}
	state := info.State
	b := bounds{first: state.FirstSeq, last: state.LastSeq, bytes: state.Bytes, firstTime: state.FirstTime, lastTime: state.LastTime}
	if state.Msgs == 0 {
		b.first = b.last + 1
	}
	return b, nil
}

// purge removes the blocks before number, all of them when number is 0.
func (s *store) purge(ctx context.Context, number uint64) error {
	var opts []jetstream.StreamPurgeOpt
	if number > 0 {
		opts = append(opts, jetstream.WithPurgeSequence(number))
	}
	if err := s.blocks.Purge(ctx, opts...); err != nil {
		return fmt.Errorf("purge blocks: %w: %w", ErrStore, err)
	}
	return nil
}

// put stores the value of a subject; it is durable on return.
func (s *store) put(ctx context.Context, subject string, data []byte) error {
	future, err := s.send(&nats.Msg{Subject: subject, Data: data})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err = s.await(future, ctx.Done()); errors.Is(err, ErrClosed) {
		return fmt.Errorf("wait for the store: %w", context.Cause(ctx))
	}
	return err
}

// get returns the value of a subject. It returns errNotStored.
func (s *store) get(ctx context.Context, subject string) ([]byte, error) {
	msg, err := s.state.GetLastMsgForSubject(ctx, subject)
	if err != nil {
		return nil, readError(err)
	}
	return msg.Data, nil
}
