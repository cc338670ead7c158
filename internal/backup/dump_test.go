package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rowsOfOne = "1\ta\n2\t\\N\n"

// fakeSource is an inventory with one table. Its function fields break it.
type fakeSource struct {
	inventoryv1.UnimplementedInventoryServiceServer

	describe func(call int) string // descriptors
	dump     func(call int) error  // nil for a dump that comes to its end

	mu                sync.Mutex
	described, dumped int
	snapshots, open   int
	request           *inventoryv1.DumpRequest
}

func (f *fakeSource) Register(r grpc.ServiceRegistrar) {
	inventoryv1.RegisterInventoryServiceServer(r, f)
}

func descriptors(columns string) string {
	return `{"server_version": 150018, "tables": [{"oid": 7, "schema": "public", "name": "one", "kind": "ordinary", "replica_identity": "d", "columns": [` + columns + `]}]}`
}

const twoColumns = `{"name": "a", "type": "integer", "type_oid": 23}, {"name": "b", "type": "text", "type_oid": 25}, {"name": "c", "type": "text", "type_oid": 25, "generated": "s"}`

func (f *fakeSource) GetInventory(context.Context, *inventoryv1.GetInventoryRequest) (*inventoryv1.GetInventoryResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.described++
	text := descriptors(twoColumns)
	if f.describe != nil {
		text = f.describe(f.described)
	}
	return &inventoryv1.GetInventoryResponse{ServerId: "server", Descriptors: []byte(text)}, nil
}

func (f *fakeSource) OpenSnapshot(_ *inventoryv1.OpenSnapshotRequest, stream grpc.ServerStreamingServer[inventoryv1.OpenSnapshotResponse]) error {
	f.mu.Lock()
	f.snapshots++
	f.open++
	id := fmt.Sprint(f.snapshots)
	f.mu.Unlock()
	position := &changev1.Position{LogId: strings.Repeat("ab", 16), Lsn: 0x20}
	return stream.Send(&inventoryv1.OpenSnapshotResponse{Event: &inventoryv1.OpenSnapshotResponse_Snapshot{Snapshot: &inventoryv1.Snapshot{SnapshotId: id, Position: position}}})
}

func (f *fakeSource) CloseSnapshot(context.Context, *inventoryv1.CloseSnapshotRequest) (*inventoryv1.CloseSnapshotResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	return &inventoryv1.CloseSnapshotResponse{}, nil
}

func (f *fakeSource) Dump(in *inventoryv1.DumpRequest, stream grpc.ServerStreamingServer[inventoryv1.DumpResponse]) error {
	f.mu.Lock()
	f.dumped++
	f.request = in
	call := f.dumped
	f.mu.Unlock()
	if err := stream.Send(&inventoryv1.DumpResponse{Data: []byte(rowsOfOne[:3]), Rows: 1}); err != nil {
		return err
	}
	if f.dump != nil {
		if err := f.dump(call); err != nil {
			if errors.Is(err, errBreakOff) {
				return nil
			}
			return err
		}
	}
	return stream.Send(&inventoryv1.DumpResponse{Data: []byte(rowsOfOne[3:]), Rows: 1, End: &inventoryv1.DumpEnd{Rows: 2, Bytes: int64(len(rowsOfOne))}})
}

var errBreakOff = errors.New("the stream ends without an end")

func rewritten() error {
	return rpc.Errorf(codes.FailedPrecondition, "TABLE_REWRITTEN", "table public.one was truncated")
}

// run dumps from a fake source and returns what was said.
func (f *fakeSource) run(t *testing.T, dir, compression string) (*Manifest, []string, error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer()
	f.Register(server)
	go func() { _ = server.Serve(listener) }()
	defer server.Shutdown()
	conn, err := rpc.Dial(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var said []string
	m, err := Dump(t.Context(), inventoryv1.NewInventoryServiceClient(conn), Options{
		Dir: dir, Compression: compression, Workers: 2, Progress: &Progress{}, Say: func(line string) { said = append(said, line) },
	})
	if f.open != 0 {
		t.Errorf("%d snapshots are left open", f.open)
	}
	return m, said, err
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	for _, path := range []string{dir, dir + PartialSuffix} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left", path)
		}
	}
}

func check(t *testing.T, dir string) (*Backup, error) {
	t.Helper()
	return Check(t.Context(), dir, 2, func(int64) {})
}

func TestDump(t *testing.T) {
	for _, compression := range []string{CompressionNone, CompressionZstd} {
		dir := filepath.Join(t.TempDir(), "backup")
		source := &fakeSource{}
		m, said, err := source.run(t, dir, compression)
		if err != nil || len(said) > 0 {
			t.Fatal(err, said)
		}
		if r := source.request; !slices.Equal(r.GetColumns(), []string{"a", "b"}) || !slices.Equal(r.GetColumnTypes(), []uint32{23, 25}) {
			t.Errorf("asked for %v", r)
		}
		b, err := check(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		if rows, bytes, _ := b.Manifest.Totals(); rows != 2 || bytes != int64(len(rowsOfOne)) || b.Manifest.ID != m.ID || b.Manifest.LSN != "0/20" {
			t.Errorf("the manifest is %+v", b.Manifest)
		}
		rows, err := b.Open(b.Manifest.Tables[0].Files[0])
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 100)
		n := 0
		for err == nil {
			var more int
			more, err = rows.Read(text[n:])
			n += more
		}
		rows.Close()
		if string(text[:n]) != rowsOfOne || err.Error() != "EOF" {
			t.Errorf("read %q, %v", text[:n], err)
		}
		if _, err := os.Lstat(filepath.Join(dir, lockName)); err == nil {
			t.Error("the lock is left")
		}
	}
}

// TestDumpBeginsAnew has the source change its tables under the dump.
func TestDumpBeginsAnew(t *testing.T) {
	for name, source := range map[string]*fakeSource{
		"rewritten": {dump: func(call int) error {
			if call == 1 {
				return rewritten()
			}
			return nil
		}},
		"snapshot lost": {dump: func(call int) error {
			if call == 1 {
				return rpc.Errorf(codes.NotFound, "SNAPSHOT_GONE", "the snapshot is gone")
			}
			return nil
		}},
		"altered": {describe: func(call int) string {
			if call == 1 {
				return descriptors(`{"name": "a", "type": "integer", "type_oid": 23}`)
			}
			return descriptors(twoColumns)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "backup")
			_, said, err := source.run(t, dir, CompressionZstd)
			if err != nil || source.snapshots != 2 || len(said) != 1 || !strings.Contains(said[0], "begins anew") {
				t.Errorf("%d snapshots, said %q, %v", source.snapshots, said, err)
			}
			b, err := check(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			if rows, _, _ := b.Manifest.Totals(); rows != 2 {
				t.Errorf("%d rows", rows)
			}
		})
	}
}

// TestDumpReconnects has a connection break: the file is begun anew, from the same snapshot.
func TestDumpReconnects(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backup")
	source := &fakeSource{dump: func(call int) error {
		if call == 1 {
			return rpc.Errorf(codes.Unavailable, "POSTGRES_UNAVAILABLE", "the connection broke")
		}
		return nil
	}}
	_, said, err := source.run(t, dir, CompressionZstd)
	if err != nil || source.snapshots != 1 || len(said) != 1 || !strings.Contains(said[0], "data/00001.000.copy.zst is begun anew") {
		t.Errorf("%d snapshots, said %q, %v", source.snapshots, said, err)
	}
	b, err := check(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if rows, _, _ := b.Manifest.Totals(); rows != 2 {
		t.Errorf("%d rows", rows)
	}
}

// TestDumpFails leaves nothing behind.
func TestDumpFails(t *testing.T) {
	for name, test := range map[string]struct {
		dump func(int) error
		want string
	}{
		"always rewritten": {func(int) error { return rewritten() }, "during each of 5 dumps"},
		"broken off":       {func(int) error { return errBreakOff }, "dump table public.one: the dump broke off"},
		"refused":          {func(int) error { return rpc.Errorf(codes.PermissionDenied, "PERMISSION_DENIED", "no SELECT") }, "no SELECT"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "backup")
			_, _, err := (&fakeSource{dump: test.dump}).run(t, dir, CompressionZstd)
			if err == nil || !strings.Contains(rpc.Message(err), test.want) {
				t.Errorf("got %v", err)
			}
			nothingLeft(t, dir)
		})
	}
}

func TestDiskFull(t *testing.T) {
	err := explain(fmt.Errorf("dump table a: %w", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}))
	if !strings.Contains(err.Error(), "the disk is full; nothing is left of this dump") {
		t.Errorf("got %v", err)
	}
}

// TestDirectory has two dumps of one name, what a dump left that was killed, and somebody's own directory.
func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backup")
	first, err := newDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newDirectory(dir); !errors.Is(err, ErrWriting) {
		t.Errorf("two at once: %v", err)
	}
	if err := os.WriteFile(filepath.Join(first.partial, dataDir, "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = first.lock.Close() // as the end of the process does
	second, err := newDirectory(dir)
	if err != nil || !second.begunAnew {
		t.Fatalf("after a kill: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(second.partial, dataDir)); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	second.abandon()
	nothingLeft(t, dir)
	if err := os.MkdirAll(filepath.Join(dir+PartialSuffix, "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := newDirectory(dir); !errors.Is(err, ErrExists) {
		t.Errorf("somebody's own: %v", err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newDirectory(dir); !errors.Is(err, ErrExists) {
		t.Errorf("a file: %v", err)
	}
}
