package walsender

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func message(kind byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

func data(size int) []byte {
	body := append([]byte{'w'}, make([]byte, dataHead-1+size)...)
	for i := range size {
		body[dataHead+i] = byte(i * 7)
	}
	return message('d', body)
}

func TestReceiveWhateverTheReadsAre(t *testing.T) {
	var wire []byte
	sizes := []int{0, 1, 100, bufferBytes - dataHead - headerBytes, bufferBytes - dataHead, bufferBytes, 3 * bufferBytes, 5, 2 * bufferBytes, 9}
	for _, size := range sizes {
		wire = append(wire, data(size)...)
	}
	for name, source := range map[string]io.Reader{
		"whole": bytes.NewReader(wire), "bytes": iotest.OneByteReader(bytes.NewReader(wire)),
		"halves": iotest.HalfReader(bytes.NewReader(wire)), "late error": iotest.DataErrReader(bytes.NewReader(wire)),
	} {
		t.Run(name, func(t *testing.T) {
			c := &Conn{stream: stream{source: lowWater{source: source}, max: 1 << 20}}
			for _, size := range sizes {
				m, err := c.Receive()
				if err != nil || !bytes.Equal(m.Data, data(size)[headerBytes+dataHead:]) {
					t.Fatalf("%d bytes: got %d, %v", size, len(m.Data), err)
				}
			}
			if _, err := c.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestReceiveRefuses(t *testing.T) {
	for name, wire := range map[string][]byte{
		"length below zero": {'d', 0, 0, 0, 3}, "unknown type": message('?', nil), "short data": message('d', []byte{'w', 1}),
		"short keepalive": message('d', []byte{'k', 0}), "empty": message('d', nil), "copy done": message('c', nil), "cut": data(10)[:12],
		"bad error": message('E', []byte{'S'}),
	} {
		c := &Conn{stream: stream{source: lowWater{source: bytes.NewReader(wire)}, max: 1 << 20}}
		if m, err := c.Receive(); err == nil {
			t.Errorf("%s: got %+v", name, m)
		}
	}
}

func TestTooLargeCanBeReadInPieces(t *testing.T) {
	wire := append(data(5), data(2<<20)...)
	c := &Conn{stream: stream{source: lowWater{source: iotest.HalfReader(bytes.NewReader(wire))}, max: 1 << 20}}
	if _, err := c.Receive(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Receive()
	var large *TooLargeError
	if !errors.As(err, &large) {
		t.Fatal(err)
	}
	body, err := io.ReadAll(large.Body)
	if err != nil || !bytes.Equal(body, data(2 << 20)[headerBytes+dataHead:]) {
		t.Errorf("got %d bytes, %v", len(body), err)
	}
}

func TestFramedNeverReadsOn(t *testing.T) {
	source := bytes.NewReader(append(message('A', []byte("one")), message('B', make([]byte, 10000))...))
	f := &framed{source: source}
	buf := make([]byte, 100)
	if n, err := io.ReadAtLeast(f, buf, 5); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := f.Read(buf); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if source.Len() != 10005 {
		t.Errorf("%d bytes are left", source.Len())
	}
}

func TestHistory(t *testing.T) {
	got, err := parseHistory("1\t0/3000000\tno recovery target specified\n\n2\t16/B374D848\tbefore # x\n")
	if err != nil || len(got) != 2 || got[0] != (Switch{1, 0x3000000}) || got[1] != (Switch{2, 0x16B374D848}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"1", "x 0/0", "1 x"} {
		if got, err := parseHistory(bad); err == nil {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

// TestSession goes through a session with a real server: everything that another session commits arrives.
func TestSession(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	sql := pgtest.Connect(t, url)
	pgtest.Exec(t, sql, "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE PUBLICATION walsender_test FOR TABLE a")
	name := fmt.Sprintf("walsender_test_%d", sql.PgConn().PID())
	c, err := Open(t.Context(), url, "test", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	system, err := c.Identify(t.Context())
	if err != nil || system.Identifier == "" || system.Timeline != 1 || system.Flushed == 0 || !strings.HasPrefix(system.Database, "testsession") {
		t.Fatal(system, err)
	}
	start, err := c.CreateSlot(t.Context(), name)
	if err != nil || start == 0 {
		t.Fatal(start, err)
	}
	if err := c.Start(t.Context(), name, []string{"walsender_test"}, 150000, false); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, sql, "INSERT INTO a SELECT i, repeat('x', 1 + i * i * 40) FROM generate_series(0, 300) i")
	kinds := make(map[byte]int)
	for kinds['C'] == 0 {
		m, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Data != nil {
			kinds[m.Data[0]]++
		}
	}
	if kinds['I'] != 301 || kinds['R'] != 1 || kinds['B'] != 1 {
		t.Errorf("got %v", kinds)
	}
	if err := c.SendStatus(0, 0, true); err == nil {
		t.Error("position zero was sent")
	}
	if err := c.SendStatus(start, start+1, true); err == nil {
		t.Error("more was confirmed than received")
	}
	if err := c.SendStatus(start, start, true); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Data == nil && m.WALEnd > start {
			break
		}
	}
	waiting := make(chan error)
	go func() {
		for { // what came before Close may still be received
			if _, err := c.Receive(); err != nil {
				waiting <- err
				return
			}
		}
	}()
	c.Close()
	select {
	case <-waiting:
	case <-time.After(10 * time.Second):
		t.Error("Close does not end Receive")
	}
}
