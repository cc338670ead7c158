package rpc

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// interceptors stand between the wire and every handler. From the outside in: the call is logged, an error becomes a
// status, the guard is told, a panic becomes an error, the request is checked.
type interceptors struct {
	log      *slog.Logger
	table    Table
	guarding Guard           // nil takes every call
	stopping context.Context //nolint:containedctx // done when the server begins to stop
}

func (i *interceptors) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	began := time.Now()
	var answer any
	err := i.guard(info.FullMethod, func() (err error) {
		if checked(info.FullMethod) {
			if err := refuseUnknown(request); err != nil {
				return err
			}
		}
		if err := i.check(ctx, info.FullMethod, request); err != nil {
			return err
		}
		answer, err = handle(ctx, request)
		return err
	})
	err = i.finish(ctx, info.FullMethod, began, err)
	i.done(ctx, info.FullMethod, request, err)
	if err != nil {
		return nil, err
	}
	return i.answer(ctx, answer), nil
}

func (i *interceptors) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(i.stopping, func() { cancel(errStopping) })()
	defer i.endWhenRevoked(ctx, cancel)()
	one := &serverStream{ServerStream: stream, ctx: ctx, checked: checked(info.FullMethod), check: func(request any) error {
		return i.check(ctx, info.FullMethod, request)
	}, answer: func(answer any) any { return i.answer(ctx, answer) }}
	err := i.guard(info.FullMethod, func() error { return handle(server, one) })
	err = i.finish(ctx, info.FullMethod, began, err)
	i.done(ctx, info.FullMethod, one.request, err)
	return err
}

// guard turns a panic of the handler into an error, for one request shall not end the others.
func (i *interceptors) guard(method string, handle func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			i.log.Error("panic in handler", "method", method, "panic", p, "stack", string(debug.Stack()))
			err = Errorf(codes.Internal, ReasonInternal, "internal fault in %s; the server's log tells more", method)
		}
	}()
	return handle()
}

func (i *interceptors) finish(ctx context.Context, method string, began time.Time, err error) error {
	if err == nil {
		i.log.Debug("call", "method", method, "code", codes.OK, "seconds", time.Since(began).Seconds())
		return nil
	}
	s := statusOf(ctx, err, i.table)
	level := slog.LevelDebug
	if s.Code() == codes.Internal || s.Code() == codes.DataLoss || s.Code() == codes.Unknown {
		level = slog.LevelError // a fault of ours: the caller can do nothing about it, the operator reads it here
	}
	i.log.Log(ctx, level, "call failed", "method", method, "code", s.Code(), "reason", Reason(s.Err()),
		"error", s.Message(), "seconds", time.Since(began).Seconds())
	return s.Err()
}

// checked tells whether requests of a method are refused for what this server does not know in them. gRPC's own services
// (health, reflection) are extended by their own rules.
func checked(method string) bool { return !strings.HasPrefix(method, "/grpc.") }

// serverStream checks received requests, and ends with the server.
type serverStream struct {
	grpc.ServerStream
	ctx     context.Context //nolint:containedctx // this is how gRPC hands a stream's context on
	checked bool
	check   func(request any) error // asks the guard
	answer  func(answer any) any    // asks the guard
	request any                     // the last that came
}

func (s *serverStream) Context() context.Context { return s.ctx }

func (s *serverStream) SendMsg(m any) error { return s.ServerStream.SendMsg(s.answer(m)) }

func (s *serverStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if s.checked {
		if err := refuseUnknown(m); err != nil {
			return err
		}
	}
	s.request = m
	return s.check(m)
}
