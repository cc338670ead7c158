package block

// What a column of a row holds.
const (
	ValueText      byte = 't' // the output of the type's output function
	ValueNull      byte = 'n'
	ValueUnchanged byte = 'u' // large, stored out of line and not changed by the update: the value is not in the log
)

// Row is a row as a view of a block's bytes. The reader has checked all of it, so reading the columns cannot fail. The zero
// Row has no columns.
type Row struct {
	Kinds  []byte // one byte for each column of the relation, in its order: ValueText, ValueNull or ValueUnchanged
	values []byte // the values of the columns of kind ValueText as they are encoded
}

// Columns returns a reader that stands before the first column:
//
//	for c := row.Columns(); c.More(); {
//		kind, value := c.Next()
//		…
//	}
func (r Row) Columns() Columns { return Columns{kinds: r.Kinds, values: r.values} }

// Size returns the number of bytes of the encoded values: a measure for batching.
func (r Row) Size() int { return len(r.Kinds) + len(r.values) }

// Columns reads the columns of a row in the order of the relation's columns. It allocates nothing.
type Columns struct {
	kinds, values []byte
}

// More reports whether there is another column.
func (c *Columns) More() bool { return len(c.kinds) > 0 }

// Next returns the next column: its kind, and for ValueText a view of its bytes, which is not nil when it is empty. After
// the last column the kind is 0.
func (c *Columns) Next() (kind byte, value []byte) {
	if len(c.kinds) == 0 {
		return 0, nil
	}
	kind = c.kinds[0]
	c.kinds = c.kinds[1:]
	if kind != ValueText {
		return kind, nil
	}
	size, n := uint64(c.values[1]), 2
	if size >= 0x80 {
		size, n = valueSize(c.values)
	}
	end := n + int(size)
	value = c.values[n:end:end]
	c.values = c.values[end:]
	return kind, value
}

// valueSize reads the length of a value of 128 bytes or more; n is where the value begins.
func valueSize(b []byte) (size uint64, n int) {
	for shift := 0; ; shift += 7 {
		n++
		size |= uint64(b[n]&0x7f) << shift
		if b[n] < 0x80 {
			return size, n + 1
		}
	}
}

const (
	tagRowKinds = 1<<3 | bytesType
	tagRowValue = 2<<3 | bytesType
)

// parseRow checks all of a row.
func parseRow(data []byte) (Row, error) {
	c := cursor{buf: data}
	kinds := c.optSized(tagRowKinds)
	start := c.off
	for _, kind := range kinds {
		switch kind {
		case ValueText:
			if !c.next(tagRowValue) {
				c.fail("a row has fewer values than columns with a value")
			}
			c.sized()
		case ValueNull, ValueUnchanged:
		default:
			c.fail("a column is of unknown kind 0x%02x", kind)
		}
		if c.err != nil {
			return Row{}, c.err
		}
	}
	if c.end("row"); c.err != nil {
		return Row{}, c.err
	}
	return Row{Kinds: kinds, values: data[start:]}, nil
}
