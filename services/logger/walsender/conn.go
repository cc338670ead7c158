// Package walsender speaks PostgreSQL's streaming replication protocol over one walsender session. It hands out the
// messages as they come, without a copy, never holds more than one of them, and never sends a position that it was not
// given.
//
// Source: "Streaming Replication Protocol" in PostgreSQL's documentation, walsender.c.
package walsender

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// Conn is one walsender session. Commands are for one goroutine at a time; once Start has returned, Receive is for one
// goroutine, and SendStatus and Close may be called by any.
type Conn struct {
	pg     *pgconn.PgConn
	stream stream

	write  sync.Mutex // serializes status updates
	status [statusMessageBytes]byte
}

// Open opens a session. maxMessageBytes is the largest message that Receive takes.
func Open(ctx context.Context, url, application string, maxMessageBytes int) (*Conn, error) {
	config, err := postgres.Config(url, application)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["replication"] = "database"
	config.DialFunc = dialer(config.DialFunc)
	c := &Conn{}
	// pgconn reads ahead; the messages after the answer to START_REPLICATION are ours to read.
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		c.stream = stream{source: lowWater{source: r}, max: maxMessageBytes}
		return pgproto3.NewFrontend(&framed{source: r}, w)
	}
	c.pg, err = pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return nil, fmt.Errorf("open replication connection to PostgreSQL at %s: %w", postgres.Redact(url), err)
	}
	return c, nil
}

// PID is the process id of the walsender.
func (c *Conn) PID() uint32 { return c.pg.PID() }

// Close ends the session at once, also a Receive or SendStatus that waits. It may be called more than once.
func (c *Conn) Close() error { return c.pg.Conn().Close() } //nolint:wrapcheck // nothing to add

// Interrupt makes a Receive that waits, and every later one, fail at once. Status updates can still be sent.
func (c *Conn) Interrupt() {
	_ = c.pg.Conn().SetReadDeadline(time.Now()) // it fails when the connection is closed, and Receive with it
}

// UseMemory lets the walsender hold so many bytes of transactions that have not been sent (logical_decoding_work_mem), unless somebody has
// set that for the server, the database or the role. 0 changes nothing.
func (c *Conn) UseMemory(ctx context.Context, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	const unit = 1 << 10
	_, err := c.query(ctx, fmt.Sprintf(`SELECT pg_catalog.set_config(name, '%dkB', false) FROM pg_catalog.pg_settings
		WHERE name = 'logical_decoding_work_mem' AND source = 'default'`, bytes/unit))
	return err
}

// System is what IDENTIFY_SYSTEM tells.
type System struct {
	Identifier string
	Timeline   int32
	Flushed    change.LSN // end of the WAL that is safe on the server's disk
	Database   string
}

// Identify asks who the server is.
func (c *Conn) Identify(ctx context.Context) (System, error) {
	row, err := c.row(ctx, "IDENTIFY_SYSTEM", 4)
	if err != nil {
		return System{}, err
	}
	timeline, err := strconv.ParseInt(row[1], 10, 32)
	if err != nil {
		return System{}, fmt.Errorf("read timeline: %w", err)
	}
	flushed, err := change.ParseLSN(row[2])
	if err != nil {
		return System{}, fmt.Errorf("read WAL position: %w", err)
	}
	return System{Identifier: row[0], Timeline: int32(timeline), Flushed: flushed, Database: row[3]}, nil
}

// Switch says that the history of a timeline leaves its ancestor Timeline at the position At.
type Switch struct {
	Timeline int32
	At       change.LSN
}

// History returns the switches from the oldest ancestor to the given timeline.
func (c *Conn) History(ctx context.Context, timeline int32) ([]Switch, error) {
	if timeline <= 1 {
		return nil, nil
	}
	row, err := c.row(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline), 2)
	if err != nil {
		return nil, err
	}
	return parseHistory(row[1])
}

func parseHistory(file string) ([]Switch, error) {
	var switches []Switch
	for line := range strings.Lines(file) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("read timeline history: unexpected line %q", line)
		}
		timeline, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read timeline history: %w", err)
		}
		at, err := change.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("read timeline history: %w", err)
		}
		switches = append(switches, Switch{Timeline: int32(timeline), At: at})
	}
	return switches, nil
}

// NamePattern is what a slot's and a publication's name must match, so that the replication commands, which know
// no general quoting, take them as they are.
var NamePattern = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,54}$`)

// CreateSlot creates a permanent logical slot for pgoutput. It waits for the transactions that write at this moment. The slot
// delivers every transaction that commits after the returned position.
func (c *Conn) CreateSlot(ctx context.Context, name string) (change.LSN, error) {
	row, err := c.row(ctx, "CREATE_REPLICATION_SLOT "+postgres.Ident(name)+" LOGICAL pgoutput (SNAPSHOT 'nothing')", 4)
	if err != nil {
		return 0, err
	}
	lsn, err := change.ParseLSN(row[1])
	if err != nil {
		return 0, fmt.Errorf("read the slot's position: %w", err)
	}
	return lsn, nil
}

// DropSlot drops a slot that nobody uses.
func (c *Conn) DropSlot(ctx context.Context, name string) error {
	_, err := c.query(ctx, "DROP_REPLICATION_SLOT "+postgres.Ident(name))
	return err
}

// row runs a command and returns its only row.
func (c *Conn) row(ctx context.Context, command string, columns int) ([]string, error) {
	results, err := c.query(ctx, command)
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < columns {
		return nil, fmt.Errorf("%s: unexpected answer", command)
	}
	row := make([]string, columns)
	for i := range row {
		row[i] = string(results[0].Rows[0][i])
	}
	return row, nil
}

func (c *Conn) query(ctx context.Context, command string) ([]*pgconn.Result, error) {
	results, err := c.pg.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return results, nil
}

// gatherer is a connection whose window can be made so small that the server's kernel gathers what it sends.
type gatherer interface {
	// narrow does that, if it is possible now, and tells whether it was.
	narrow() bool
}

// fullSegments makes the server send some, from which the kernel learns their size; see socket.
const fullSegments = "SELECT pg_catalog.repeat('x', 65536)"

// Start begins streaming from the slot's own confirmed position, with logical messages. pieces says that large transactions are
// sent in pieces while they run (protocol version 2); else everything comes whole, after its commit (protocol version 1).
func (c *Conn) Start(ctx context.Context, slot string, publications []string, serverVersion int, pieces bool) error {
	local, _ := c.pg.Conn().(gatherer) // not an encrypted one
	if local != nil {
		if _, err := c.query(ctx, fullSegments); err != nil {
			return err
		}
	}
	options := "proto_version '1'"
	if pieces {
		options = "proto_version '2', streaming 'on'"
	}
	options += ", publication_names '" + strings.Join(publications, ",") + "', messages 'true'"
	const versionWithOrigin = 160000
	if serverVersion >= versionWithOrigin {
		options += ", origin 'any'"
	}
	command := "START_REPLICATION SLOT " + postgres.Ident(slot) + " LOGICAL 0/0 (" + options + ")"
	frontend := c.pg.Frontend()
	frontend.SendQuery(&pgproto3.Query{String: command})
	if err := frontend.Flush(); err != nil {
		return fmt.Errorf("start replication from slot %s: %w", slot, err)
	}
	for {
		message, err := c.pg.ReceiveMessage(ctx)
		if err != nil {
			return fmt.Errorf("start replication from slot %s: %w", slot, err)
		}
		switch message := message.(type) {
		case *pgproto3.CopyBothResponse:
			if local == nil {
				c.stream.source.use(c.pg.Conn())
				return nil
			}
			c.stream.local = local
			c.stream.narrow()
			return nil
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("start replication from slot %s: %w", slot, pgconn.ErrorResponseToPgError(message))
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		default:
			return fmt.Errorf("start replication from slot %s: unexpected answer %T", slot, message)
		}
	}
}

const (
	statusMessageBytes = 1 + 4 + 1 + 8 + 8 + 8 + 8 + 1
	writeTimeout       = 15 * time.Second
)

// SendStatus sends a standby status update. written is what was received, durable what may be forgotten by the slot: it is
// sent as flushed and as applied. Both must be real positions; zero is refused, because the server would take it for
// "unchanged" and other clients for "everything".
func (c *Conn) SendStatus(written, durable change.LSN, replyRequested bool) error {
	if durable == 0 || written < durable {
		return fmt.Errorf("send status: refused to report written %v and durable %v", written, durable)
	}
	c.write.Lock()
	defer c.write.Unlock()
	buf := append(c.status[:0], 'd', 0, 0, 0, statusMessageBytes-1, 'r')
	buf = appendUint64(buf, uint64(written))
	buf = appendUint64(buf, uint64(durable))
	buf = appendUint64(buf, uint64(durable))
	buf = appendUint64(buf, uint64(change.TimestampOf(time.Now())))
	if replyRequested {
		buf = append(buf, 1)
	} else {
		buf = append(buf, 0)
	}
	conn := c.pg.Conn()
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("send status: %w", err)
	}
	if _, err := conn.Write(buf); err != nil {
		return fmt.Errorf("send status: %w", err)
	}
	return nil
}
