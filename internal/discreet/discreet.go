// Package discreet marks values of rows in texts, so that they can be kept from those who may not read rows. A value stands in ⟦ and ⟧, which no
// value holds itself; what is cut off behind a ⟦ counts as a value too.
package discreet

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	opening = "⟦"
	closing = "⟧"
	elided  = opening + "…" + closing
)

var within = strings.NewReplacer(opening, "[", closing, "]")

// Mark makes a text one value.
func Mark(value string) string {
	if value == "" {
		return ""
	}
	return opening + within.Replace(value) + closing
}

// Message is what PostgreSQL says in an error, as a value where it may name one. Values are in what it says of values itself, and in
// whatever functions raise.
func Message(err *pgconn.PgError) string {
	if mayName(err) {
		return Mark(err.Message)
	}
	return err.Message
}

func mayName(err *pgconn.PgError) bool {
	if len(err.Code) != 5 {
		return true
	}
	switch err.Code[:2] {
	case "22", "38", "54", "P0", "F0", "HV":
		return true
	}
	return raised(err) || !wellKnown(err.Code)
}

// languages are the source files from which functions raise errors, whatever their SQLSTATE.
var languages = []string{"pl_exec.c", "plpy_elog.c", "plperl.c", "pltcl.c"}

func raised(err *pgconn.PgError) bool { return slices.Contains(languages, err.File) }

// wellKnown are PostgreSQL's own classes; others are of extensions, or of functions.
func wellKnown(code string) bool {
	return strings.Contains(" 00 01 02 08 0A 0B 20 21 23 24 25 26 27 28 2B 2D 2F 34 39 3B 3D 3F 40 42 44 53 55 57 58 72 XX ", " "+code[:2]+" ")
}

// Text is an error's text in which what PostgreSQL says is marked as Message does it.
func Text(err error, text string) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Message == "" {
		return text
	}
	marked := Message(pg)
	if marked == pg.Message || strings.Contains(text, marked) {
		return text
	}
	return strings.ReplaceAll(text, pg.Message, marked)
}

// Elide is a text without the values in it.
func Elide(text string) string {
	if !strings.Contains(text, opening) {
		return text
	}
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, opening)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteString(elided)
		if _, text, found = strings.Cut(rest, closing); !found {
			return out.String()
		}
	}
}

// Elided is a message whose texts are without the values in them: the message itself where none holds any, a copy otherwise.
func Elided(message proto.Message) proto.Message {
	if message == nil || !holds(message.ProtoReflect()) {
		return message
	}
	clone := proto.Clone(message)
	elide(clone.ProtoReflect())
	return clone
}

// holds tells whether a text of a message holds a value.
func holds(m protoreflect.Message) (found bool) {
	each(m, func(text string) string {
		found = found || strings.Contains(text, opening)
		return text
	}, false)
	return found
}

func elide(m protoreflect.Message) { each(m, Elide, true) }

// each passes every text of a message, and of those in it, through edit.
func each(m protoreflect.Message, edit func(string) string, store bool) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap():
			eachOfMap(field, v.Map(), edit, store)
		case field.IsList():
			eachOfList(field, v.List(), edit, store)
		case field.Kind() == protoreflect.StringKind:
			if text := edit(v.String()); store {
				m.Set(field, protoreflect.ValueOfString(text))
			}
		case field.Message() != nil:
			each(v.Message(), edit, store)
		}
		return true
	})
}

func eachOfList(field protoreflect.FieldDescriptor, list protoreflect.List, edit func(string) string, store bool) {
	for i := range list.Len() {
		switch {
		case field.Kind() == protoreflect.StringKind:
			if text := edit(list.Get(i).String()); store {
				list.Set(i, protoreflect.ValueOfString(text))
			}
		case field.Message() != nil:
			each(list.Get(i).Message(), edit, store)
		}
	}
}

func eachOfMap(field protoreflect.FieldDescriptor, all protoreflect.Map, edit func(string) string, store bool) {
	all.Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
		switch value := field.MapValue(); {
		case value.Kind() == protoreflect.StringKind:
			if text := edit(v.String()); store {
				all.Set(key, protoreflect.ValueOfString(text))
			}
		case value.Message() != nil:
			each(v.Message(), edit, store)
		}
		return true
	})
}
