package rpc

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Frame is a message in serialized form: it passes through the codec untouched, so stored bytes are served and received
// without being decoded or encoded. On the wire it is the same as the typed message with these bytes.
type Frame struct {
	// Prefix is sent before Data, so that stored bytes can be wrapped in an outer field without a copy. A received frame
	// has none.
	Prefix []byte
	// Data is the serialized message. Sent bytes must not change until the stream has ended. Received bytes belong to the
	// caller; RecvMsg writes into the capacity that Data already has, so set it to nil to keep the bytes of a frame.
	Data []byte
}

// frameCodec is the codec of protobuf that knows Frame as well.
type frameCodec struct{ encoding.CodecV2 }

var codec = frameCodec{encoding.GetCodecV2(encodingproto.Name)}

// Frames makes a call send and receive Frame as well as typed messages.
func Frames() grpc.CallOption { return grpc.ForceCodecV2(codec) }

func (c frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	frame, ok := v.(*Frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	if len(frame.Prefix) == 0 {
		return mem.BufferSlice{mem.SliceBuffer(frame.Data)}, nil
	}
	return mem.BufferSlice{mem.SliceBuffer(frame.Prefix), mem.SliceBuffer(frame.Data)}, nil
}

func (c frameCodec) Unmarshal(data mem.BufferSlice, v any) error {
	frame, ok := v.(*Frame)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	frame.Prefix = nil
	if n := data.Len(); cap(frame.Data) >= n {
		frame.Data = frame.Data[:n]
	} else {
		frame.Data = make([]byte, n)
	}
	data.CopyTo(frame.Data)
	return nil
}

// OpenFrames calls a server-streaming method, given by its full name as in
// loggerv1.LoggerService_Follow_FullMethodName. The answers are read with RecvMsg, into a Frame or a typed message.
func OpenFrames(ctx context.Context, conn grpc.ClientConnInterface, method string, request proto.Message, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	name := method[strings.LastIndexByte(method, '/')+1:]
	desc := &grpc.StreamDesc{StreamName: name, ServerStreams: true}
	stream, err := conn.NewStream(ctx, desc, method, append([]grpc.CallOption{Frames()}, opts...)...)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(request); err != nil {
		return nil, fmt.Errorf("send request of %s: %w", name, err)
	}
	if err := stream.CloseSend(); err != nil {
		return nil, fmt.Errorf("send request of %s: %w", name, err)
	}
	return stream, nil
}
