package checksum

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

func fields(values ...any) [][]byte {
	var list [][]byte
	for _, v := range values {
		if v == nil {
			list = append(list, nil)
			continue
		}
		list = append(list, []byte(fmt.Sprint(v)))
	}
	return list
}

// TestHashesStayTheSame: two servers of different versions compare what they compute.
func TestHashesStayTheSame(t *testing.T) {
	h := newHasher()
	for _, test := range []struct {
		values [][]byte
		want   string
	}{
		{fields(), "e3b0c44298fc1c149afbf4c8996fb924"},
		{fields(1, "a", nil, ""), "565c773e4126bd51ffdf2470a3085909"},
	} {
		got := h.row(test.values)
		if text := hex.EncodeToString(got[:]); text != test.want {
			t.Errorf("%q: %s, want %s", test.values, text, test.want)
		}
	}
}

// TestEncodingIsUnambiguous: whatever is another row has another hash.
func TestEncodingIsUnambiguous(t *testing.T) {
	long := strings.Repeat("x", largeField)
	h := newHasher()
	seen := map[Hash]string{}
	for _, values := range [][][]byte{
		fields(), fields(nil), fields(""), fields(nil, nil), fields("", ""), fields(nil, ""), fields("", nil), fields("a", "b"), fields("ab", ""), fields("", "ab"),
		fields("ab"), fields("a", nil, "b"), fields("\x00"), fields("\x01"), fields("\x02a"), fields(long), fields(long, ""), fields(long, nil), fields("", long),
		fields(long[1:], "x"), fields(long+"x", long), fields(long, "x"+long), fields(long, "a", long), fields(long, long, "a"),
	} {
		text := fmt.Sprintf("%.80q", values)
		hash := h.row(values)
		if other, found := seen[hash]; found {
			t.Errorf("%s and %s have the same hash", text, other)
		}
		seen[hash] = text
	}
}

func TestSum(t *testing.T) {
	h := newHasher()
	var whole, left, right Sum
	for i := range 1000 {
		hash := h.row(fields(i, "row"))
		whole.row(hash)
		if i%3 == 0 {
			left.row(hash)
		} else {
			right.row(hash)
		}
	}
	left.Add(right)
	if left != whole || whole.Rows != 1000 {
		t.Errorf("%v and %v", left, whole)
	}
	back, ok := ParseSum(whole.Rows, whole.Hash())
	if !ok || back != whole {
		t.Errorf("read back: %v", back)
	}
	if _, ok := ParseSum(1, whole.Hash()[1:]); ok {
		t.Error("a short hash was taken")
	}
	carry := Sum{0, 0, math.MaxUint64}
	carry.row(Hash(append(make([]byte, 15), 1)))
	if !bytes.Equal(carry.Hash(), append(append(make([]byte, 7), 1), make([]byte, 8)...)) {
		t.Errorf("the carry is lost: %x", carry.Hash())
	}
}

// TestCutLeavesNoGap cuts ranges, and looks for the part of places at and beside every border.
func TestCutLeavesNoGap(t *testing.T) {
	for _, r := range []Range{{}, {After: digestText(5)}, {Through: digestText(77)}, {digestText(10), digestText(1000)}, {digestText(8), digestText(9)}} {
		for _, n := range []int{0, 1, 2, 3, 7, 50, 1000} {
			parts, err := r.Cut(n)
			if err != nil {
				t.Fatal(err)
			}
			list, err := spans(parts)
			if err != nil {
				t.Fatal(err)
			}
			whole, err := r.span()
			if err != nil {
				t.Fatal(err)
			}
			if list[0].first != whole.first || list[len(list)-1].last != whole.last {
				t.Errorf("%v in %d: from %d to %d, want %v", r, n, list[0].first, list[len(list)-1].last, whole)
			}
			for i := 1; i < len(list); i++ {
				if list[i].first != list[i-1].last+1 {
					t.Errorf("%v in %d: a gap before part %d", r, n, i)
				}
			}
			for i, s := range list {
				for _, place := range []uint64{s.first, s.last} {
					if at, found := search(list, place); !found || at != i {
						t.Errorf("place %d is found in part %d, %v, want %d", place, at, found, i)
					}
				}
			}
		}
	}
}

func TestBadRanges(t *testing.T) {
	for _, list := range [][]Range{
		{{After: []string{"5"}}}, {{Through: []string{"zzzzzzzzzzzzzzzz"}}}, {{After: []string{"0000000000000001", "0000000000000002"}}}, {{After: []string{"ffffffffffffffff"}}},
		{{digestText(5), digestText(5)}}, {{digestText(9), digestText(5)}}, {{}, {}}, {{digestText(5), digestText(9)}, {digestText(8), nil}},
	} {
		if _, err := spans(list); !errors.Is(err, ErrRange) {
			t.Errorf("%v: %v", list, err)
		}
	}
}
