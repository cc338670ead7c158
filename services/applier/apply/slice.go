package apply

import (
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// op is one row operation waiting to be written. Its rows are views of the blocks they came in.
type op struct {
	plan      *Plan
	operation Operation
	hasOld    bool
	old       block.Row
	new       block.Row
}

// decodeOld appends the old row's values to dst, or returns nil when the change carries no old row.
func (o *op) decodeOld(dst []value) []value {
	if !o.hasOld {
		return nil
	}
	return decode(dst, o.old)
}

// decodeNew appends the new row's values to dst; none for a delete.
func (o *op) decodeNew(dst []value) []value { return decode(dst, o.new) }

// decode never returns nil: a row without columns is a row.
func decode(dst []value, row block.Row) []value {
	if dst == nil {
		dst = make([]value, 0, len(row.Kinds))
	}
	for c := row.Columns(); c.More(); {
		kind, text := c.Next()
		dst = append(dst, value{kind, text})
	}
	return dst
}

// size is what the operation counts toward the size of a slice.
func (o *op) size() int { return o.old.Size() + o.new.Size() + opOverheadBytes }

const opOverheadBytes = 64

// appendCopyRow appends the row of an insert in COPY text format.
func appendCopyRow(dst []byte, o *op) []byte {
	first := true
	i := 0
	for c := o.new.Columns(); c.More(); i++ {
		kind, text := c.Next()
		if o.plan.columns[i] == nil {
			continue
		}
		if !first {
			dst = append(dst, '\t')
		}
		first = false
		if kind == block.ValueNull {
			dst = append(dst, '\\', 'N')
			continue
		}
		dst = appendCopyText(dst, text)
	}
	return append(dst, '\n')
}

// appendCopyValues appends a row whose values come from several operations.
func appendCopyValues(dst []byte, p *Plan, values []value) []byte {
	first := true
	for i, v := range values {
		if p.columns[i] == nil {
			continue
		}
		if !first {
			dst = append(dst, '\t')
		}
		first = false
		if v.kind == block.ValueNull {
			dst = append(dst, '\\', 'N')
			continue
		}
		dst = appendCopyText(dst, v.text)
	}
	return append(dst, '\n')
}

// appendCopyText escapes what COPY's text format gives a meaning to.
func appendCopyText(dst, text []byte) []byte {
	start := 0
	for i, c := range text {
		var escaped byte
		switch c {
		case '\\':
			escaped = '\\'
		case '\n':
			escaped = 'n'
		case '\r':
			escaped = 'r'
		case '\t':
			escaped = 't'
		default:
			continue
		}
		dst = append(dst, text[start:i]...)
		dst = append(dst, '\\', escaped)
		start = i + 1
	}
	return append(dst, text[start:]...)
}
