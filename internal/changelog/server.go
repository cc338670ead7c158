package changelog

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// embedded is a NATS server inside the process: it has no listener, handles no signals, and stores in one directory.
type embedded struct {
	srv *server.Server
	log *serverLog
}

const (
	// unlimited lifts JetStream's own limit on disk space, which it would derive from what was free at the start: a log is
	// limited by Options.MaxBytes and by the disk.
	unlimited = 1 << 60
	// memoryStore bounds what JetStream keeps in memory streams. There are none, but 0 would stand for most of the machine's
	// memory.
	memoryStore = 16 << 20
	maxPayload  = 1 << 20
)

// startEmbedded starts the server and waits until its streams are recovered, which takes long for a large log that was not
// closed.
func startEmbedded(ctx context.Context, dir string, log *slog.Logger) (*embedded, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName: "syncline", DontListen: true, NoSigs: true, NoLog: true, MaxPayload: maxPayload,
		JetStream: true, StoreDir: dir, SyncAlways: true, JetStreamMaxStore: unlimited, JetStreamMaxMemory: memoryStore,
	})
	if err != nil {
		return nil, fmt.Errorf("configure store: %w", err)
	}
	e := &embedded{srv: srv, log: &serverLog{log: log, fatal: make(chan string, 1), alarm: make(chan struct{}, 1)}}
	srv.SetLoggerV2(e.log, false, false, false)
	srv.Start()
	for !srv.ReadyForConnections(50 * time.Millisecond) {
		select {
		case <-ctx.Done():
			e.stop()
			return nil, fmt.Errorf("start store: %w", context.Cause(ctx))
		case text := <-e.log.fatal:
			e.stop()
			return nil, fmt.Errorf("start store: %s", text)
		default:
		}
	}
	return e, nil
}

func (e *embedded) stop() {
	e.srv.Shutdown()
	e.srv.WaitForShutdown()
}

// connect opens a connection inside the process. It does not reconnect: a store that ends is opened anew as a whole.
func (e *embedded) connect(name string) (*nats.Conn, error) {
	nc, err := nats.Connect("", nats.InProcessServer(e.srv), nats.Name(name), nats.NoReconnect(), nats.Timeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to store: %w", err)
	}
	return nc, nil
}

// health returns why the server takes nothing more. After a failed write it stays silent towards whoever publishes.
func (e *embedded) health() error {
	if status := e.srv.Healthz(&server.HealthzOptions{}); status.StatusCode != 0 && status.StatusCode/100 != 2 {
		return fmt.Errorf("%w: %s", ErrStore, status.Error)
	}
	return nil
}

// serverLog passes what the server logs on. An error also raises the alarm, so that its cause is looked for at once.
type serverLog struct {
	log   *slog.Logger
	fatal chan string
	alarm chan struct{}
}

func (l *serverLog) Noticef(format string, args ...any) { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l *serverLog) Debugf(format string, args ...any)  { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l *serverLog) Tracef(format string, args ...any)  { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l *serverLog) Warnf(format string, args ...any)   { l.log.Warn(fmt.Sprintf(format, args...)) }

func (l *serverLog) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...))
	select {
	case l.alarm <- struct{}{}:
	default:
	}
}

func (l *serverLog) Fatalf(format string, args ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, args...):
	default:
	}
}
