package rpc

import (
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/encoding"
)

// zstdName is the value of the header grpc-encoding: every server understands it, and answers in it who asks in it.
const zstdName = "zstd"

// Blocks are a quarter of a megabyte, so a larger window finds nothing more and only takes memory, on both sides.
const (
	zstdWindowBytes    = 512 << 10
	zstdMaxWindowBytes = 8 << 20 // of other clients
)

func init() { encoding.RegisterCompressor(&zstdCompressor{}) }

// zstdCompressor compresses messages. Encoders and decoders are kept for the next message.
type zstdCompressor struct{ encoders, decoders sync.Pool }

func (*zstdCompressor) Name() string { return zstdName }

func (c *zstdCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	if e, ok := c.encoders.Get().(*zstdEncoder); ok {
		e.Reset(w)
		return e, nil
	}
	e, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(zstdWindowBytes), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return &zstdEncoder{e, c}, nil
}

type zstdEncoder struct {
	*zstd.Encoder
	owner *zstdCompressor
}

// Close ends the message. An encoder that failed is not used again.
func (e *zstdEncoder) Close() error {
	if err := e.Encoder.Close(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	e.owner.encoders.Put(e)
	return nil
}

// Decompress returns a reader of the message. gRPC bounds how much of it is read.
func (c *zstdCompressor) Decompress(r io.Reader) (io.Reader, error) {
	d, ok := c.decoders.Get().(*zstdDecoder)
	if !ok {
		fresh, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdMaxWindowBytes))
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		d = &zstdDecoder{fresh, c}
	}
	if err := d.Reset(r); err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return d, nil
}

type zstdDecoder struct {
	*zstd.Decoder
	owner *zstdCompressor
}

// Read gives the decoder back when the message is read to its end.
func (d *zstdDecoder) Read(p []byte) (int, error) {
	if d.Decoder == nil {
		return 0, io.EOF
	}
	n, err := d.Decoder.Read(p)
	if err == io.EOF { //nolint:errorlint // the decoder returns it as it is
		d.owner.decoders.Put(&zstdDecoder{d.Decoder, d.owner})
		d.Decoder = nil
	}
	return n, err //nolint:wrapcheck // a reader passes errors on
}
