package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	// lease is how long a snapshot outlives the process that dumps from it.
	lease = 30 * time.Second
	// closeTimeout bounds the call that gives a snapshot back.
	closeTimeout = 10 * time.Second
)

// attempts and retryPause bound how often one file is begun anew when the source cannot be reached, while its snapshot lives.
const (
	attempts   = 6
	retryPause = 2 * time.Second
)

// part writes one file. It is durable on return. Without rows there is none. A connection that breaks costs what the file has so far.
func (d *dumper) part(ctx context.Context, p part) (file File, err error) {
	for range attempts {
		if file, err = d.partOnce(ctx, p); err == nil || !rpc.IsTransient(err) || ctx.Err() != nil {
			return file, err
		}
		d.say(fmt.Sprintf("file %s is begun anew: %s", p.name, rpc.Message(err)))
		if err := os.Remove(filepath.Join(d.dir.partial, filepath.FromSlash(p.name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return File{}, err //nolint:wrapcheck // it names the file
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
	return file, err
}

// say tells people something from any goroutine.
func (d *dumper) say(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.options.Say(line)
}

func (d *dumper) partOnce(ctx context.Context, p part) (File, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.client.Dump(ctx, p.request)
	if err != nil {
		return File{}, err
	}
	w, err := createRows(d.dir.partial, p.name, d.options.Compression)
	if err != nil {
		return File{}, err
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("the dump broke off: %w", io.ErrUnexpectedEOF)
		}
		if err == nil {
			_, err = w.Write(answer.GetData())
		}
		if err != nil {
			w.abandon()
			return File{}, err
		}
		d.options.Progress.Rows.Add(answer.GetRows())
		d.options.Progress.Bytes.Add(int64(len(answer.GetData())))
		if end := answer.GetEnd(); end != nil {
			return d.end(w, end)
		}
	}
}

func (d *dumper) end(w *rowWriter, end *inventoryv1.DumpEnd) (File, error) {
	if w.bytes != end.GetBytes() {
		w.abandon()
		return File{}, fmt.Errorf("%d bytes arrived of %d that the source sent", w.bytes, end.GetBytes())
	}
	if end.GetRows() == 0 {
		w.abandon()
		return File{}, os.Remove(filepath.Join(d.dir.partial, filepath.FromSlash(w.name)))
	}
	file, err := w.finish(end.GetRows())
	if err == nil {
		fault.Point(FaultFileWritten)
	}
	return file, err
}

// OpenSnapshot opens a snapshot and says what it waits for.
func OpenSnapshot(ctx context.Context, client inventoryv1.InventoryServiceClient, say func(string)) (*inventoryv1.Snapshot, error) {
	stream, err := client.OpenSnapshot(ctx, &inventoryv1.OpenSnapshotRequest{Ttl: durationpb.New(lease)})
	if err != nil {
		return nil, err
	}
	last := ""
	for {
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if snapshot := answer.GetSnapshot(); snapshot != nil {
			return snapshot, nil
		}
		if reason := answer.GetWaiting().GetReason(); reason != last {
			say("waiting: " + reason)
			last = reason
		}
	}
}

// RenewSnapshot keeps a snapshot until ctx ends, and calls lost when it is gone before.
func RenewSnapshot(ctx context.Context, client inventoryv1.InventoryServiceClient, id string, lost context.CancelCauseFunc) {
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := client.RenewSnapshot(ctx, &inventoryv1.RenewSnapshotRequest{SnapshotId: id})
		if err != nil && rpc.Reason(err) == "SNAPSHOT_GONE" {
			lost(fmt.Errorf("renew snapshot: %w", err))
			return
		}
	}
}

// CloseSnapshot gives a snapshot back. If that fails its lease ends by itself.
func CloseSnapshot(ctx context.Context, client inventoryv1.InventoryServiceClient, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_, _ = client.CloseSnapshot(ctx, &inventoryv1.CloseSnapshotRequest{SnapshotId: id})
}
