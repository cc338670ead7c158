package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/transcript"
)

// errEnough ends following after the limit.
var errEnough = errors.New("enough transactions")

// recordPrinter prints the records of transactions, one on each line, for people or as JSON.
type recordPrinter struct {
	out   *bufio.Writer
	json  bool
	limit int64 // transactions; 0 for no limit
	seen  int64
}

// Record implements transcript.Sink.
func (p *recordPrinter) Record(r *transcript.Record) error {
	if err := p.print(r); err != nil {
		return err
	}
	if r.Kind == transcript.KindCommit {
		if p.seen++; p.seen == p.limit {
			return errEnough
		}
	}
	return nil
}

// Event implements transcript.Sink: heartbeats are no records.
func (p *recordPrinter) Event(*loggerv1.FollowResponse) error { return nil }

func (p *recordPrinter) print(r *transcript.Record) error {
	if !p.json {
		_, err := fmt.Fprintln(p.out, recordText(r))
		return err
	}
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}

// columnsText is name=value for each column, on one line.
func columnsText(c transcript.Columns) string {
	parts := make([]string, len(c))
	for i := range c {
		value := "NULL"
		if !c[i].Null {
			value = valueText(c[i].Value)
		}
		parts[i] = valueText(c[i].Name) + "=" + value
	}
	return strings.Join(parts, " ")
}

// valueText quotes what could be mistaken for something else, or would break the line.
func valueText(s string) string {
	special := func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == '"' || r == '=' || r == '→'
	}
	if s == "" || s == "NULL" || strings.ContainsFunc(s, special) {
		return strconv.Quote(s)
	}
	return s
}

// recordText is the line for people.
func recordText(l *transcript.Record) string {
	switch l.Kind {
	case transcript.KindBegin:
		return fmt.Sprintf("BEGIN %d  %s", l.XID, l.Time)
	case transcript.KindCommit:
		return fmt.Sprintf("COMMIT %d  %s", l.XID, l.Position)
	case transcript.KindMessage:
		return fmt.Sprintf("  message %s %q", printable(l.Prefix), l.Content)
	case transcript.KindOrigin:
		return "  origin " + printable(l.Origin)
	case transcript.KindTruncate:
		return "  truncate " + printable(strings.Join(l.Tables, ", "))
	}
	text := fmt.Sprintf("  %s %s:", l.Kind, printable(l.Table))
	if len(l.Old) > 0 {
		text += " " + columnsText(l.Old)
	}
	if len(l.Old) > 0 && l.Kind == "update" {
		text += " →"
	}
	if len(l.New) > 0 {
		text += " " + columnsText(l.New)
	}
	if len(l.Unchanged) > 0 {
		text += " (unchanged: " + printable(strings.Join(l.Unchanged, ", ")) + ")"
	}
	return text
}
