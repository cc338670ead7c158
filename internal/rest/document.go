package rest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

//go:embed openapi/syncline.swagger.json
var generated []byte

// lines.json holds the definitions of what this package makes by itself: errors, and the lines of readable streams.
//
//go:embed lines.json
var lines []byte

const about = "Everything that Syncline's gRPC services do, over HTTP. 64-bit integers are strings in JSON, bytes are base64, durations look like \"1.5s\". " +
	"Streams answer with one JSON object on each line. What a request holds and the server does not know is refused."

// Names of the definitions in lines.json.
const (
	definitionError  = "Error"
	definitionFollow = "FollowLine"
	definitionDump   = "DumpLine"
)

// object is a JSON object.
type object = map[string]any

// document is the OpenAPI document of the services that are served.
type document struct {
	Swagger     string                       `json:"swagger"`
	Info        object                       `json:"info"`
	Tags        []tag                        `json:"tags"`
	Consumes    []string                     `json:"consumes"`
	Produces    []string                     `json:"produces"`
	Paths       map[string]map[string]*entry `json:"paths"` // by path and method, in lower case
	Definitions map[string]object            `json:"definitions"`
}

type tag struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// entry is what the document says of an operation.
type entry struct {
	Summary     string              `json:"summary,omitempty"`
	Description string              `json:"description,omitempty"`
	OperationID string              `json:"operationId"` // Service_Method
	Tags        []string            `json:"tags"`
	Produces    []string            `json:"produces,omitempty"`
	Parameters  []object            `json:"parameters,omitempty"`
	Responses   map[string]response `json:"responses"`
}

type response struct {
	Description string `json:"description"`
	Schema      object `json:"schema"`
}

// newDocument makes the document of services, given by their full names.
func newDocument(services []string, version string) (*document, error) {
	d := &document{}
	if err := json.Unmarshal(generated, d); err != nil {
		return nil, fmt.Errorf("read OpenAPI document: %w", err)
	}
	d.Info = object{"title": "Syncline", "version": version, "description": about}
	served := make(map[string]bool)
	for _, name := range services {
		served[name[strings.LastIndexByte(name, '.')+1:]] = true
	}
	d.Tags = slices.DeleteFunc(d.Tags, func(t tag) bool { return !served[t.Name] })
	for path, methods := range d.Paths {
		maps.DeleteFunc(methods, func(_ string, e *entry) bool { return !served[e.Tags[0]] })
		if len(methods) == 0 {
			delete(d.Paths, path)
		}
		for _, e := range methods {
			e.complete()
		}
	}
	own := make(map[string]object)
	if err := json.Unmarshal(lines, &own); err != nil {
		return nil, fmt.Errorf("read definitions of lines: %w", err)
	}
	maps.Copy(d.Definitions, own)
	d.prune()
	return d, nil
}

// readableLines are the definitions of the lines of those streams that are served in a readable form.
var readableLines = map[string]string{"LoggerService_Follow": definitionFollow, "InventoryService_Dump": definitionDump}

// complete says what the generator does not know: how errors look, and the lines of streams.
func (e *entry) complete() {
	e.Responses["default"] = response{Description: "An error.", Schema: reference(definitionError)}
	answer := e.Responses["200"]
	answer.Description = "The answer."
	if properties, ok := answer.Schema["properties"].(object); ok {
		e.Produces = []string{typeLines}
		answer.Description = "One object on each line. A stream that breaks off ends with a line that is an error."
		if answer.Schema, ok = properties["result"].(object); !ok {
			answer.Schema = object{}
		}
		if name, ok := readableLines[e.OperationID]; ok {
			answer.Schema = reference(name)
		}
	}
	e.Responses["200"] = answer
}

func (e *entry) streams() bool { return len(e.Produces) > 0 }

const referencePrefix = "#/definitions/"

func reference(name string) object { return object{"$ref": referencePrefix + name} }

// prune removes the definitions that nothing refers to.
func (d *document) prune() {
	used := make(map[string]bool)
	var visit func(v any)
	visit = func(v any) {
		switch v := v.(type) {
		case object:
			if to, ok := v["$ref"].(string); ok {
				if name := strings.TrimPrefix(to, referencePrefix); !used[name] {
					used[name] = true
					visit(d.Definitions[name])
				}
			}
			for _, inner := range v {
				visit(inner)
			}
		case []any:
			for _, inner := range v {
				visit(inner)
			}
		}
	}
	for _, methods := range d.Paths {
		for _, e := range methods {
			for _, p := range e.Parameters {
				visit(p)
			}
			for _, r := range e.Responses {
				visit(r.Schema)
			}
		}
	}
	maps.DeleteFunc(d.Definitions, func(name string, _ object) bool { return !used[name] })
}

func (d *document) bytes() ([]byte, error) {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write OpenAPI document: %w", err)
	}
	return append(text, '\n'), nil
}
