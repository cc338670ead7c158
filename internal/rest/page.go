package rest

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

// page is the OpenAPI document as people read it. It is made once, has no script, and loads nothing.
type page struct {
	text   []byte
	policy string
}

// pageService is one service on the page.
type pageService struct {
	tag
	Operations []pageOperation
}

type pageOperation struct {
	*entry
	Method, Path string
	Lines        bool
	Inputs       []pageParameter
	Answer       string // name of a definition
}

// pageParameter is a parameter, or a field of a definition.
type pageParameter struct {
	Name, In, Type, Description string
	Required                    bool
	Definition                  string // "" for a plain type
}

type pageDefinition struct {
	Name, Description string
	Values            []string // of an enum
	Properties        []pageParameter
}

func newPage(d *document) (*page, error) {
	parsed, err := template.New("page").Parse(pageText)
	if err != nil {
		return nil, fmt.Errorf("make page of the API: %w", err)
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, map[string]any{
		"Info": d.Info, "Document": pathDocument, "Services": servicesOf(d), "Definitions": definitionsOf(d),
		"Style": template.CSS(pageStyle), //nolint:gosec // it is our own file
	})
	if err != nil {
		return nil, fmt.Errorf("make page of the API: %w", err)
	}
	hash := sha256.Sum256([]byte(pageStyle))
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return &page{text: out.Bytes(), policy: policy}, nil
}

func (p *page) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", p.policy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(p.text) // whoever is gone needs no answer
}

func servicesOf(d *document) []pageService {
	var list []pageService
	for _, t := range d.Tags {
		s := pageService{tag: t}
		for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
			for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
				e := d.Paths[path][method]
				if e.Tags[0] != t.Name {
					continue
				}
				_, answer := typeOf(e.Responses["200"].Schema)
				s.Operations = append(s.Operations, pageOperation{entry: e, Method: strings.ToUpper(method), Path: path, Lines: e.streams(), Inputs: parametersOf(e), Answer: answer})
			}
		}
		list = append(list, s)
	}
	return list
}

func definitionsOf(d *document) []pageDefinition {
	var list []pageDefinition
	for _, name := range slices.Sorted(maps.Keys(d.Definitions)) {
		definition := d.Definitions[name]
		list = append(list, pageDefinition{Name: name, Description: textOf(definition), Values: valuesOf(definition), Properties: propertiesOf(definition)})
	}
	return list
}

// propertiesOf returns the fields of a definition; those of an object within it stand under its name.
func propertiesOf(definition object) []pageParameter {
	properties, _ := definition["properties"].(object)
	var list []pageParameter
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		schema, _ := properties[name].(object)
		kind, to := typeOf(schema)
		list = append(list, pageParameter{Name: name, Type: kind, Definition: to, Description: textOf(schema)})
		for _, inner := range propertiesOf(schema) {
			inner.Name = name + "." + inner.Name
			list = append(list, inner)
		}
	}
	return list
}

func parametersOf(e *entry) []pageParameter {
	var list []pageParameter
	for _, p := range e.Parameters {
		shape := p
		if schema, ok := p["schema"].(object); ok {
			shape = schema
		}
		kind, to := typeOf(shape)
		one := pageParameter{Type: kind, Definition: to, Description: textOf(p)}
		one.Name, _ = p["name"].(string)
		one.In, _ = p["in"].(string)
		one.Required, _ = p["required"].(bool)
		list = append(list, one)
	}
	return list
}

// typeOf names a type, or the definition that it refers to.
func typeOf(schema object) (kind, definition string) {
	if to, ok := schema["$ref"].(string); ok {
		return "", strings.TrimPrefix(to, referencePrefix)
	}
	kind, _ = schema["type"].(string)
	if format, ok := schema["format"].(string); ok {
		kind += " (" + format + ")"
	}
	if items, ok := schema["items"].(object); ok {
		inner, to := typeOf(items)
		return strings.TrimSpace("list of " + inner), to
	}
	return kind, ""
}

// textOf joins the title and the description, into which the generator puts the parts of one comment.
func textOf(schema object) string {
	title, _ := schema["title"].(string)
	description, _ := schema["description"].(string)
	return strings.TrimSpace(title + "\n\n" + description)
}

func valuesOf(schema object) []string {
	values, _ := schema["enum"].([]any)
	list := make([]string, len(values))
	for i := range values {
		list[i] = fmt.Sprint(values[i])
	}
	return list
}
