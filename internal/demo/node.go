package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/seed0419d559/syncline/internal/pgserver"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/process"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	database     = "company"
	healthyLimit = time.Minute
	gracePeriod  = 10 * time.Second
)

// node is one PostgreSQL server with the Syncline process beside it.
type node struct {
	name    string // as the user sees it
	role    string // "primary" or "replica"
	binary  string
	server  *pgserver.Server
	grpc    string // HOST:PORT
	http    string
	held    []net.Listener // hold the ports
	process *process.Process
	conn    *grpc.ClientConn
}

// newNode starts a PostgreSQL server with an empty database. The caller closes the node, also after an error.
func newNode(ctx context.Context, binary, role, name string) (*node, error) {
	n := &node{name: name, role: role, binary: binary}
	var err error
	if n.server, err = pgserver.Create(ctx, pgserver.Config{Settings: map[string]string{"max_wal_size": "2GB"}}); err != nil {
		return n, err
	}
	if err := n.server.Start(ctx); err != nil {
		return n, err
	}
	if err := n.createDatabase(ctx); err != nil {
		return n, err
	}
	for _, address := range []*string{&n.grpc, &n.http} {
		port, hold, err := pgserver.ReservePort()
		if err != nil {
			return n, err
		}
		n.held = append(n.held, hold)
		*address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	n.conn, err = rpc.Dial(n.grpc)
	return n, err
}

func (n *node) createDatabase(ctx context.Context) error {
	conn, err := postgres.Connect(ctx, n.server.URL("postgres"), application)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+postgres.Ident(database)); err != nil {
		return fmt.Errorf("create database %s: %w", database, err)
	}
	return nil
}

func (n *node) url() string { return n.server.URL(database) }

// logPath is what the Syncline process prints. It goes with the server's directory, as the change log does.
func (n *node) logPath() string { return filepath.Join(n.server.Dir(), "syncline.log") }

// start starts the Syncline process and waits until it is healthy. It may be called again after kill.
func (n *node) start(ctx context.Context) error {
	args := []string{n.role, "--postgres", n.url(), "--grpc", n.grpc, "--http", n.http}
	if n.role == "primary" {
		args = append(args, "--data", filepath.Join(n.server.Dir(), "changelog"))
	}
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", n.name, err)
	}
	defer log.Close()
	cmd := exec.Command(n.binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if n.process, err = process.Launch(cmd); err != nil {
		return err
	}
	return n.waitHealthy(ctx)
}

func (n *node) waitHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthyLimit)
	defer cancel()
	client := grpc_health_v1.NewHealthClient(n.conn)
	for {
		n.conn.ResetConnectBackoff()
		answer, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil && answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
			return nil
		}
		if n.process.Ended() {
			return &brokenError{n, fmt.Errorf("ended: %w", n.process.Err())}
		}
		if !pause(ctx, 50*time.Millisecond) {
			return &brokenError{n, fmt.Errorf("did not become healthy: %w", ctx.Err())}
		}
	}
}

// logTail is the end of what the Syncline process printed.
func (n *node) logTail() string {
	const most = 4000
	text, err := os.ReadFile(n.logPath())
	if err != nil {
		return err.Error()
	}
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return string(text)
}

// brokenError says that a node's process is not as it should be. What it printed tells more.
type brokenError struct {
	node  *node
	cause error
}

func (e *brokenError) Error() string { return e.node.name + " " + e.cause.Error() }
func (e *brokenError) Unwrap() error { return e.cause }

// stop asks the Syncline process to end.
func (n *node) stop() error {
	if n.process == nil {
		return nil
	}
	return n.process.Terminate(gracePeriod)
}

// close ends the server and removes everything.
func (n *node) close() error {
	var err error
	if n.process != nil {
		err = n.process.Kill()
	}
	if n.conn != nil {
		n.conn.Close()
	}
	for _, hold := range n.held {
		hold.Close()
	}
	if n.server != nil {
		err = errors.Join(err, n.server.Close())
	}
	return err
}
