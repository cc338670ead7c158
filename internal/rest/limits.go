package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/seed0419d559/syncline/internal/rpc"
)

// bounded answers a request in its place among the others, after all of it has come.
func (h *Handler) bounded(w http.ResponseWriter, r *http.Request) {
	leave, err := enter(h.requests, "requests")
	if err != nil {
		WriteError(w, err)
		return
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	answer := &writer{ResponseWriter: w, control: http.NewResponseController(w), stall: h.limits.Stall, gone: cancel}
	body, err := h.read(answer, r)
	if err != nil {
		WriteError(answer, err)
		return
	}
	r = r.WithContext(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	defer answer.extend() // the server writes the end
	h.mux.ServeHTTP(answer, r)
}

// enter takes a place, or refuses at once: whoever waits would hold one too.
func enter(places chan struct{}, what string) (leave func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		return nil, rpc.Errorf(codes.ResourceExhausted, reasonTooManyRequests, "%d %s are being answered, which is the limit; try again later", cap(places), what)
	}
}

// read returns the body. The time in which it has to come ends with it, so that it does not end a stream.
func (h *Handler) read(w *writer, r *http.Request) ([]byte, error) {
	if err := w.control.SetReadDeadline(time.Now().Add(h.limits.Body)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("bound the time of a request: %w", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w.ResponseWriter, r.Body, h.limits.BodyBytes))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, rpc.Errorf(codes.ResourceExhausted, reasonBodyTooLarge, "the body has more than %d bytes, which is the limit", large.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, rpc.Errorf(codes.DeadlineExceeded, reasonBodyTimeout, "the body did not come within %s", h.limits.Body)
	case err != nil:
		return nil, rpc.Errorf(codes.InvalidArgument, reasonBody, "read body: %w", err)
	}
	if err := w.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("bound the time of a request: %w", err)
	}
	return body, nil
}

// writer cuts off a client that takes nothing for too long. What is written after that, or after the client has gone, is thrown
// away, and the call is told to end.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	gone    context.CancelFunc
	broken  bool
}

func (w *writer) Write(data []byte) (int, error) {
	if w.broken {
		return len(data), nil
	}
	w.extend()
	if _, err := w.ResponseWriter.Write(data); err != nil {
		w.end()
	}
	return len(data), nil
}

// FlushError is what http.ResponseController calls.
func (w *writer) FlushError() error {
	if w.broken {
		return nil
	}
	w.extend()
	if err := w.control.Flush(); err != nil {
		w.end()
	}
	return nil
}

func (w *writer) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(w.stall)) } // tests have writers without one

func (w *writer) end() {
	w.broken = true
	w.gone()
}

// Unwrap is what http.ResponseController looks for.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
