package change

import (
	"crypto/sha256"
	"encoding/binary"
)

// Identity says which old values PostgreSQL writes for an UPDATE or DELETE, with the letters of pg_class.relreplident.
type Identity byte

// The replica identities of PostgreSQL.
const (
	IdentityDefault Identity = 'd' // the primary key, if there is one
	IdentityNothing Identity = 'n'
	IdentityFull    Identity = 'f'
	IdentityIndex   Identity = 'i'
)

// Column is one column of a relation, in the order of the row values.
type Column struct {
	Name         string
	TypeOID      uint32 // in the primary's catalog; stable across servers for built-in types only
	TypeModifier int32  // -1 for none
	Key          bool   // part of the replica identity; under IdentityFull every column is
}

// Relation is a table's shape as of a point in the log. It is immutable: another shape is another version with another hash.
type Relation struct {
	OID      uint32 // in the primary's catalog
	Schema   string
	Name     string
	Identity Identity
	Columns  []Column
}

// RelationHash is the content hash of a relation version: equal shapes of the same table have equal hashes.
type RelationHash [16]byte

// Hash returns the content hash: the first 16 bytes of SHA-256 over an unambiguous encoding of every field.
func (r *Relation) Hash() RelationHash {
	buf := make([]byte, 0, 256)
	buf = binary.BigEndian.AppendUint32(buf, r.OID)
	buf = appendText(buf, r.Schema)
	buf = appendText(buf, r.Name)
	buf = append(buf, byte(r.Identity))
	for _, c := range r.Columns {
		buf = appendText(buf, c.Name)
		buf = binary.BigEndian.AppendUint32(buf, c.TypeOID)
		buf = binary.BigEndian.AppendUint32(buf, uint32(c.TypeModifier))
		if c.Key {
			buf = append(buf, 1)
		} else {
			buf = append(buf, 0)
		}
	}
	sum := sha256.Sum256(buf)
	return RelationHash(sum[:16])
}

func appendText(buf []byte, s string) []byte {
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(s)))
	return append(buf, s...)
}
