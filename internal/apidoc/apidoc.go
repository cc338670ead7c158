// Package apidoc writes the reference of the API for people. Whatever stands in it comes from the protos and the HTTP rules, and what
// has no comment there is an error.
package apidoc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const head = `# The API

Everything that Syncline does can be asked for over gRPC, and over HTTP as REST (` + "`/docs`" + ` and ` + "`/openapi.json`" + ` of every server). This page is
generated from ` + "`proto/`" + ` by ` + "`make generate`" + `.

Over HTTP a field's name is in lowerCamelCase, 64-bit numbers are strings, bytes are base64, and a stream has one JSON object on each line. Errors
have a gRPC code, a stable reason and metadata; over HTTP they travel in the body.
`

// writer collects the page and the first thing that is wrong with it.
type writer struct {
	out   bytes.Buffer
	rules map[string]Rule
	err   error
}

// Write returns the page. Files come in the order of their packages: services first, then the messages and enums that they use.
func Write(files []*protogen.File, rules map[string]Rule) ([]byte, error) {
	w := &writer{rules: rules}
	w.out.WriteString(head)
	own := slices.DeleteFunc(slices.Clone(files), func(f *protogen.File) bool { return !f.Generate })
	slices.SortFunc(own, func(a, b *protogen.File) int { return strings.Compare(a.Desc.Path(), b.Desc.Path()) })
	w.out.WriteString("\n| call | over HTTP | what it does |\n| --- | --- | --- |\n")
	for _, f := range own {
		for _, s := range f.Services {
			for _, m := range s.Methods {
				fmt.Fprintf(&w.out, "| [%s.%s](#%s) | %s | %s |\n", s.GoName, m.GoName, anchor(m.GoName), w.http(m), firstSentence(w.comment(m.Desc, m.Comments)))
			}
		}
	}
	for _, f := range own {
		for _, s := range f.Services {
			w.service(s)
		}
	}
	w.out.WriteString("\n# Messages\n")
	for _, f := range own {
		for _, m := range f.Messages {
			w.message(m)
		}
		for _, e := range f.Enums {
			w.enum(e)
		}
	}
	return w.out.Bytes(), w.err
}

func (w *writer) service(s *protogen.Service) {
	fmt.Fprintf(&w.out, "\n# %s\n\n%s\n\n`%s`\n", s.GoName, w.comment(s.Desc, s.Comments), s.Desc.FullName())
	for _, m := range s.Methods {
		fmt.Fprintf(&w.out, "\n## %s\n\n%s\n\n", m.GoName, w.comment(m.Desc, m.Comments))
		takes, answers := "", ""
		if m.Desc.IsStreamingClient() {
			takes = "a stream of "
		}
		if m.Desc.IsStreamingServer() {
			answers = "a stream of "
		}
		fmt.Fprintf(&w.out, "%s takes %s%s and answers with %s%s.\n", w.http(m), takes, link(m.Input.Desc), answers, link(m.Output.Desc))
	}
}

// http is how a method is called over HTTP. One whose requests are a stream cannot be.
func (w *writer) http(m *protogen.Method) string {
	if m.Desc.IsStreamingClient() {
		return "It has no path over HTTP, and"
	}
	rule, found := w.rules[string(m.Desc.FullName())]
	if !found || rule.Path == "" {
		w.fail("%s has no HTTP rule", m.Desc.FullName())
	}
	return fmt.Sprintf("`%s %s`", rule.Verb, rule.Path)
}

func (w *writer) message(m *protogen.Message) {
	if m.Desc.IsMapEntry() {
		return
	}
	fmt.Fprintf(&w.out, "\n## %s\n\n%s\n", m.Desc.Name(), w.comment(m.Desc, m.Comments))
	if len(m.Fields) > 0 {
		w.out.WriteString("\n| field | type | |\n| --- | --- | --- |\n")
	}
	for _, f := range m.Fields {
		fmt.Fprintf(&w.out, "| `%s` | %s | %s |\n", f.Desc.Name(), fieldType(f.Desc), oneLine(w.comment(f.Desc, f.Comments)))
	}
	for _, e := range m.Enums {
		w.enum(e)
	}
	for _, inner := range m.Messages {
		w.message(inner)
	}
}

func (w *writer) enum(e *protogen.Enum) {
	fmt.Fprintf(&w.out, "\n## %s\n\n%s\n\n| value | |\n| --- | --- |\n", e.Desc.Name(), w.comment(e.Desc, e.Comments))
	for _, v := range e.Values {
		fmt.Fprintf(&w.out, "| `%s` | %s |\n", v.Desc.Name(), oneLine(w.comment(v.Desc, v.Comments)))
	}
}

// comment is what the proto says of something, and an error when it says nothing.
func (w *writer) comment(of protoreflect.Descriptor, comments protogen.CommentSet) string {
	text := strings.TrimSpace(strings.ReplaceAll("\n"+string(comments.Leading), "\n ", "\n"))
	if text == "" {
		w.fail("%s has no comment", of.FullName())
	}
	return text
}

func (w *writer) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("write the API's reference: "+format, args...)
	}
}

func fieldType(f protoreflect.FieldDescriptor) string {
	name := f.Kind().String()
	switch {
	case f.IsMap():
		return fmt.Sprintf("map from %s to %s", fieldType(f.MapKey()), fieldType(f.MapValue()))
	case f.Message() != nil:
		name = link(f.Message())
	case f.Enum() != nil:
		name = link(f.Enum())
	}
	switch {
	case f.IsList():
		name = "list of " + name
	case f.ContainingOneof() != nil && !f.ContainingOneof().IsSynthetic():
		name += ", one of `" + string(f.ContainingOneof().Name()) + "`"
	case f.HasOptionalKeyword():
		name += ", optional"
	}
	return name
}

// link leads to a message or an enum of this page; Google's own are only named.
func link(d protoreflect.Descriptor) string {
	if !strings.HasPrefix(string(d.FullName()), "syncline.") {
		return "`" + string(d.FullName()) + "`"
	}
	return fmt.Sprintf("[%s](#%s)", d.Name(), anchor(string(d.Name())))
}

func anchor(heading string) string { return strings.ToLower(heading) }

func oneLine(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

// firstSentence ends at the first full stop that is followed by a space.
func firstSentence(text string) string {
	text = oneLine(text)
	if at := strings.Index(text, ". "); at >= 0 {
		return text[:at+1]
	}
	return text
}
