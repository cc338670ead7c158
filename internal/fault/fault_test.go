package fault

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv("FAULT_TEST_CHILD") != "" {
		for range 3 {
			Point("here")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestKill(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	for armed, killed := range map[string]bool{"here:3": true, "here:4": false, "elsewhere:1": false} {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "FAULT_TEST_CHILD=1", Variable+"="+armed, LogVariable+"="+log)
		err := child.Run()
		var exit *exec.ExitError
		if got := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL; got != killed {
			t.Errorf("%s: killed %v (%v), want %v", armed, got, err, killed)
		}
	}
	text, err := os.ReadFile(log)
	if err != nil || strings.TrimSpace(string(text)) != "here" {
		t.Errorf("log %q, %v; want one line", text, err)
	}
}

func TestError(t *testing.T) {
	if err := Arm("a:2:error"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = Arm("") }()
	for i, want := range []bool{false, true, false} {
		if got := errors.Is(Error("a"), ErrInjected); got != want {
			t.Errorf("passage %d: injected %v, want %v", i+1, got, want)
		}
	}
}

func TestArmRefuses(t *testing.T) {
	for _, text := range []string{"a:0", "a:x", "a:1:explode", ":1", "a:1:kill:2"} {
		if err := Arm(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
