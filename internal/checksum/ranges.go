package checksum

import (
	"fmt"
	"math"
	"strconv"
)

// Range is a part of a table's rows: those after a place, and up to another one with the rows at it. Places are values of the
// key's columns, or one digest. Empty ones are the beginning and the end.
type Range struct {
	After, Through []string
}

// digestDigits is the length of a digest as text.
const digestDigits = 16

func digestText(d uint64) []string { return []string{fmt.Sprintf("%0*x", digestDigits, d)} }

func parseDigest(place []string) (uint64, error) {
	if len(place) != 1 || len(place[0]) != digestDigits {
		return 0, fmt.Errorf("%w %q: a digest is %d hexadecimal digits", ErrRange, place, digestDigits)
	}
	d, err := strconv.ParseUint(place[0], 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%w %q: a digest is %d hexadecimal digits", ErrRange, place, digestDigits)
	}
	return d, nil
}

// span is a range of digests, both ends with it.
type span struct{ first, last uint64 }

func (r Range) span() (s span, err error) {
	s.last = math.MaxUint64
	if len(r.After) > 0 {
		if s.first, err = parseDigest(r.After); err != nil {
			return span{}, err
		}
		if s.first == math.MaxUint64 {
			return span{}, fmt.Errorf("%w %q: nothing is after it", ErrRange, r.After)
		}
		s.first++
	}
	if len(r.Through) > 0 {
		if s.last, err = parseDigest(r.Through); err != nil {
			return span{}, err
		}
	}
	if s.first > s.last {
		return span{}, fmt.Errorf("%w: it ends at %q, before it begins after %q", ErrRange, r.Through, r.After)
	}
	return s, nil
}

// spans reads ranges of digests, which have to be in order and apart.
func spans(ranges []Range) ([]span, error) {
	list := make([]span, len(ranges))
	for i, r := range ranges {
		var err error
		if list[i], err = r.span(); err != nil {
			return nil, err
		}
		if i > 0 && list[i].first <= list[i-1].last {
			return nil, fmt.Errorf("%w: range %d begins before the one before it ends", ErrRange, i)
		}
	}
	return list, nil
}

// Cut cuts a range of digests into n of equal width, or into fewer where it is too narrow.
func (r Range) Cut(n int) ([]Range, error) {
	s, err := r.span()
	if err != nil {
		return nil, err
	}
	n = max(n, 1)
	width := (s.last - s.first) / uint64(n)
	if width == 0 {
		return []Range{r}, nil
	}
	list := make([]Range, n)
	after := r.After
	for i := range n - 1 {
		through := digestText(s.first + uint64(i+1)*width)
		list[i] = Range{after, through}
		after = through
	}
	list[n-1] = Range{after, r.Through}
	return list, nil
}
