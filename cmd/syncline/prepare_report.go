package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/setup"
)

// States of findings.
const (
	findingWell    = "ok"
	findingToDo    = "to do"
	findingMended  = "mended"
	findingRestart = "restart"
	findingLeft    = "left"
)

// finding is one thing that was looked at: that it is well, or what is not.
type finding struct {
	State  string   `json:"state"`
	Text   string   `json:"text"`
	SQL    []string `json:"sql,omitempty"` // statements that mend it
	Error  string   `json:"error,omitempty"`
	manner setup.Manner
}

func (f finding) key() string {
	if f.SQL != nil {
		return strings.Join(f.SQL, ";")
	}
	return f.Text
}

// report is what was found in a database, and what became of it.
type report struct {
	Database string    `json:"database"`
	Role     string    `json:"role"`
	Login    string    `json:"login"`
	DryRun   bool      `json:"dry_run"`
	Well     bool      `json:"well"`
	Findings []finding `json:"findings"`
	by       string
}

// compare takes over what a second look has found: what is not found any more was mended.
func (r *report) compare(now []finding, tried map[string]string) {
	for _, before := range r.Findings {
		if before.State != findingToDo && before.State != findingMended {
			continue
		}
		if !slices.ContainsFunc(now, func(f finding) bool { return f.key() == before.key() && f.State == findingToDo }) {
			if before.manner == setup.Outside {
				continue // it waits for a restart, and is found so
			}
			before.State = findingMended
			now = append(now, before)
		}
	}
	for i := range now {
		f := &now[i]
		for _, sql := range f.SQL {
			text, done := tried[sql]
			switch {
			case f.State != findingToDo || !done || f.Error != "":
			case text != "":
				f.Error = text
			case f.manner == setup.Outside: // the session may not see what the server's files say
				f.State = findingRestart
			default: // a GRANT of what one may not grant is no error in PostgreSQL
				f.Error = fmt.Sprintf("role %s may not grant that: run it as a superuser", r.by)
			}
		}
	}
	r.Findings = now
}

// finish gives what could not be mended its state, and puts the findings in order.
func (r *report) finish() {
	order := []string{findingWell, findingMended, findingToDo, findingRestart, findingLeft}
	for i := range r.Findings {
		if f := &r.Findings[i]; f.State == findingToDo && !r.DryRun {
			f.State = findingLeft
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b finding) int { return slices.Index(order, a.State) - slices.Index(order, b.State) })
	r.Well = !slices.ContainsFunc(r.Findings, func(f finding) bool { return f.State != findingWell && f.State != findingMended })
}

// left is the error of what is left to do.
func (r *report) left() error {
	n := map[string]int{}
	for _, f := range r.Findings {
		n[f.State]++
	}
	var texts []string
	if n[findingToDo] > 0 {
		texts = append(texts, fmt.Sprintf("%d to be done", n[findingToDo]))
	}
	if n[findingLeft] > 0 {
		texts = append(texts, fmt.Sprintf("%d left for somebody else to do", n[findingLeft]))
	}
	if n[findingRestart] > 0 {
		texts = append(texts, "PostgreSQL has to be restarted")
	}
	if texts == nil {
		return nil
	}
	return errors.New(strings.Join(texts, ", "))
}

func (r *report) print(out io.Writer, asJSON bool) error {
	switch {
	case asJSON:
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(r); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	case r.DryRun:
		r.script(out)
	default:
		r.list(out)
	}
	return nil
}

// list is for people.
func (r *report) list(out io.Writer) {
	fmt.Fprintf(out, "%s %s, for role %s\n", r.Role, printable(r.Database), printable(r.Login))
	for _, f := range r.Findings {
		fmt.Fprintf(out, "%-8s %s\n", f.State, printable(f.Text))
		for _, sql := range f.SQL {
			fmt.Fprintf(out, "           %s;\n", printable(sql))
		}
		if f.Error != "" {
			fmt.Fprintf(out, "           -- %s\n", printable(f.Error))
		}
	}
}

// script is SQL, with all else in comments. Names come from the database: none of them ends a comment.
func (r *report) script(out io.Writer) {
	comment := func(format string, args ...any) { fmt.Fprintln(out, "-- "+printable(fmt.Sprintf(format, args...))) }
	comment("%s %s, for role %s", r.Role, r.Database, r.Login)
	for _, f := range r.Findings {
		switch f.State {
		case findingWell, findingRestart, findingLeft:
			comment("%s: %s", f.State, f.Text)
		}
	}
	for _, part := range []struct {
		manner        setup.Manner
		before, after string
	}{{setup.Outside, "", "-- then restart PostgreSQL"}, {setup.Together, "BEGIN;", "COMMIT;"}, {setup.Alone, "SET lock_timeout = '" + tableLockTimeout + "';", "RESET lock_timeout;"}} {
		begun := false
		for _, f := range r.Findings {
			if f.State != findingToDo || f.manner != part.manner {
				continue
			}
			if !begun && part.before != "" {
				fmt.Fprintln(out, part.before)
			}
			begun = true
			comment("%s", f.Text)
			for _, sql := range f.SQL {
				fmt.Fprintln(out, sql+";")
			}
		}
		if begun {
			fmt.Fprintln(out, part.after)
		}
	}
}
