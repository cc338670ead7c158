package pgserver

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestInstallTakesWhatIsThere(t *testing.T) {
	want, err := Find("any")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Install(t.Context(), "any", io.Discard)
	if err != nil || got != want {
		t.Fatalf("%v, %v; expected %v", got, err, want)
	}
	// A wrong SYNCLINE_PG_BIN is the user's to mend: nothing is fetched behind it.
	t.Setenv("SYNCLINE_PG_BIN", t.TempDir())
	if _, err := Install(t.Context(), "any", io.Discard); err == nil || !strings.Contains(err.Error(), "SYNCLINE_PG_BIN") {
		t.Fatal(err)
	}
}

func TestCheckSum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	// From FIPS 180-2.
	const sum = "3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
	if err := checkSum(path, sum); err != nil {
		t.Error(err)
	}
	if err := checkSum(path, npmPackages[18].sha512["linux-x64"]); err == nil {
		t.Error("a wrong checksum was accepted")
	}
}

func TestNewestFirst(t *testing.T) {
	root := t.TempDir()
	for _, major := range []string{"9", "15", "110", "16"} {
		if err := os.MkdirAll(filepath.Join(root, major, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, dir := range newestFirst(filepath.Join(root, "*", "bin")) {
		got = append(got, filepath.Base(filepath.Dir(dir)))
	}
	if want := []string{"110", "16", "15", "9"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, expected %v", got, want)
	}
}

func TestOpenToAll(t *testing.T) {
	root := t.TempDir()
	for path, mode := range map[string]os.FileMode{"bin/tool": 0o700, "share/text": 0o600} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(root, "bin", "link")); err != nil {
		t.Fatal(err)
	}
	if err := openToAll(root); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{"bin": 0o755, "bin/tool": 0o755, "share/text": 0o644} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; expected %v", path, info.Mode(), err, want)
		}
	}
}
