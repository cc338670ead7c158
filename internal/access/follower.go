package access

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// followerField is the name of the field by which requests name a follower.
const followerField = protoreflect.Name("follower")

// maxFollowerBytes bounds a follower's name as it comes.
const maxFollowerBytes = 200

// OwnFollower is the name under which a replicator's follower is known: no other principal can mean it.
func OwnFollower(principal, follower string) string { return principal + "/" + follower }

// ownFollower changes the follower that a request names into the principal's own. An anonymous one stays anonymous.
func ownFollower(principal string, request proto.Message) error {
	m := request.ProtoReflect()
	fd := m.Descriptor().Fields().ByName(followerField)
	if fd == nil || fd.IsList() || fd.Kind() != protoreflect.StringKind || m.Get(fd).String() == "" {
		return nil
	}
	name := m.Get(fd).String()
	if len(name)+len(principal) >= maxFollowerBytes {
		return refuse(ReasonOtherFollower, "a follower's name has at most %d bytes, with the principal's name before it", maxFollowerBytes)
	}
	m.Set(fd, protoreflect.ValueOfString(OwnFollower(principal, name)))
	return nil
}

// short is the name of a method without its package.
func short(method string) string { return method[strings.LastIndexByte(method, '.')+1:] }
