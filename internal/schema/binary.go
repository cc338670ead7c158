package schema

import (
	"slices"

	"github.com/jackc/pgx/v5/pgtype"
)

// binaryTypes are PostgreSQL's own types whose binary form is the same in all versions from 15 to 18 and on all machines, and rests
// on no setting but client_encoding. Types that are not PostgreSQL's own, and what is built of types (arrays, composites, ranges,
// domains), would bring their OIDs or their own ideas of a version into the bytes.
var binaryTypes = []uint32{
	pgtype.BoolOID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID,
	pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.ByteaOID, pgtype.UUIDOID, pgtype.JSONOID, pgtype.JSONBOID,
	pgtype.DateOID, pgtype.TimeOID, pgtype.TimetzOID, pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.IntervalOID,
}

// BinaryCopy tells whether values of a type, by its OID, may travel from one server to another in COPY's binary format.
func BinaryCopy(typeOID uint32) bool { return slices.Contains(binaryTypes, typeOID) }
