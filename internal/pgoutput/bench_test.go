package pgoutput

import (
	"fmt"
	"strings"
	"testing"
)

// benchRow is an insert of n columns of 12 bytes, every tenth of them null.
func benchRow(n int) []byte {
	cols := make([]column, n)
	for i := range cols {
		cols[i] = column{ValueText, fmt.Sprintf("value%7d", i)}
		if i%10 == 9 {
			cols[i] = column{kind: ValueNull}
		}
	}
	return enc('I', u32(16384), 'N', row(cols...))
}

var sink int

func BenchmarkInsert(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		data := benchRow(n)
		b.Run(fmt.Sprintf("columns=%d/decode", n), func(b *testing.B) {
			var d Decoder
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := d.Decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("columns=%d/decode+read", n), func(b *testing.B) {
			var d Decoder
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := d.Decode(data); err != nil {
					b.Fatal(err)
				}
				for c := d.Insert.New.Columns(); c.More(); {
					kind, value := c.Next()
					sink += int(kind) + len(value)
				}
			}
		})
	}
}

func BenchmarkUpdateFull(b *testing.B) {
	cols := []column{{ValueText, "4711"}, {ValueText, strings.Repeat("x", 60)}, {ValueUnchanged, ""}, {ValueNull, ""}, {ValueText, "2026-01-01"}}
	data := enc('U', u32(16384), 'O', row(cols...), 'N', row(cols...))
	var d Decoder
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := d.Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTransactionFrame(b *testing.B) {
	begin := enc('B', u64(1), u64(2), u32(3))
	commit := enc('C', byte(0), u64(1), u64(2), u64(3))
	var d Decoder
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decode(begin); err != nil {
			b.Fatal(err)
		}
		if _, err := d.Decode(commit); err != nil {
			b.Fatal(err)
		}
	}
}
