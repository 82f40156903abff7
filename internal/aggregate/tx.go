package aggregate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
)

// Tx is what a command sees and changes: the documents of its keys, with what
// earlier commands of the same batch have put already.
type Tx struct {
	entries map[string]*entry
	command *command // that decides now
	clash   bool     // it put a key in another stage than one before it did
	spoilt  bool     // a command failed after it may have changed values
}

type entry struct {
	doc   Document
	value any
	by    *command // that put it last, or nil
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
		v, err := Value[T](e.doc)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFault, err)
		}
		if v == nil {
			return nil, nil
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
	if v := reflect.ValueOf(value); v.Kind() != reflect.Pointer || v.IsNil() {
		panic(fmt.Sprintf("aggregate: the value of key %s is %#v, want a pointer", key, value))
	}
	e, ok := tx.entries[key]
	if !ok {
		e = &entry{doc: Document{Key: key}}
		tx.entries[key] = e
	}
	if !slices.Contains(tx.command.keys, key) && !slices.Contains(tx.command.unnamed, key) {
		tx.command.unnamed = append(tx.command.unnamed, key)
	}
	if e.by != nil && e.by != tx.command && e.stage != s {
		tx.clash = true
	}
	e.value, e.by, e.stage = value, tx.command, s
}

// run lets a command decide, unless nobody waits for it any more. Once it has
// decided it is carried through, for something of it may be in the store.
func (tx *Tx) run(cmd *command) (err error) {
	if cmd.failed != nil {
		return cmd.failed
	}
	if !cmd.decided {
		if err := cmd.ctx.Err(); err != nil {
			return err
		}
	}
	defer func() {
		if cause := recover(); cause != nil {
			tx.strike(cmd, fmt.Errorf("%w: panic: %v\n%s", ErrFault, cause, debug.Stack()))
		}
	}()
	cmd.decided = true
	tx.command = cmd
	return cmd.decide(tx)
}

// strike leaves cmd out of every batch from now on.
func (tx *Tx) strike(cmd *command, why error) { cmd.failed, tx.spoilt = why, true }

// writes are the documents to write, by stage, each in the order of its keys. It
// strikes the command of a value that can't be stored.
func (tx *Tx) writes() [][]Document {
	docs := make([][]Document, stages)
	for key, e := range tx.entries {
		if e.by == nil {
			continue
		}
		b, err := json.Marshal(e.value)
		if err == nil && len(b) > maxWriteBytes {
			err = fmt.Errorf("%d bytes are too many for one key", len(b))
		}
		if err != nil {
			tx.strike(e.by, fmt.Errorf("%w: document %s: %w", ErrFault, key, err))
			return nil
		}
		if bytes.Equal(b, e.doc.Value) {
			continue
		}
		docs[e.stage] = append(docs[e.stage], Document{Key: key, Value: b, ETag: e.doc.ETag})
	}
	for _, d := range docs {
		slices.SortFunc(d, func(a, b Document) int { return strings.Compare(a.Key, b.Key) })
	}
	return slices.DeleteFunc(docs, func(d []Document) bool { return len(d) == 0 })
}
