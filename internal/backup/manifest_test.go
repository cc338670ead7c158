package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func sample() *Manifest {
	sum := strings.Repeat("0", 64)
	return &Manifest{
		Format: Format, Version: Version, ID: "id", SourceServerID: "server", PostgresVersion: 150018, LogID: strings.Repeat("ab", 16), LSN: "0/20",
		Compression: CompressionZstd, Schema: File{Name: schemaName, SHA256: sum},
		Tables: []Table{{Schema: "public", Name: "one", Columns: []string{"a"}, Rows: 2, Bytes: 8, Files: []File{{Name: "data/1", SHA256: sum, Size: 1, Rows: 2, Bytes: 8}}}},
	}
}

func TestManifestIsReadBack(t *testing.T) {
	text, err := sample().encode()
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.encode()
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("got %s, %v", again, err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeManifest(compact.Bytes()); err != nil {
		t.Errorf("without white space: %v", err)
	}
}

// TestManifestIsRefused has manifests whose checksum is right and which are still none.
func TestManifestIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*Manifest)
		want error
	}{
		"another program":  {func(m *Manifest) { m.Format = "tar" }, ErrNotABackup},
		"newer":            {func(m *Manifest) { m.Version++ }, ErrVersion},
		"no position":      {func(m *Manifest) { m.LSN = "20" }, ErrDamaged},
		"compression":      {func(m *Manifest) { m.Compression = "lzma" }, ErrDamaged},
		"outside":          {func(m *Manifest) { m.Tables[0].Files[0].Name = "../1" }, ErrDamaged},
		"absolute":         {func(m *Manifest) { m.Tables[0].Files[0].Name = "/etc/passwd" }, ErrDamaged},
		"a file twice":     {func(m *Manifest) { m.Tables[0].Files[0].Name = schemaName }, ErrDamaged},
		"a table twice":    {func(m *Manifest) { m.Tables = append(m.Tables, m.Tables[0]) }, ErrDamaged},
		"rows do not fit":  {func(m *Manifest) { m.Tables[0].Rows++ }, ErrDamaged},
		"checksum is none": {func(m *Manifest) { m.Schema.SHA256 = "" }, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			m := sample()
			test.edit(m)
			text, err := m.encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeManifest(text); !errors.Is(err, test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// FuzzManifest reads what anybody may have put there: it is refused, or the same when it is written again.
func FuzzManifest(f *testing.F) {
	text, err := sample().encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(text), `{}`, `{"manifest": null, "sha256": "x"}`, `{"manifest": {}, "sha256": "x"} {}`, `[`, strings.Replace(string(text), "one", "two", 1)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := decodeManifest(content)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeManifest(again); err != nil {
			t.Errorf("%s is not read back: %v", again, err)
		}
	})
}
