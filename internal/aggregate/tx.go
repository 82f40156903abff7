package aggregate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// Tx is what a command sees and changes: the documents of its keys, with what
// earlier commands of the same batch have put already.
type Tx struct {
	entries map[string]*entry
}

type entry struct {
	doc   Document
	value any
	put   bool
	stage stage
}

// Everything of a stage is written before anything of the next. Within a stage
// there is no order.
type stage int

const (
	before stage = iota
	main
	after
	stages
)

func newTx(docs map[string]Document) *Tx {
	tx := &Tx{entries: make(map[string]*entry, len(docs))}
	for key, d := range docs {
		tx.entries[key] = &entry{doc: d}
	}
	return tx
}

// Get is the value of key, or nil if there is none. The command must have named
// the key. The value may be changed in place, and then must be put.
func Get[T any](tx *Tx, key string) (*T, error) {
	e, ok := tx.entries[key]
	if !ok {
		return nil, fmt.Errorf("aggregate: key %s was not named by the command", key)
	}
	if e.value == nil {
		if e.doc.ETag == "" {
			return nil, nil
		}
		v := new(T)
		if err := json.Unmarshal(e.doc.Value, v); err != nil {
			return nil, fmt.Errorf("document %s can't be read: %w", key, err)
		}
		e.value = v
	}
	v, ok := e.value.(*T)
	if !ok {
		return nil, fmt.Errorf("aggregate: key %s holds a %T", key, e.value)
	}
	return v, nil
}

// Put sets the value of key, a pointer. A value that is what the store holds
// already is not written.
func (tx *Tx) Put(key string, value any) { tx.set(key, value, main) }

// PutBefore is Put for what must be in the store before anything that Put sets.
func (tx *Tx) PutBefore(key string, value any) { tx.set(key, value, before) }

// PutAfter is Put for what must not be in the store before everything that Put
// sets is.
func (tx *Tx) PutAfter(key string, value any) { tx.set(key, value, after) }

func (tx *Tx) set(key string, value any, s stage) {
	e, ok := tx.entries[key]
	if !ok {
		e = &entry{doc: Document{Key: key}}
		tx.entries[key] = e
	}
	e.value, e.put, e.stage = value, true, s
}

// writes are the documents to write, by stage, each in the order of its keys.
func (tx *Tx) writes() ([][]Document, error) {
	docs := make([][]Document, stages)
	for key, e := range tx.entries {
		if !e.put {
			continue
		}
		b, err := json.Marshal(e.value)
		if err != nil {
			return nil, fmt.Errorf("document %s: %w", key, err)
		}
		if bytes.Equal(b, e.doc.Value) {
			continue
		}
		docs[e.stage] = append(docs[e.stage], Document{Key: key, Value: b, ETag: e.doc.ETag})
	}
	for _, d := range docs {
		slices.SortFunc(d, func(a, b Document) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	}
	return slices.DeleteFunc(docs, func(d []Document) bool { return len(d) == 0 }), nil
}
