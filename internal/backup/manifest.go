package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Names of a backup's files.
const (
	ManifestName = "manifest.json"
	schemaName   = "schema.json"
	dataDir      = "data"
)

// Format and Version say what a manifest is. A program refuses a version that it does not know.
const (
	Format  = "syncline backup"
	Version = 1
)

// The compressions of a backup's rows.
const (
	CompressionNone = "none"
	CompressionZstd = "zstd"
)

var (
	// ErrNotABackup says that a directory holds something else, or a dump that did not come to its end.
	ErrNotABackup = errors.New("not a backup")
	// ErrDamaged says that a backup is not as it was written.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrVersion says that a backup was written by a newer program.
	ErrVersion = errors.New("unknown version of backup")
)

// Manifest says what a backup is.
type Manifest struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	// ID is a UUID made for this backup.
	ID              string    `json:"id"`
	CreateTime      time.Time `json:"create_time"`
	SourceServerID  string    `json:"source_server_id"`
	PostgresVersion int       `json:"postgres_version"` // server_version_num of the source
	// Transactions of this change log with an end LSN at or below this are in the backup, all others are not.
	LogID string `json:"log_id"`
	LSN   string `json:"lsn"` // as PostgreSQL prints it
	// Include and Exclude are the patterns by which tables were chosen.
	Include     []string `json:"include,omitempty"`
	Exclude     []string `json:"exclude,omitempty"`
	Compression string   `json:"compression"`
	Schema      File     `json:"schema"`
	Tables      []Table  `json:"tables"`
}

// Table is one table with rows of its own.
type Table struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	OID    uint32 `json:"oid"` // on the source
	// Columns are those of the rows, in their order; generated ones are not among them.
	Columns []string `json:"columns"`
	Rows    int64    `json:"rows"`
	Bytes   int64    `json:"bytes"` // of COPY text
	Files   []File   `json:"files"`
}

// File is one file of the backup.
type File struct {
	Name   string `json:"name"` // relative to the backup, with slashes
	Size   int64  `json:"size"` // of the file
	SHA256 string `json:"sha256"`
	// Rows and Bytes are what it holds of a table, uncompressed.
	Rows  int64 `json:"rows,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
}

// FullName is the table's qualified name.
func (t Table) FullName() schema.Name { return schema.Name{Schema: t.Schema, Name: t.Name} }

// Position is where in the source's change log the backup stands.
func (m *Manifest) Position() (change.Position, error) {
	return change.ParsePosition(m.LogID + "@" + m.LSN)
}

// Totals adds up the tables: rows, bytes of COPY text, and the size of their files.
func (m *Manifest) Totals() (rows, bytes, size int64) {
	for _, t := range m.Tables {
		rows += t.Rows
		bytes += t.Bytes
		for _, f := range t.Files {
			size += f.Size
		}
	}
	return rows, bytes, size
}

// sealed is a manifest with its checksum.
type sealed struct {
	Manifest json.RawMessage `json:"manifest"`
	SHA256   string          `json:"sha256"`
}

// encode returns the content of manifest.json.
func (m *Manifest) encode() ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	sum := sha256.Sum256(text)
	out, err := json.MarshalIndent(sealed{text, hex.EncodeToString(sum[:])}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return append(out, '\n'), nil
}

// decodeManifest reads the content of manifest.json. It trusts nothing of it before its checksum has been compared.
func decodeManifest(content []byte) (*Manifest, error) {
	var s sealed
	if err := strict(content, &s); err != nil || s.Manifest == nil || s.SHA256 == "" {
		return nil, fmt.Errorf("%w: %s is not a manifest with its checksum", ErrDamaged, ManifestName)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, s.Manifest); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, ManifestName, err)
	}
	sum := sha256.Sum256(compact.Bytes())
	if hex.EncodeToString(sum[:]) != s.SHA256 {
		return nil, fmt.Errorf("%w: %s was edited or damaged: its checksum does not fit", ErrDamaged, ManifestName)
	}
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(s.Manifest, &head); err != nil || head.Format != Format {
		return nil, fmt.Errorf("%w: %s does not say that it is of a %s", ErrNotABackup, ManifestName, Format)
	}
	if head.Version != Version {
		return nil, fmt.Errorf("%w: it has version %d and this program knows version %d; use the program of the version that wrote it, or a newer one", ErrVersion, head.Version, Version)
	}
	m := &Manifest{}
	if err := strict(s.Manifest, m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, ManifestName, err)
	}
	return m, m.validate()
}

// strict decodes one JSON value without unknown members and with nothing after it.
func strict(content []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("there is more after its end")
	}
	return nil
}

// validate makes sure that no file lies outside of the backup or is named twice, and that the counts add up.
func (m *Manifest) validate() error {
	if _, err := m.Position(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, ManifestName, err)
	}
	if m.Compression != CompressionNone && m.Compression != CompressionZstd {
		return fmt.Errorf("%w: %s: compression %q is unknown", ErrDamaged, ManifestName, m.Compression)
	}
	files := map[string]bool{}
	tables := map[schema.Name]bool{}
	if err := m.Schema.validate(files); err != nil {
		return err
	}
	for _, t := range m.Tables {
		if tables[t.FullName()] {
			return fmt.Errorf("%w: %s names table %s twice", ErrDamaged, ManifestName, t.FullName())
		}
		tables[t.FullName()] = true
		var rows, bytes int64
		for _, f := range t.Files {
			if err := f.validate(files); err != nil {
				return err
			}
			rows += f.Rows
			bytes += f.Bytes
		}
		if rows != t.Rows || bytes != t.Bytes {
			return fmt.Errorf("%w: %s: the files of table %s do not add up to its rows", ErrDamaged, ManifestName, t.FullName())
		}
	}
	return nil
}

func (f File) validate(seen map[string]bool) error {
	switch {
	case !filepath.IsLocal(filepath.FromSlash(f.Name)) || strings.ContainsAny(f.Name, "\\\x00"):
		return fmt.Errorf("%w: %s names the file %q, which is not in the backup", ErrDamaged, ManifestName, f.Name)
	case seen[f.Name]:
		return fmt.Errorf("%w: %s names the file %s twice", ErrDamaged, ManifestName, f.Name)
	case len(f.SHA256) != hex.EncodedLen(sha256.Size) || f.Size < 0 || f.Rows < 0 || f.Bytes < 0:
		return fmt.Errorf("%w: %s: size or checksum of the file %s is none", ErrDamaged, ManifestName, f.Name)
	}
	seen[f.Name] = true
	return nil
}
