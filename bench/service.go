package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/seed0419d559/syncline/internal/pgserver"
	"github.com/seed0419d559/syncline/internal/process"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	healthyLimit = time.Minute
	gracePeriod  = 20 * time.Second
)

// service is one process of Syncline.
type service struct {
	binary string
	role   string
	url    string // of its PostgreSQL database
	dir    string // where it prints to
	extra  []string

	grpc, http string // HOST:PORT
	held       []net.Listener
	conn       *grpc.ClientConn
	process    *process.Process
	usedBefore float64 // CPU seconds of the processes that were stopped
}

// start starts the process and waits until it is healthy. It may be called again after stop; a process that runs is left
// alone.
func (s *service) start(ctx context.Context) error {
	if s.pid() != 0 {
		return nil
	}
	if err := s.reserve(); err != nil {
		return err
	}
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	args := append([]string{s.role, "--postgres", s.url, "--grpc", s.grpc, "--http", s.http, "--pprof"}, s.extra...)
	cmd := exec.Command(s.binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = process.Launch(cmd); err != nil {
		return fmt.Errorf("start syncline %s: %w", s.role, err)
	}
	return s.waitHealthy(ctx)
}

// reserve takes ports, which stay the same when the process is started again.
func (s *service) reserve() error {
	if s.conn != nil {
		return nil
	}
	for _, address := range []*string{&s.grpc, &s.http} {
		port, hold, err := pgserver.ReservePort()
		if err != nil {
			return err
		}
		s.held = append(s.held, hold)
		*address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	var err error
	s.conn, err = rpc.Dial(s.grpc)
	return err
}

func (s *service) waitHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthyLimit)
	defer cancel()
	client := grpc_health_v1.NewHealthClient(s.conn)
	err := poll(ctx, lookEvery, func() (bool, error) {
		s.conn.ResetConnectBackoff()
		answer, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if s.process.Ended() {
			return false, s.process.Err()
		}
		return err == nil && answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING, nil
	})
	if err != nil {
		return fmt.Errorf("syncline %s does not serve: %w; it printed last:\n%s", s.role, err, s.logTail())
	}
	return nil
}

// logPath is a file of its own: several services may share a server's directory.
func (s *service) logPath() string {
	return filepath.Join(s.dir, fmt.Sprintf("syncline-%s-%s.log", s.role, s.http[strings.LastIndexByte(s.http, ':')+1:]))
}

// logTail is the end of what the process printed.
func (s *service) logTail() string {
	const most = 4000
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

func (s *service) pid() int {
	if s.process == nil || s.process.Ended() {
		return 0
	}
	return s.process.PID()
}

func (s *service) port() int {
	_, port, _ := net.SplitHostPort(s.grpc)
	number, _ := strconv.Atoi(port)
	return number
}

// cpu is the CPU time of the service so far, in seconds, over all its processes.
func (s *service) cpu() float64 {
	t, err := readCPU(s.pid())
	if err != nil {
		return s.usedBefore
	}
	return s.usedBefore + t.own + t.reaped
}

// stop asks the process to end and waits for that.
func (s *service) stop() error {
	if s.process == nil {
		return nil
	}
	s.usedBefore = s.cpu()
	return s.process.Terminate(gracePeriod)
}

// close ends the process and gives everything back. A nil service has nothing.
func (s *service) close() error {
	if s == nil {
		return nil
	}
	err := s.stop()
	if s.conn != nil {
		err = errors.Join(err, s.conn.Close())
		s.conn = nil
	}
	for _, hold := range s.held {
		hold.Close()
	}
	return err
}
