package rest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/seed0419d559/syncline/internal/rpc"
)

// liner writes the lines of a stream.
type liner struct {
	http.ResponseWriter
	begun bool
}

func (l *liner) put(text []byte) error {
	if !l.begun {
		l.begun = true
		l.Header().Set("Content-Type", typeLines)
	}
	_, err := l.Write(text)
	return err
}

func (l *liner) flush() error { return http.NewResponseController(l.ResponseWriter).Flush() }

// end writes an error: as the answer when there is none yet, else as the last line.
func (l *liner) end(err error) {
	switch {
	case err == nil:
	case !l.begun:
		WriteError(l.ResponseWriter, err)
	default:
		_ = l.put(line(failure{problemOf(err)})) // whoever is gone needs no answer
	}
}

// serve calls a streaming method and hands each answer to take.
func (l *liner) serve(ctx context.Context, conn grpc.ClientConnInterface, method string, request proto.Message, take func(data []byte) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := rpc.OpenFrames(ctx, conn, method, request)
	for err == nil {
		var frame rpc.Frame
		if err = stream.RecvMsg(&frame); err == nil {
			err = take(frame.Data)
		}
		if err == nil && l.begun {
			err = l.flush()
		}
	}
	if !errors.Is(err, io.EOF) {
		l.end(err)
	}
}

// parameters reads a request from the query, which has been checked, and the path.
func parameters(r *http.Request, params map[string]string, request proto.Message) error {
	if err := runtime.PopulateQueryParameters(request, r.URL.Query(), utilities.NewDoubleArray(nil)); err != nil {
		return rpc.Invalid("query", "%v", err)
	}
	for name, value := range params {
		if err := runtime.PopulateFieldFromPath(request, name, value); err != nil {
			return rpc.Invalid(name, "%v", err)
		}
	}
	return nil
}

// named is a line with a message under a name.
func named(name string, m proto.Message) ([]byte, error) {
	text, err := messageJSON(m)
	if err != nil {
		return nil, err
	}
	return line(map[string]json.RawMessage{name: text}), nil
}
