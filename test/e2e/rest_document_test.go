package e2e

import (
	"strings"
	"testing"
)

// apiDocument is as much of an OpenAPI document as is needed to call and check what it describes.
type apiDocument struct {
	Paths       map[string]map[string]apiOperation `json:"paths"` // by path and method
	Definitions map[string]shape                   `json:"definitions"`
}

type apiOperation struct {
	OperationID string           `json:"operationId"`
	Produces    []string         `json:"produces"`
	Parameters  []map[string]any `json:"parameters"`
	Responses   map[string]struct {
		Schema shape `json:"schema"`
	} `json:"responses"`
}

func (o *apiOperation) streams() bool { return len(o.Produces) > 0 }

func (o *apiOperation) hasBody() bool {
	for _, p := range o.Parameters {
		if p["in"] == "body" {
			return true
		}
	}
	return false
}

// shape is a JSON schema.
type shape map[string]any

// check finds what an answer holds and its schema does not say, and values of another type.
func (d *apiDocument) check(t testing.TB, where string, s shape, value any) {
	t.Helper()
	if to, ok := s["$ref"].(string); ok {
		name := strings.TrimPrefix(to, "#/definitions/")
		definition, ok := d.Definitions[name]
		if !ok {
			t.Errorf("%s: %s is not defined", where, name)
			return
		}
		s = definition
	}
	if value == nil {
		return // a message or an optional field that is not set
	}
	ok := true
	switch s["type"] {
	case "object":
		object, is := value.(map[string]any)
		ok = is
		for name, inner := range object {
			d.check(t, where+"."+name, d.property(t, where, s, name), inner)
		}
	case "array":
		list, is := value.([]any)
		ok = is
		items, _ := s["items"].(map[string]any)
		for _, inner := range list {
			d.check(t, where+"[]", items, inner)
		}
	case "string":
		_, ok = value.(string)
	case "boolean":
		_, ok = value.(bool)
	case "integer", "number":
		_, ok = value.(float64)
	}
	if !ok {
		t.Errorf("%s is %v, expected %v", where, value, s["type"])
	}
}

// property returns the schema of a property. An object without any is free.
func (d *apiDocument) property(t testing.TB, where string, s shape, name string) shape {
	t.Helper()
	properties, closed := s["properties"].(map[string]any)
	if inner, ok := properties[name].(map[string]any); ok {
		return inner
	}
	if more, ok := s["additionalProperties"].(map[string]any); ok {
		return more
	}
	if closed {
		t.Errorf("%s.%s is not in the document", where, name)
	}
	return shape{}
}
