package segment

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func openTest(t testing.TB, dir string, limit int64) *Store {
	t.Helper()
	s, err := open(dir, limit)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SYNCLINE_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("SYNCLINE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 3))
}

// record makes the data of a record: mostly small, some larger than the distance of two places.
func record(rnd *rand.Rand, number uint64) []byte {
	size := 1 + rnd.IntN(300)
	switch rnd.IntN(10) {
	case 0:
		size = placeGap/2 + rnd.IntN(placeGap)
	case 1:
		size = 2*placeGap + rnd.IntN(5*placeGap)
	}
	return bytes.Repeat(fmt.Appendf(nil, "%d.", number), size/2+1)[:size]
}

// model is what a store has to hold.
type model struct {
	first   uint64
	records map[uint64][]byte
	last    uint64
}

func (m *model) check(t *testing.T, s *Store) {
	t.Helper()
	b := s.Bounds()
	if b.First != m.first || b.Last != m.last {
		t.Fatalf("it holds %d to %d, want %d to %d", b.First, b.Last, m.first, m.last)
	}
	var size uint64
	for number := m.first; number <= m.last; number++ {
		data, at, err := s.Read(number)
		must(t, err)
		if !bytes.Equal(data, m.records[number]) {
			t.Fatalf("record %d has %d bytes that are not the %d appended", number, len(data), len(m.records[number]))
		}
		if since := time.Since(at); since < 0 || since > time.Minute {
			t.Fatalf("record %d was appended %v ago", number, since)
		}
		size += uint64(len(data) + headerBytes)
	}
	if b.Bytes != size {
		t.Fatalf("it says %d bytes, and the records take %d", b.Bytes, size)
	}
	for _, number := range []uint64{m.first - 1, m.last + 1} {
		if _, _, err := s.Read(number); !errors.Is(err, ErrNotFound) {
			t.Fatalf("record %d: %v, want ErrNotFound", number, err)
		}
	}
}

func (m *model) append(t *testing.T, s *Store, rnd *rand.Rand) {
	t.Helper()
	var records [][]byte
	number := m.last + 1
	for range 1 + rnd.IntN(4) {
		data := record(rnd, m.last+1)
		m.last++
		m.records[m.last] = data
		records = append(records, data)
	}
	must(t, s.Append(number, records...))
}

// Whatever is appended, purged and opened again, the store holds what it should.
func TestRandomOperations(t *testing.T) {
	rnd := seeded(t)
	dir := t.TempDir()
	s := openTest(t, dir, 400_000)
	m := &model{first: 1, records: map[uint64][]byte{}}
	segments := 0 // at once, at most
	for range 600 {
		segments = max(segments, len(s.Starts()))
		switch rnd.IntN(20) {
		case 0:
			must(t, s.Close())
			s = openTest(t, dir, 400_000)
			m.check(t, s)
		case 1:
			m.first = min(m.first+uint64(rnd.IntN(40)), m.last+1)
			must(t, s.Purge(m.first))
			m.check(t, s)
		case 2:
			if rnd.IntN(10) == 0 {
				m.first = m.last + 1
				must(t, s.Purge(m.first+5))
			}
		case 3:
			most := uint64(rnd.IntN(2_000_000))
			number, size := s.Skip(most)
			want := uint64(0)
			for n := m.first; n < number; n++ {
				want += uint64(len(m.records[n]) + headerBytes)
			}
			if size != want || size > most {
				t.Fatalf("up to record %d it skips %d bytes of %d, and these take %d", number, size, most, want)
			}
		default:
			m.append(t, s, rnd)
		}
	}
	m.check(t, s)
	if segments < 2 {
		t.Errorf("there was never more than %d segment: too few for this test", segments)
	}
	if err := s.Append(m.last, []byte("again")); !errors.Is(err, ErrOrder) {
		t.Errorf("append a number again: %v", err)
	}
	m.check(t, s)
}

// What is cut or lost behind the last record that was acknowledged takes nothing with it, and what is there of records that were
// not is there as a whole.
func TestTornTail(t *testing.T) {
	rnd := seeded(t)
	dir := t.TempDir()
	s := openTest(t, dir, 1<<20)
	m := &model{first: 1, records: map[uint64][]byte{}}
	for range 6 {
		m.append(t, s, rnd)
	}
	segments, durable, acknowledged := len(s.Starts()), s.offset, m.last
	m.append(t, s, rnd)
	if len(s.Starts()) > segments {
		durable = 0
	}
	end, name := s.offset, fileName(s.Starts()[len(s.Starts())-1])
	must(t, s.Close())
	whole, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	for round := range 300 {
		torn := slices.Clone(whole)
		if round%2 == 0 {
			torn = torn[:durable+rnd.Int64N(end-durable+1)]
		} else { // some sectors never came to the disk
			for at := durable; at < end; {
				next := (at/512 + 1) * 512
				if rnd.IntN(3) == 0 {
					clear(torn[at:min(next, end)])
				}
				at = next
			}
		}
		crashed := t.TempDir()
		must(t, os.CopyFS(crashed, os.DirFS(dir)), os.WriteFile(filepath.Join(crashed, name), torn, 0o600))
		again := openTest(t, crashed, 1<<20)
		b := again.Bounds()
		if b.Last < acknowledged || b.Last > m.last {
			t.Fatalf("it ends with %d, of %d that were acknowledged and %d that were sent", b.Last, acknowledged, m.last)
		}
		left := model{first: 1, last: b.Last, records: maps.Clone(m.records)}
		left.check(t, again)
		left.append(t, again, rnd)
		left.check(t, again)
		must(t, again.Close())
		again = openTest(t, crashed, 1<<20)
		left.check(t, again)
		must(t, again.Close(), os.RemoveAll(crashed))
	}
}

func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, 10_000)
	for n := range uint64(30) {
		must(t, s.Append(n+1, bytes.Repeat([]byte{'a'}, 1000)))
	}
	starts := s.Starts()
	must(t, s.Close())
	if len(starts) < 3 {
		t.Fatalf("segments begin with %v", starts)
	}
	second := filepath.Join(dir, fileName(starts[1]))
	text, err := os.ReadFile(second)
	must(t, err)

	text[headerBytes+2000] ^= 4
	must(t, os.WriteFile(second, text, 0o600))
	s = openTest(t, dir, 10_000)
	if _, _, err := s.Read(starts[1] + 1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read a damaged record: %v", err)
	}
	for _, number := range []uint64{1, starts[1], starts[1] + 2, 30} {
		if _, _, err := s.Read(number); err != nil {
			t.Errorf("record %d beside a damaged one: %v", number, err)
		}
	}
	must(t, s.Close(), os.Truncate(second, 5000))
	s = openTest(t, dir, 10_000)
	if _, _, err := s.Read(starts[1] + 7); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read a record that was cut off: %v", err)
	}
	must(t, s.Close(), os.Remove(filepath.Join(dir, fileName(1))))
	if _, err := open(dir, 10_000); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open without the first segment: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, firstFile), []byte("x\n"), 0o600))
	if _, err := open(dir, 10_000); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open with a damaged beginning: %v", err)
	}
}

// A purge that was interrupted is finished, and numbers go on, whatever is left.
func TestPurgeInterrupted(t *testing.T) {
	for _, first := range []uint64{2, 12, 25, 31} {
		dir := t.TempDir()
		s := openTest(t, dir, 10_000)
		for n := range uint64(30) {
			must(t, s.Append(n+1, bytes.Repeat([]byte{'a'}, 1000)))
		}
		must(t, s.Close(), writeFirst(dir, first))
		s = openTest(t, dir, 10_000)
		if b := s.Bounds(); b.First != first || b.Last != 30 {
			t.Errorf("it holds %d to %d, want from %d on", b.First, b.Last, first)
		}
		if starts := s.Starts(); len(starts) > 0 && len(starts) > 1 && starts[1] <= first {
			t.Errorf("from %d on, segments begin with %v", first, starts)
		}
		must(t, s.Append(31, []byte("next")))
		must(t, s.Close())
		s = openTest(t, dir, 10_000)
		if data, _, err := s.Read(31); err != nil || string(data) != "next" {
			t.Errorf("from %d on: %q, %v", first, data, err)
		}
	}
}

// Readers at many places are right while more is appended and purged, also when there are more segments than are kept open.
func TestReadersAtManyPlaces(t *testing.T) {
	s := openTest(t, t.TempDir(), 3000)
	const count = 2000
	data := func(number uint64) []byte { return bytes.Repeat(fmt.Appendf(nil, "%d;", number), 20) }
	var readers sync.WaitGroup
	for i := range uint64(8) {
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(i, 1))
			for {
				b := s.Bounds()
				if b.Last == 0 {
					continue
				}
				number := b.First + rnd.Uint64N(b.Last-b.First+1)
				got, _, err := s.Read(number)
				if errors.Is(err, ErrNotFound) && number < s.Bounds().First {
					continue
				}
				if err != nil || !bytes.Equal(got, data(number)) {
					t.Errorf("record %d: %q, %v", number, got, err)
					return
				}
				if b.Last == count {
					return
				}
			}
		})
	}
	for n := uint64(1); n <= count; n++ {
		must(t, s.Append(n, data(n)))
		if n%500 == 0 {
			must(t, s.Purge(n/10))
		}
	}
	readers.Wait()
	if n := len(s.Starts()); n <= filesInUse {
		t.Errorf("%d segments: too few for this test", n)
	}
}

func TestClosed(t *testing.T) {
	s := openTest(t, t.TempDir(), 3000)
	must(t, s.Append(1, []byte("a")), s.Close(), s.Close())
	if err := s.Append(2, []byte("b")); !errors.Is(err, ErrClosed) {
		t.Errorf("append: %v", err)
	}
	if _, _, err := s.Read(1); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
}

// Whatever a segment holds, opening and reading it ends with records or an error.
func FuzzOpen(f *testing.F) {
	one := appendRecord(nil, 1, time.Now(), []byte("one"))
	two := appendRecord(slices.Clone(one), 2, time.Now(), []byte("two"))
	f.Add([]byte{})
	f.Add(make([]byte, 100))
	f.Add(one)
	f.Add(two[:len(two)-1])
	f.Add(append(slices.Clone(one), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Add(append([]byte{0, 0, 0, 0}, one[4:]...))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, fileName(1)), content, 0o600))
		s := openTest(t, dir, 10_000)
		b := s.Bounds()
		for n := b.First; n <= b.Last; n++ {
			if _, _, err := s.Read(n); err != nil {
				t.Errorf("record %d of %d: %v", n, b.Last, err)
			}
		}
		must(t, s.Append(b.Last+1, []byte("next")))
		sealed := &file{path: filepath.Join(dir, "sealed"), first: 1, size: int64(len(content))}
		must(t, os.WriteFile(sealed.path, content, 0o600))
		for n := range uint64(3) {
			_, _, err := sealed.read(n + 1)
			_ = err // it is damaged, most of the time
		}
		sealed.rest(true)
	})
}
