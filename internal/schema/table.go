package schema

import "slices"

// Kinds of tables.
const (
	KindOrdinary    = "ordinary"
	KindPartitioned = "partitioned" // holds no rows itself; it may be a partition of another one too
	KindLeaf        = "partition"   // holds the rows of a partitioned table
)

// Table describes a permanent table.
type Table struct {
	OID    uint32 `json:"oid"`
	Schema string `json:"schema"`
	Name   string `json:"name"`
	// Kind is KindOrdinary, KindPartitioned or KindLeaf.
	Kind    string   `json:"kind"`
	Columns []Column `json:"columns"`
	// Options are the storage parameters that shape the table's pages (fillfactor=70), not those that tune vacuum.
	Options     []string     `json:"options,omitempty"`
	PrimaryKey  []string     `json:"primary_key,omitempty"` // column names in key order
	Indexes     []Index      `json:"indexes,omitempty"`
	Constraints []Constraint `json:"constraints,omitempty"`

	// ReplicaIdentity is pg_class.relreplident: "d" default, "n" nothing, "f" full, "i" an index.
	ReplicaIdentity string `json:"replica_identity"`
	// IdentityIndex is the index behind the identity, empty when there is none.
	IdentityIndex string `json:"identity_index,omitempty"`
	// IdentityColumns name the row in an UPDATE or DELETE: the key's columns, or for full every column that is shipped
	// (none at all in a table without columns). Without a usable identity they are empty, and NoIdentity says why.
	IdentityColumns []string `json:"identity_columns,omitempty"`
	NoIdentity      string   `json:"no_identity,omitempty"`

	// Parents are the partitioned table, or the inheritance parents in their order.
	Parents []Name `json:"parents,omitempty"`
	// Bound is a partition's FOR VALUES … or DEFAULT.
	Bound string `json:"bound,omitempty"`
	// PartitionKey is a partitioned table's RANGE (…), LIST (…) or HASH (…).
	PartitionKey string `json:"partition_key,omitempty"`

	// EstimatedRows and EstimatedBytes (with TOAST, without indexes) are of the table's own storage: zero for a
	// partitioned table, so that sums over tables count nothing twice.
	EstimatedRows  int64 `json:"estimated_rows"`
	EstimatedBytes int64 `json:"estimated_bytes"`
	// Pages is the main fork's length in pages of the server's block size.
	Pages int64 `json:"pages"`
	// Filenode is pg_class.relfilenode as the reading snapshot sees it; it changes whenever the table is rewritten.
	Filenode uint32 `json:"filenode"`

	RowSecurity      bool `json:"row_security,omitempty"`
	ForceRowSecurity bool `json:"force_row_security,omitempty"`
	// ReplicaTriggers and ReplicaRules: some are ENABLE REPLICA or ENABLE ALWAYS, so they fire on applied rows too.
	ReplicaTriggers bool `json:"replica_triggers,omitempty"`
	ReplicaRules    bool `json:"replica_rules,omitempty"`

	Needs []Need `json:"needs,omitempty"`
}

// Column describes one column.
type Column struct {
	Name string `json:"name"`
	// Number is pg_attribute.attnum: stable for the column's life, with gaps where columns were dropped.
	Number int16 `json:"number"`
	// Type is format_type's text, qualified unless the type is PostgreSQL's own.
	Type    string `json:"type"`
	TypeOID uint32 `json:"type_oid"`
	// Collation is quoted SQL, empty for the type's own.
	Collation string `json:"collation,omitempty"`
	// NotNull holds for every row: 18's NOT NULL NOT VALID does not count.
	NotNull bool `json:"not_null,omitempty"`
	// Default is SQL; for a generated column it is the generation expression.
	Default string `json:"default,omitempty"`
	// Identity is "a" (always), "d" (by default) or empty; Generated is "s" (stored), "v" (virtual) or empty.
	Identity  string `json:"identity,omitempty"`
	Generated string `json:"generated,omitempty"`
	// Storage is "p", "e", "x" or "m" when it is not the type's own.
	Storage string `json:"storage,omitempty"`
}

// Index describes an index.
type Index struct {
	Name       string `json:"name"`
	Definition string `json:"definition"` // pg_get_indexdef
	Method     string `json:"method"`
	// Columns are the key columns; an expression is an empty name.
	Columns []string `json:"columns"`
	Unique  bool     `json:"unique,omitempty"`
	Primary bool     `json:"primary,omitempty"`
	Valid   bool     `json:"valid"`
	// Immediate is false for the index of a deferrable constraint.
	Immediate        bool `json:"immediate"`
	Partial          bool `json:"partial,omitempty"`
	NullsNotDistinct bool `json:"nulls_not_distinct,omitempty"`
	ReplicaIdentity  bool `json:"replica_identity,omitempty"`
	// Constraint owns the index; empty when it stands alone.
	Constraint string `json:"constraint,omitempty"`
	// Parent is the partitioned table's index that this one belongs to.
	Parent Name `json:"parent,omitzero"`
}

// Constraint types, as in pg_constraint.contype.
const (
	ConstraintPrimary   = "p"
	ConstraintUnique    = "u"
	ConstraintCheck     = "c"
	ConstraintForeign   = "f"
	ConstraintExclusion = "x"
	ConstraintNotNull   = "n" // from 18; before, NOT NULL is only Column.NotNull
)

// Constraint describes a table constraint. A foreign key that a partition has from its parent is not listed.
type Constraint struct {
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	Definition string   `json:"definition"` // pg_get_constraintdef
	Columns    []string `json:"columns,omitempty"`
	Deferrable bool     `json:"deferrable,omitempty"`
	Deferred   bool     `json:"deferred,omitempty"`
	Validated  bool     `json:"validated"`
	// Enforced is false for 18's NOT ENFORCED.
	Enforced bool `json:"enforced"`
	// Inherited comes from a parent table; Local was declared on this one. Both can be true.
	Inherited bool `json:"inherited,omitempty"`
	Local     bool `json:"local,omitempty"`
	NoInherit bool `json:"no_inherit,omitempty"`
	// Period is 18's WITHOUT OVERLAPS or PERIOD.
	Period bool `json:"period,omitempty"`
	// References is the table that a foreign key points to.
	References Name `json:"references,omitzero"`
}

// Sequence describes a sequence.
type Sequence struct {
	OID       uint32 `json:"oid"`
	Schema    string `json:"schema"`
	Name      string `json:"name"`
	Type      string `json:"type"`
	Start     int64  `json:"start,string"`
	Min       int64  `json:"min,string"`
	Max       int64  `json:"max,string"`
	Increment int64  `json:"increment,string"`
	Cache     int64  `json:"cache,string"`
	Cycle     bool   `json:"cycle,omitempty"`
	// Owner and OwnerColumn are set for an owned sequence; Identity when it is an identity column's own.
	Owner       Name   `json:"owner,omitzero"`
	OwnerColumn string `json:"owner_column,omitempty"`
	Identity    bool   `json:"identity,omitempty"`
	// Value is nil when the reader may not SELECT from the sequence.
	Value *SequenceValue `json:"value,omitempty"`
}

// SequenceValue is where a sequence stands. It is not part of any snapshot: it is the value at the time of reading.
type SequenceValue struct {
	Last   int64 `json:"last,string"`
	Called bool  `json:"called"`
}

// Type kinds, as in pg_type.typtype.
const (
	TypeEnum      = "e"
	TypeDomain    = "d"
	TypeComposite = "c"
	TypeRange     = "r"
)

// Type describes a user's enum, domain, composite or range type.
type Type struct {
	OID    uint32 `json:"oid"`
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Kind   string `json:"kind"`

	Labels []string `json:"labels,omitempty"` // of an enum, in its order

	// Base is a domain's base type or a range's subtype.
	Base        string             `json:"base,omitempty"`
	Collation   string             `json:"collation,omitempty"` // quoted SQL, of a domain or range
	Default     string             `json:"default,omitempty"`
	NotNull     bool               `json:"not_null,omitempty"`
	Constraints []DomainConstraint `json:"constraints,omitempty"`

	Attributes []Attribute `json:"attributes,omitempty"` // of a composite

	// OperatorClass (when not the default), Canonical and Difference are quoted SQL, of a range.
	OperatorClass string `json:"operator_class,omitempty"`
	Canonical     string `json:"canonical,omitempty"`
	Difference    string `json:"difference,omitempty"`
	Multirange    Name   `json:"multirange,omitzero"`

	Needs []Need `json:"needs,omitempty"`
}

// DomainConstraint is a CHECK of a domain.
type DomainConstraint struct {
	Name       string `json:"name"`
	Definition string `json:"definition"`
	Validated  bool   `json:"validated"`
}

// Attribute is a field of a composite type.
type Attribute struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	Collation string `json:"collation,omitempty"`
}

// FullName is the table's qualified name.
func (t Table) FullName() Name { return Name{t.Schema, t.Name} }

// FullName is the sequence's qualified name.
func (s Sequence) FullName() Name { return Name{s.Schema, s.Name} }

// FullName is the type's qualified name.
func (t Type) FullName() Name { return Name{t.Schema, t.Name} }

// IsPartition tells whether the table is attached to a partitioned table.
func (t Table) IsPartition() bool { return t.Bound != "" }

// HasRows tells whether the table has storage of its own.
func (t Table) HasRows() bool { return t.Kind != KindPartitioned }

// Column finds a column by name.
func (t Table) Column(name string) (Column, bool) {
	i := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
	if i < 0 {
		return Column{}, false
	}
	return t.Columns[i], true
}

func (t Table) index(name string) (Index, bool) {
	i := slices.IndexFunc(t.Indexes, func(x Index) bool { return x.Name == name })
	if i < 0 {
		return Index{}, false
	}
	return t.Indexes[i], true
}

func (t Table) constraint(name string) (Constraint, bool) {
	i := slices.IndexFunc(t.Constraints, func(c Constraint) bool { return c.Name == name })
	if i < 0 {
		return Constraint{}, false
	}
	return t.Constraints[i], true
}
