package rpc

import (
	"io"
	"log/slog"
)

// interruptedForTest is closed when the server has begun to stop.
func (s *Server) interruptedForTest() <-chan struct{} { return s.stopping.Done() }

func textLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
