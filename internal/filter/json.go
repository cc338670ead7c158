package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// maxBytes bounds a selector, as it is written and in its canonical form.
const maxBytes = 64 << 10

// maxNesting bounds the levels of operators in a selector. JSON itself may nest a little deeper: each level is an object, and a
// list around it.
const maxNesting = 32

// jsonKind is the kind of a JSON value.
type jsonKind string

const (
	jsonObject jsonKind = "an object"
	jsonArray  jsonKind = "a list"
	jsonString jsonKind = "a string"
	jsonNumber jsonKind = "a number"
	jsonBool   jsonKind = "a boolean"
	jsonNull   jsonKind = "null"
)

// jsonValue is a JSON value with the order of its members. text is a string's content, a number as it is written, true or false.
type jsonValue struct {
	kind    jsonKind
	text    string
	members []jsonMember
	items   []jsonValue
}

type jsonMember struct {
	name  string
	value jsonValue
}

// shown describes the value in a message.
func (v jsonValue) shown() string {
	switch v.kind {
	case jsonString:
		return "the string " + shown(v.text)
	case jsonNumber:
		return "the number " + v.text[:min(len(v.text), 80)]
	case jsonBool:
		return v.text
	}
	return string(v.kind)
}

// readJSON reads one JSON value. It refuses what other readers let pass with a meaning that is not the author's: a name given
// twice, text that is not UTF-8, half a surrogate pair.
func readJSON(text []byte) (jsonValue, error) {
	if len(text) > maxBytes {
		return jsonValue{}, refuse("", "it has %d bytes; at most %d are read", len(text), maxBytes)
	}
	if !utf8.Valid(text) {
		return jsonValue{}, refuse("", "it is not UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		if len(bytes.TrimSpace(text)) == 0 {
			return jsonValue{}, refuse("", `it is empty; write a JSON object such as {"org": "acme"}`)
		}
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return jsonValue{}, refuse("", "it is not JSON: %s at byte %d", syntax.Error(), syntax.Offset)
		}
		return jsonValue{}, refuse("", "it is not JSON: %s", err)
	}
	if at := loneSurrogate(text); at >= 0 {
		return jsonValue{}, refuse("", "%s at byte %d is half of a surrogate pair and no character", text[at:at+6], at)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return readValue(d, "", 0)
}

// readValue reads the next value. The text is known to be JSON: the decoder has no error to give.
func readValue(d *json.Decoder, path string, depth int) (jsonValue, error) {
	if depth > 3*maxNesting {
		return jsonValue{}, refuse(path, "it is nested deeper than %d levels of operators", maxNesting)
	}
	token, err := d.Token()
	if err != nil {
		return jsonValue{}, refuse(path, "it is not JSON: %s", err)
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '{' {
			return readObject(d, path, depth)
		}
		return readArray(d, path, depth)
	case string:
		return jsonValue{kind: jsonString, text: token}, nil
	case json.Number:
		return jsonValue{kind: jsonNumber, text: token.String()}, nil
	case bool:
		return jsonValue{kind: jsonBool, text: strconv.FormatBool(token)}, nil
	}
	return jsonValue{kind: jsonNull}, nil
}

func readObject(d *json.Decoder, path string, depth int) (jsonValue, error) {
	v := jsonValue{kind: jsonObject}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return v, refuse(path, "it is not JSON: %s", err)
		}
		name, _ := token.(string) // JSON has no other names
		member, err := readValue(d, join(path, name), depth+1)
		if err != nil {
			return v, err
		}
		v.members = append(v.members, jsonMember{name, member})
	}
	names := make([]string, len(v.members))
	for i, m := range v.members {
		names[i] = m.name
	}
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return v, refuse(join(path, names[i]), "it stands twice in one object; put both conditions into an $and")
		}
	}
	_, err := d.Token()
	return v, err
}

func readArray(d *json.Decoder, path string, depth int) (jsonValue, error) {
	v := jsonValue{kind: jsonArray}
	for i := 0; d.More(); i++ {
		item, err := readValue(d, element(path, i), depth+1)
		if err != nil {
			return v, err
		}
		v.items = append(v.items, item)
	}
	_, err := d.Token()
	return v, err
}

// loneSurrogate finds an escape of half a surrogate pair in valid JSON, which encoding/json would read as U+FFFD. It returns -1
// when there is none.
func loneSurrogate(text []byte) int {
	unit := func(at int) (n uint64) {
		if at+6 <= len(text) && text[at] == '\\' && text[at+1] == 'u' {
			n, _ = strconv.ParseUint(string(text[at+2:at+6]), 16, 16)
		}
		return n
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		switch u := unit(i); {
		case u >= 0xD800 && u < 0xDC00:
			if low := unit(i + 6); low < 0xDC00 || low > 0xDFFF {
				return i
			}
			i += 11
		case u >= 0xDC00 && u <= 0xDFFF:
			return i
		default:
			i++ // the escaped character, which may be a backslash itself
		}
	}
	return -1
}

// join and element make the path of a place in the selector, such as $or[1].age.$gte.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
