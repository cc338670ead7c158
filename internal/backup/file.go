package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// windowBytes bounds what compression remembers, and so its memory on both sides.
const windowBytes = 2 << 20

// hashed writes to a file and takes the hash and the size of what it writes.
type hashed struct {
	file *os.File
	sum  hash.Hash
	size int64
}

func (h *hashed) Write(p []byte) (int, error) {
	n, err := h.file.Write(p)
	h.sum.Write(p[:n])
	h.size += int64(n)
	return n, err
}

// rowWriter writes the rows of one file.
type rowWriter struct {
	name  string
	file  hashed
	zstd  *zstd.Encoder // nil without compression
	bytes int64         // before compression
}

func createRows(dir, name, compression string) (*rowWriter, error) {
	f, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(name)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	w := &rowWriter{name: name, file: hashed{file: f, sum: sha256.New()}}
	if compression == CompressionZstd {
		w.zstd, err = zstd.NewWriter(&w.file, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(windowBytes), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("compress: %w", err), f.Close())
		}
	}
	return w, nil
}

func (w *rowWriter) Write(p []byte) (int, error) {
	w.bytes += int64(len(p))
	if w.zstd != nil {
		return w.zstd.Write(p)
	}
	return w.file.Write(p)
}

// finish makes the file durable and describes it. The name in its directory is not durable yet.
func (w *rowWriter) finish(rows int64) (File, error) {
	var err error
	if w.zstd != nil {
		err = w.zstd.Close()
	}
	if err == nil {
		err = w.file.file.Sync()
	}
	if err = errors.Join(err, w.file.file.Close()); err != nil {
		return File{}, err
	}
	return File{Name: w.name, Size: w.file.size, SHA256: hex.EncodeToString(w.file.sum.Sum(nil)), Rows: rows, Bytes: w.bytes}, nil
}

// abandon closes the file of a dump that broke off.
func (w *rowWriter) abandon() {
	if w.zstd != nil {
		_ = w.zstd.Close()
	}
	_ = w.file.file.Close()
}

// Rows reads the rows of one file and compares it with its description.
type Rows struct {
	about File
	file  *os.File
	raw   *hashing
	zstd  *zstd.Decoder
	in    io.Reader
	bytes int64
}

// hashing takes the hash and the size of what is read through it.
type hashing struct {
	in   io.Reader
	sum  hash.Hash
	size int64
}

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.in.Read(p)
	h.sum.Write(p[:n])
	h.size += int64(n)
	return n, err
}

// Open opens a file of rows.
func (b *Backup) Open(f File) (*Rows, error) {
	file, err := os.Open(filepath.Join(b.Dir, filepath.FromSlash(f.Name)))
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	r := &Rows{about: f, file: file, raw: &hashing{in: file, sum: sha256.New()}}
	r.in = r.raw
	if b.Manifest.Compression == CompressionZstd {
		r.zstd, err = zstd.NewReader(r.raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(windowBytes))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: file %s: %w", ErrDamaged, f.Name, err), file.Close())
		}
		r.in = r.zstd
	}
	return r, nil
}

// Read ends with io.EOF only when the whole file has been read and is as it was written; with ErrDamaged otherwise.
func (r *Rows) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.bytes += int64(n)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("%w: read file %s: %w", ErrDamaged, r.about.Name, err)
	}
	// What may follow the last frame belongs to the file too.
	if _, err := io.Copy(io.Discard, r.raw); err != nil {
		return n, fmt.Errorf("read file %s: %w", r.about.Name, err)
	}
	if r.raw.size != r.about.Size || r.bytes != r.about.Bytes || hex.EncodeToString(r.raw.sum.Sum(nil)) != r.about.SHA256 {
		return n, fmt.Errorf("%w: file %s has changed since it was checked", ErrDamaged, r.about.Name)
	}
	return n, io.EOF
}

// Close closes the file.
func (r *Rows) Close() {
	if r.zstd != nil {
		r.zstd.Close()
	}
	_ = r.file.Close()
}
