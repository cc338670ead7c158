package backup

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/durable"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

const (
	// DefaultWorkers is how many files are written at the same time.
	DefaultWorkers = 4
	// filePages is how much of a table is in one file: 256 MiB of its main storage.
	filePages = 32768
	// maxRounds bounds how often a dump begins anew because the source changed its tables meanwhile.
	maxRounds = 5
)

// Options say what is dumped, and where to.
type Options struct {
	Dir              string
	Include, Exclude []string // patterns of tables
	Compression      string
	Workers          int
	FilePages        int64 // pages of a table in one file; 0 for the default
	Progress         *Progress
	Say              func(line string) // is told what somebody may want to read
}

// errChanged says that a table is not any more as it was when the snapshot was taken. A dump of a fresh snapshot is possible.
var errChanged = errors.New("the source altered its tables during the dump")

// Dump writes a backup from one snapshot of a primary. Nothing of the final name exists before it is whole. When it fails what was
// written is removed; when the process is killed the next dump of the same name removes it. If the source rewrites or alters tables
// meanwhile, the dump begins anew from a fresh snapshot, at most maxRounds times.
func Dump(ctx context.Context, client inventoryv1.InventoryServiceClient, o Options) (*Manifest, error) {
	if _, err := schema.ParseSelection(o.Include, o.Exclude); err != nil {
		return nil, err
	}
	dir, err := newDirectory(o.Dir)
	if err != nil {
		return nil, err
	}
	if dir.begunAnew {
		o.Say("a dump of this name broke off; it begins anew")
	}
	d := &dumper{client: client, options: o, dir: dir, restless: map[schema.Name]bool{}}
	m, err := d.rounds(ctx)
	if err == nil {
		err = dir.finish(m)
	}
	if err != nil {
		dir.abandon()
		return nil, explain(err)
	}
	return m, nil
}

// explain says what to do about a full disk, and about tables that never stand still.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk is full; nothing is left of this dump: make room, or choose another directory, and run it again: %w", err)
	case again(err):
		return fmt.Errorf("the source altered or rewrote tables during each of %d dumps; run it again when that is over, or leave the table out: %w", maxRounds, err)
	}
	return err
}

// again tells whether a fresh snapshot helps.
func again(err error) bool {
	return errors.Is(err, errChanged) || rpc.Reason(err) == "TABLE_REWRITTEN" || rpc.Reason(err) == "SNAPSHOT_GONE"
}

// dumper is one dump.
type dumper struct {
	client  inventoryv1.InventoryServiceClient
	options Options
	dir     *directory

	mu sync.Mutex
	// restless are tables that were rewritten under the dump: in the next round they come first, while the snapshot is young.
	restless map[schema.Name]bool
}

func (d *dumper) rounds(ctx context.Context) (m *Manifest, err error) {
	for range maxRounds {
		if m, err = d.round(ctx); err == nil || !again(err) {
			return m, err
		}
		d.options.Say("the dump begins anew from a fresh snapshot: " + rpc.Message(err))
		if err := d.dir.clear(); err != nil {
			return nil, err
		}
	}
	return nil, err
}

// round dumps everything from one snapshot.
func (d *dumper) round(ctx context.Context) (*Manifest, error) {
	before, err := d.describe(ctx)
	if err != nil {
		return nil, err
	}
	d.options.Progress.Begin("waiting for a snapshot", 0)
	snapshot, err := OpenSnapshot(ctx, d.client, d.options.Say)
	if err != nil {
		return nil, err
	}
	defer CloseSnapshot(ctx, d.client, snapshot.GetSnapshotId())
	fault.Point(FaultSnapshotOpened)
	ctx, lost := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { RenewSnapshot(ctx, d.client, snapshot.GetSnapshotId(), lost) })
	defer renewing.Wait()
	defer lost(nil)

	m := &Manifest{
		Format: Format, Version: Version, ID: newID(), CreateTime: time.Now().UTC().Truncate(time.Second), SourceServerID: before.server,
		PostgresVersion: before.database.ServerVersion, LogID: snapshot.GetPosition().GetLogId(), LSN: change.LSN(snapshot.GetPosition().GetLsn()).String(),
		Include: d.options.Include, Exclude: d.options.Exclude, Compression: d.options.Compression,
	}
	var after description
	group, dumping := errgroup.WithContext(ctx)
	group.Go(func() error { return d.tables(dumping, m, before.database, snapshot.GetSnapshotId()) })
	// What is the same before and after the snapshot was taken is that in it. The sequences' values are those from after it: they
	// cover every number that a row of the snapshot has.
	group.Go(func() (err error) {
		if after, err = d.describe(dumping); err != nil {
			return err
		}
		if !bytes.Equal(before.shape(), after.shape()) || before.server != after.server {
			return errChanged
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return nil, cause
		}
		return nil, err
	}
	return m, d.writeSchema(m, after.database)
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// description is the source as it was at one moment.
type description struct {
	server   string
	database schema.Database
}

func (d *dumper) describe(ctx context.Context) (description, error) {
	request := &inventoryv1.GetInventoryRequest{Tables: &inventoryv1.TableSelection{Include: d.options.Include, Exclude: d.options.Exclude}}
	answer, err := d.client.GetInventory(ctx, request, rpc.LargeAnswer())
	if err != nil {
		return description{}, fmt.Errorf("read the source's inventory: %w", err)
	}
	out := description{server: answer.GetServerId()}
	if err := json.Unmarshal(answer.GetDescriptors(), &out.database); err != nil {
		return description{}, fmt.Errorf("read the source's inventory: %w", err)
	}
	selection, err := schema.ParseSelection(d.options.Include, d.options.Exclude)
	if err != nil {
		return description{}, err
	}
	if err := out.database.Check(selection); err != nil {
		return description{}, err
	}
	// A sequence whose value may not be read could not be restored.
	if _, err := schema.SequenceStatements(out.database, out.database); err != nil {
		return description{}, err
	}
	return out, nil
}

// shape is what must not change while the snapshot is being taken: everything but estimates and the sequences' values.
func (d description) shape() []byte {
	shape := d.database
	shape.Tables = slices.Clone(shape.Tables)
	for i := range shape.Tables {
		t := &shape.Tables[i]
		t.EstimatedRows, t.EstimatedBytes, t.Pages, t.Filenode = 0, 0, 0, 0 // a table that is rewritten is noticed when it is dumped
	}
	shape.Sequences = slices.Clone(shape.Sequences)
	for i := range shape.Sequences {
		shape.Sequences[i].Value = nil
	}
	text, err := json.Marshal(shape)
	if err != nil {
		panic(err) // it came out of JSON
	}
	return text
}

func (d *dumper) writeSchema(m *Manifest, database schema.Database) error {
	text, err := json.MarshalIndent(database, "", " ")
	if err != nil {
		return fmt.Errorf("write schema: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(d.dir.partial, schemaName), text); err != nil {
		return fmt.Errorf("write schema: %w", err)
	}
	sum := sha256.Sum256(text)
	m.Schema = File{Name: schemaName, Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}
	return nil
}

// part is a range of a table's pages, which goes into one file.
type part struct {
	table   int // in the manifest
	name    string
	request *inventoryv1.DumpRequest
}

// tables dumps all tables that have rows of their own into the manifest, the largest first.
func (d *dumper) tables(ctx context.Context, m *Manifest, database schema.Database, snapshotID string) error {
	var parts [][]part
	var total int64
	for _, t := range database.Tables {
		if !t.HasRows() {
			continue
		}
		total += t.EstimatedBytes
		parts = append(parts, d.parts(len(m.Tables), t, snapshotID))
		m.Tables = append(m.Tables, Table{Schema: t.Schema, Name: t.Name, OID: t.OID, Columns: written(t), Files: []File{}})
	}
	slices.SortStableFunc(parts, func(a, b []part) int { return cmp.Compare(len(b), len(a)) })
	slices.SortStableFunc(parts, func(a, b []part) int { return d.calm(m, a) - d.calm(m, b) })
	d.options.Progress.Begin("dumping", total)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(d.options.Workers, 1))
	for _, p := range slices.Concat(parts...) {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			file, err := d.part(ctx, p)
			d.mu.Lock()
			defer d.mu.Unlock()
			t := &m.Tables[p.table]
			if err != nil {
				d.restless[t.FullName()] = again(err)
				return fmt.Errorf("dump table %s: %w", t.FullName(), err)
			}
			if file.Rows == 0 {
				return nil
			}
			t.Rows += file.Rows
			t.Bytes += file.Bytes
			t.Files = append(t.Files, file)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i := range m.Tables {
		slices.SortFunc(m.Tables[i].Files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	}
	return nil
}

// calm is 0 for the parts of a restless table, else 1.
func (d *dumper) calm(m *Manifest, parts []part) int {
	if d.restless[m.Tables[parts[0].table].FullName()] {
		return 0
	}
	return 1
}

// written are the columns whose values are in a backup: the others are computed.
func written(t schema.Table) []string {
	columns := []string{}
	for _, c := range t.Columns {
		if c.Generated == "" {
			columns = append(columns, c.Name)
		}
	}
	return columns
}

func (d *dumper) parts(number int, t schema.Table, snapshotID string) []part {
	var types []uint32
	for _, c := range t.Columns {
		if c.Generated == "" {
			types = append(types, c.TypeOID)
		}
	}
	suffix := ".copy"
	if d.options.Compression == CompressionZstd {
		suffix += ".zst"
	}
	pages := cmp.Or(d.options.FilePages, filePages)
	var parts []part
	for from := int64(0); from == 0 || from < t.Pages; from += pages {
		to := from + pages
		if to >= t.Pages {
			to = 0 // pages that were added since belong to the last file
		}
		parts = append(parts, part{number, fmt.Sprintf("%s/%05d.%03d%s", dataDir, number+1, len(parts), suffix), &inventoryv1.DumpRequest{
			SnapshotId: snapshotID, Schema: t.Schema, Table: t.Name, Columns: written(t), ColumnTypes: types,
			Format: inventoryv1.DumpFormat_DUMP_FORMAT_COPY_TEXT, FromPage: from, ToPage: to,
		}})
	}
	return parts
}
