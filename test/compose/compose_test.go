// Package compose starts what docker-compose.yml describes, without Docker: the same commands with the same environment, with
// the names and ports of the containers replaced by those of this machine, and real PostgreSQL servers with the same
// settings and the same scripts. So the file, the roles' privileges and the variables are known to work together.
package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/compare"
	"github.com/seed0419d559/syncline/internal/pgserver"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// binary stands for the image.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "syncline-compose-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "syncline")
	build := exec.Command("go", "build", "-o", binary, "github.com/seed0419d559/syncline/cmd/syncline")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build syncline: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

const (
	healthLimit  = time.Minute
	oneShotLimit = 2 * time.Minute
	equalLimit   = time.Minute
	postgresPort = "5432"
)

// project is everything that is up.
type project struct {
	t         *testing.T
	file      file
	databases map[string]*pgtest.Server
	ports     map[string]string // local port by "service:port"
	volumes   map[string]string // local directory by volume
	running   map[string]*exec.Cmd
	output    map[string]*bytes.Buffer // to be read when the process has ended
}

func newProject(t *testing.T) *project {
	p := &project{
		t: t, file: readFile(t), databases: map[string]*pgtest.Server{}, ports: map[string]string{}, volumes: map[string]string{},
		running: map[string]*exec.Cmd{}, output: map[string]*bytes.Buffer{},
	}
	for _, name := range p.file.volumes {
		p.volumes[name] = t.TempDir()
	}
	for _, s := range p.file.order(t) {
		if s.database {
			p.startDatabase(s)
			continue
		}
		for _, name := range []string{"SYNCLINE_GRPC", "SYNCLINE_HTTP"} {
			port, hold, err := pgserver.ReservePort()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { hold.Close() })
			_, inside, _ := net.SplitHostPort(p.environment(s)[name])
			p.ports[s.name+":"+inside] = strconv.Itoa(port)
		}
	}
	t.Cleanup(func() {
		p.down()
		if t.Failed() {
			for name, out := range p.output {
				t.Logf("%s printed:\n%s", name, tail(out.String()))
			}
		}
	})
	return p
}

func tail(text string) string { return text[max(0, len(text)-4000):] }

// startDatabase does what the image of PostgreSQL does when its volume is new.
func (p *project) startDatabase(s *service) {
	p.t.Helper()
	var settings []pgtest.Option
	for i, word := range s.command {
		if word == "-c" {
			name, value, _ := strings.Cut(s.command[i+1], "=")
			settings = append(settings, pgtest.WithSetting(name, value))
		}
	}
	server := pgtest.New(p.t, append(settings, pgtest.WithFsync(false))...)
	p.databases[s.name] = server
	p.ports[s.name+":"+postgresPort] = strconv.Itoa(server.Port())
	admin := pgtest.Connect(p.t, server.URL("postgres"))
	pgtest.Exec(p.t, admin, "CREATE DATABASE "+s.environment["POSTGRES_DB"])
	conn := pgtest.Connect(p.t, server.URL(s.environment["POSTGRES_DB"]))
	for _, m := range s.mounts {
		if strings.HasPrefix(m.to, "/docker-entrypoint-initdb.d/") {
			script, err := os.ReadFile(filepath.Join(root, m.from))
			if err != nil {
				p.t.Fatal(err)
			}
			pgtest.Exec(p.t, conn, string(script))
		}
	}
}

func (p *project) environment(s *service) map[string]string {
	all := maps.Clone(p.file.image)
	maps.Copy(all, s.environment)
	return all
}

var hostAndPort = regexp.MustCompile(`[a-z0-9][a-z0-9.-]*:\d+`)

// local puts this machine's addresses and directories in place of a service's.
func (p *project) local(s *service, text string) string {
	text = hostAndPort.ReplaceAllStringFunc(text, func(address string) string {
		host, port, _ := strings.Cut(address, ":")
		if host == "0.0.0.0" || host == "127.0.0.1" {
			host = s.name
		}
		local, ok := p.ports[host+":"+port]
		if !ok {
			p.t.Fatalf("service %s: nobody listens at %s", s.name, address)
		}
		return "127.0.0.1:" + local
	})
	for _, m := range s.mounts {
		text = strings.ReplaceAll(text, m.to, p.volumes[m.from])
	}
	return text
}

// command is a command within a service's container.
func (p *project) command(ctx context.Context, s *service, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary)
	for _, arg := range args {
		cmd.Args = append(cmd.Args, p.local(s, arg))
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	for name, value := range p.environment(s) {
		cmd.Env = append(cmd.Env, name+"="+p.local(s, value))
	}
	return cmd
}

// up starts everything as depends_on says, and returns when the services that run once have ended.
func (p *project) up() {
	p.t.Helper()
	for _, s := range p.file.order(p.t) {
		switch {
		case s.database:
		case s.health == nil:
			p.runOnce(s)
		default:
			p.start(s)
		}
	}
}

func (p *project) start(s *service) {
	p.t.Helper()
	cmd := p.command(context.Background(), s, s.command)
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.running[s.name], p.output[s.name] = cmd, out
	pgtest.Eventually(p.t, healthLimit, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if answer, err := p.command(ctx, s, s.health[2:]).CombinedOutput(); err != nil {
			return fmt.Errorf("service %s is not healthy: %w: %s", s.name, err, answer)
		}
		return nil
	})
}

func (p *project) runOnce(s *service) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), oneShotLimit)
	defer cancel()
	if out, err := p.command(ctx, s, s.command).CombinedOutput(); err != nil {
		p.t.Fatalf("service %s: %v: %s", s.name, err, out)
	}
}

// down ends the processes as `docker compose stop` does.
func (p *project) down() {
	for name, cmd := range p.running {
		err := cmd.Process.Signal(syscall.SIGTERM)
		if waited := cmd.Wait(); err == nil {
			err = waited
		}
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			p.t.Errorf("service %s ended with %v", name, err)
		}
		delete(p.running, name)
	}
}

// equal waits until every other database holds what the primary's holds.
func (p *project) equal() {
	p.t.Helper()
	primary := p.databases["primary-db"].URL(p.file.services["primary-db"].environment["POSTGRES_DB"])
	for _, name := range slices.Sorted(maps.Keys(p.databases)) {
		replica := p.databases[name].URL(p.file.services[name].environment["POSTGRES_DB"])
		if replica == primary {
			continue
		}
		a, b := pgtest.Connect(p.t, primary), pgtest.Connect(p.t, replica)
		var report compare.Report
		pgtest.Eventually(p.t, equalLimit, func() (err error) {
			if report, err = pgtest.Compare(p.t.Context(), a, b, pgtest.CompareOptions{}); err == nil && !report.Equal() {
				err = fmt.Errorf("%s: %s", name, report)
			}
			return err
		})
		if report.Rows() == 0 {
			p.t.Errorf("%s: nothing was compared", name)
		}
	}
}

// TestUp brings the project up, writes to the primary as its application would, and finds the rows on both replicas; and
// again after everything was stopped and started.
func TestUp(t *testing.T) {
	p := newProject(t)
	p.up()
	p.equal()
	app := strings.Replace(p.databases["primary-db"].URL("company"), "postgres@", "app@", 1)
	write := func() {
		conn := pgtest.Connect(t, app)
		pgtest.Exec(t, conn, `INSERT INTO shop.customers (name) SELECT 'new customer ' || i FROM generate_series(1, 100) i`)
		pgtest.Exec(t, conn, `UPDATE shop.orders SET total = total + 1 WHERE id % 10 = 0`)
		pgtest.Exec(t, conn, `DELETE FROM shop.orders WHERE id % 100 = 1`)
	}
	write()
	p.equal()
	p.down()
	write()
	p.up()
	write()
	p.equal()
}
