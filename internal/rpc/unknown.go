package rpc

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// refuseUnknown returns an error for the first field or enum value, at any depth, that this server does not know: an option
// that is ignored would look as if it were in force. It also refuses texts with a zero byte, which PostgreSQL cannot hold anywhere.
func refuseUnknown(request any) error {
	message, ok := request.(proto.Message)
	if !ok {
		return nil // a Frame: whoever takes it reads it by himself
	}
	return unknownIn(message.ProtoReflect(), "")
}

func unknownIn(m protoreflect.Message, path string) error {
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		number, _, n := protowire.ConsumeTag(unknown)
		if n < 0 {
			number = 0
		}
		field := join(path, fmt.Sprintf("#%d", number))
		return unknownError(ReasonUnknownField, field, fmt.Sprintf("field number %d of %s is not known to this server", number, m.Descriptor().FullName()))
	}
	var found error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		found = unknownInField(fd, v, join(path, fd.TextName()))
		return found == nil
	})
	return found
}

func unknownInField(fd protoreflect.FieldDescriptor, v protoreflect.Value, path string) error {
	switch {
	case fd.IsList():
		list := v.List()
		for i := range list.Len() {
			if err := unknownInValue(fd, list.Get(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	case fd.IsMap():
		var found error
		v.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
			at := fmt.Sprintf("%s[%s]", path, key.String())
			if found = unknownInValue(fd.MapKey(), key.Value(), path); found == nil {
				found = unknownInValue(fd.MapValue(), value, at)
			}
			return found == nil
		})
		return found
	default:
		return unknownInValue(fd, v, path)
	}
}

func unknownInValue(fd protoreflect.FieldDescriptor, v protoreflect.Value, path string) error {
	switch {
	case fd.Message() != nil:
		return unknownIn(v.Message(), path)
	case fd.Kind() == protoreflect.StringKind && strings.Contains(v.String(), "\x00"):
		return Invalid(path, "it holds a zero byte, which no text in PostgreSQL can")
	case fd.Enum() != nil && fd.Enum().Values().ByNumber(v.Enum()) == nil:
		return unknownError(ReasonUnknownValue, path, fmt.Sprintf("%d is not a value of %s known to this server", v.Enum(), fd.Enum().FullName()))
	}
	return nil
}

func unknownError(reason, field, description string) error {
	e := &Error{Code: codes.InvalidArgument, Reason: reason, Message: description + "; use a client of the server's version or leave it out"}
	e.addField(field, description)
	e.fields[0].Reason = reason
	return e.With("field", field)
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }
