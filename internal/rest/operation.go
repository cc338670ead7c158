package rest

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// operation is one method of HTTP at one path, which is one method of gRPC.
type operation struct {
	method, path string // the path's variables in braces, by their name in JSON
	template     string // the same with the names that the proto files give them
	rpc          protoreflect.MethodDescriptor
	request      protoreflect.MessageType
	query        []string // names of its parameters
	variables    []string // fields of the request that stand in the path
	body         bool
	segments     *regexp.Regexp // matches an escaped path without the verb
	verb         string
}

func (o *operation) fullMethod() string {
	return "/" + string(o.rpc.Parent().FullName()) + "/" + string(o.rpc.Name())
}

func (o *operation) streams() bool { return o.rpc.IsStreamingServer() }

func (o *operation) String() string { return o.method + " " + o.path }

// newRequest returns an empty request.
func (o *operation) newRequest() proto.Message { return o.request.New().Interface() }

// operations reads the operations of the services out of their document, in the order of their paths.
func (d *document) operations(services []string) ([]*operation, error) {
	methods := make(map[string]protoreflect.MethodDescriptor)
	for _, name := range services {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		service, ok := found.(protoreflect.ServiceDescriptor)
		if err != nil || !ok {
			return nil, fmt.Errorf("serve %s over HTTP: it is no known service", name)
		}
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			methods[string(service.Name())+"_"+string(method.Name())] = method
		}
	}
	var list []*operation
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, verb := range slices.Sorted(maps.Keys(d.Paths[path])) {
			e := d.Paths[path][verb]
			method := methods[e.OperationID]
			if method == nil {
				return nil, fmt.Errorf("OpenAPI document: %s is no method of %v", e.OperationID, services)
			}
			op, err := newOperation(strings.ToUpper(verb), path, method, e)
			if err != nil {
				return nil, err
			}
			list = append(list, op)
		}
	}
	return list, nil
}

func newOperation(verb, path string, method protoreflect.MethodDescriptor, e *entry) (*operation, error) {
	request, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	if err != nil {
		return nil, fmt.Errorf("find request of %s: %w", method.FullName(), err)
	}
	op := &operation{method: verb, path: path, template: path, rpc: method, request: request}
	plain := path
	if i := strings.LastIndexByte(path, ':'); i >= 0 {
		plain, op.verb = path[:i], path[i+1:]
	}
	segments := regexp.QuoteMeta(plain)
	for _, p := range e.Parameters {
		name, _ := p["name"].(string)
		switch p["in"] {
		case "query":
			op.query = append(op.query, name)
		case "body":
			op.body = true
		case "path":
			field := method.Input().Fields().ByJSONName(name)
			if field == nil {
				return nil, fmt.Errorf("OpenAPI document: %s has no field %s", method.Input().FullName(), name)
			}
			op.variables = append(op.variables, string(field.Name()))
			op.template = strings.Replace(op.template, "{"+name+"}", "{"+string(field.Name())+"}", 1)
			pattern, ok := p["pattern"].(string)
			if !ok {
				pattern = "[^/]+"
			}
			segments = strings.Replace(segments, regexp.QuoteMeta("{"+name+"}"), pattern, 1)
		}
	}
	op.segments, err = regexp.Compile("^" + segments + "$")
	return op, err
}

// variable finds the variables in a pattern of the gateway, which writes {name=*}.
var variable = regexp.MustCompile(`\{(\w+)=[^}]*\}`)

// operation returns the operation of a method and a pattern of the gateway.
func (h *Handler) operation(method, pattern string) *operation {
	return h.byPattern[method+" "+variable.ReplaceAllString(pattern, "{$1}")]
}

// allowed returns the methods that are possible at an escaped path.
func (h *Handler) allowed(escaped string) []string {
	path, verb := splitVerb(escaped)
	var list []string
	for _, op := range h.operations {
		if op.verb == verb && op.segments.MatchString(path) {
			list = append(list, op.method)
		}
	}
	slices.Sort(list)
	return list
}

// splitVerb cuts the :verb off an escaped path. A colon that belongs to a name is written %3A.
func splitVerb(escaped string) (path, verb string) {
	last := strings.LastIndexByte(escaped, '/')
	if colon := strings.LastIndexByte(escaped[last+1:], ':'); colon >= 0 {
		return escaped[:last+1+colon], escaped[last+2+colon:]
	}
	return escaped, ""
}

// misread tells whether a path names an action that the operation has not: the gateway takes it for a part of a name.
func (o *operation) misread(r *http.Request) bool {
	_, verb := splitVerb(r.URL.EscapedPath())
	return verb != o.verb
}
