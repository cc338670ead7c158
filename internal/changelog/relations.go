package changelog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
)

// relationCache holds the relation versions that are known to be stored. There are as many as tables and changes of shape,
// so it is not bounded. The zero value is ready.
type relationCache struct {
	mu    sync.RWMutex
	known map[change.RelationHash]*change.Relation
}

func (c *relationCache) get(hash change.RelationHash) *change.Relation {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.known[hash]
}

func (c *relationCache) put(hash change.RelationHash, r *change.Relation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = make(map[change.RelationHash]*change.Relation)
	}
	c.known[hash] = r
}

// PutRelation makes a relation version durable; it has to be before the first change that names its hash. A version that is
// there already costs nothing. Relation versions outlive Reset and Purge: equal ones are stored once. The log keeps r.
func (l *Log) PutRelation(r *change.Relation) (change.RelationHash, error) {
	hash := r.Hash()
	if l.shapes.get(hash) != nil {
		return hash, nil
	}
	s := l.store.Load()
	_, err := s.relation(hash)
	if errors.Is(err, errNotStored) {
		if err = s.putRelation(hash, r); err == nil {
			fault.Point(FaultRelationStored)
		}
	}
	if err != nil {
		if errors.Is(err, ErrStore) {
			l.broken.Store(true)
		}
		return change.RelationHash{}, fmt.Errorf("store relation %s.%s: %w", r.Schema, r.Name, err)
	}
	l.shapes.put(hash, r)
	return hash, nil
}

// Relation returns a relation version. It is shared and must not be changed. It returns ErrUnknownRelation.
func (l *Log) Relation(hash change.RelationHash) (*change.Relation, error) {
	if r := l.shapes.get(hash); r != nil {
		return r, nil
	}
	r, err := l.store.Load().relation(hash)
	if errors.Is(err, errNotStored) {
		return nil, fmt.Errorf("read relation %x: %w", hash, ErrUnknownRelation)
	}
	if err != nil {
		return nil, fmt.Errorf("read relation %x: %w", hash, err)
	}
	l.shapes.put(hash, r)
	return r, nil
}

func relationName(hash change.RelationHash) string {
	return filepath.Join(relationsDir, hex.EncodeToString(hash[:]))
}

func (s *store) putRelation(hash change.RelationHash, r *change.Relation) error {
	m := &changev1.Relation{
		Hash: hash[:], Oid: r.OID, Schema: r.Schema, Name: r.Name, Identity: string(rune(r.Identity)),
		Columns: make([]*changev1.Column, len(r.Columns)),
	}
	for i, c := range r.Columns {
		m.Columns[i] = &changev1.Column{Name: c.Name, TypeOid: c.TypeOID, TypeModifier: c.TypeModifier, Key: c.Key}
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return s.put(relationName(hash), data)
}

// relation returns a stored relation version. It returns errNotStored.
func (s *store) relation(hash change.RelationHash) (*change.Relation, error) {
	data, err := s.get(relationName(hash))
	if err != nil {
		return nil, err
	}
	var m changev1.Relation
	if err := proto.Unmarshal(data, &m); err != nil || len(m.GetIdentity()) != 1 {
		return nil, fmt.Errorf("%w: relation %x: %w", ErrCorrupt, hash, err)
	}
	r := &change.Relation{OID: m.GetOid(), Schema: m.GetSchema(), Name: m.GetName(), Identity: change.Identity(m.GetIdentity()[0])}
	for _, c := range m.GetColumns() {
		r.Columns = append(r.Columns, change.Column{
			Name: c.GetName(), TypeOID: c.GetTypeOid(), TypeModifier: c.GetTypeModifier(), Key: c.GetKey(),
		})
	}
	if r.Hash() != hash {
		return nil, fmt.Errorf("%w: relation %x is not what was stored", ErrCorrupt, hash)
	}
	return r, nil
}
