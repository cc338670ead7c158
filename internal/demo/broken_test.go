package demo

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestBrokenProgram runs the demonstration with a program that ends at once: the error says which part broke, what it
// printed is shown, and nothing is left.
func TestBrokenProgram(t *testing.T) {
	var out bytes.Buffer
	o := DefaultOptions()
	o.Scale, o.Replicas, o.Binary, o.Out = 0.01, 1, "/bin/ls", &out
	err := Run(t.Context(), o)
	var broken *brokenError
	if !errors.As(err, &broken) {
		t.Fatalf("got %v", err)
	}
	if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, " ended: exit status 2") {
		t.Errorf("the error: %s", text)
	}
	if !strings.Contains(out.String(), "printed last") || !strings.Contains(out.String(), "ls: ") {
		t.Errorf("printed:\n%s", out.String())
	}
}
