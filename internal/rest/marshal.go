package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	statusv1 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	typeJSON  = "application/json"
	typeLines = "application/x-ndjson"
)

// messageJSON is a message on one line: 64-bit integers are strings, bytes are base64, and zeros are written.
func messageJSON(m proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	// protojson varies its spaces from build to build so that nobody compares them; here a line has to be one.
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// marshaler is the JSON of requests and answers. The lines of streams are the messages themselves, without a wrapper around
// them: an error is told from them by its name.
type marshaler struct{}

func (marshaler) ContentType(any) string       { return typeJSON }
func (marshaler) StreamContentType(any) string { return typeLines }

// Delimiter is empty, for every line ends by itself.
func (marshaler) Delimiter() []byte { return nil }

func (marshaler) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case proto.Message:
		return messageJSON(v)
	case map[string]any: // of a stream
		if m, ok := v["result"].(proto.Message); ok {
			return messageJSON(m)
		}
	case map[string]proto.Message: // the error that ends a stream
		if s, ok := v["error"].(*statusv1.Status); ok {
			return line(failure{problemOf(status.FromProto(s).Err())}), nil
		}
	}
	return nil, fmt.Errorf("a %T is no answer", v)
}

func (marshaler) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("a %T is no request", v)
	}
	return protojson.Unmarshal(data, m)
}

func (m marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := io.ReadAll(r) // it is in memory already
		if err != nil {
			return err
		}
		if len(data) == 0 {
			return io.EOF
		}
		return m.Unmarshal(data, v)
	})
}

func (m marshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		data, err := m.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
}
