// Package aggregate keeps aggregates in a Dapr state store: one key each,
// changed by compare-and-set and by nothing else.
//
// A command names the keys it must see and decides over what they hold.
// Commands that arrive together are decided in turn and written together (group
// commit); a command that arrives alone is not made to wait for company:
//
//	Do ─▶ queue ─▶ load all keys ─▶ decide, in turn ─▶ write ─▶ answer all
//	                    ▲                                │ any error
//	                    └────────────────────────────────┘
//
// Three things that state stores do behind Dapr shape it. A transaction on
// Redis is not rolled back, so every key must be right by itself, and a batch
// that was half applied is decided again over what it left. The code of an error
// does not tell a lost race from a broken connection, so after any error the
// truth is read back. And a key is created only by a save of its own, since a
// transaction on Redis does not refuse to create what exists already.
package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"golang.org/x/sync/errgroup"
)

// ErrNotLoaded says that the store did not answer in time or with an error: the
// same read may be possible later.
var ErrNotLoaded = errors.New("not loaded")

const (
	loadTimeout = 5 * time.Second
	maxReads    = 32
)

// Sizes of one call to the sidecar, whose limit is 4 MiB for a message. DynamoDB
// refuses a transaction over more than 100 keys.
const (
	maxReadKeys   = 256
	maxWriteKeys  = 100
	maxWriteBytes = 2 << 20
)

// firstWrite goes with every write: Dapr's client asks for last-write unless
// told otherwise, and Redis then ignores the ETag.
var firstWrite = &dapr.StateOptions{Concurrency: dapr.StateConcurrencyFirstWrite, Consistency: dapr.StateConsistencyStrong}

// Document is what the store holds under a key. Its ETag is empty if the key
// does not exist.
type Document struct {
	Key   string
	Value []byte
	ETag  string
}

// Value is what the document holds, or nil if its key does not exist.
func Value[T any](d Document) (*T, error) {
	if d.ETag == "" {
		return nil, nil
	}
	v := new(T)
	if err := json.Unmarshal(d.Value, v); err != nil {
		return nil, fmt.Errorf("document %s can't be read: %w", d.Key, err)
	}
	return v, nil
}

// Store is a Dapr state store with transactions and ETags.
type Store struct {
	client dapr.Client
	name   string
	reads  chan struct{} // one for each read that is under way
}

// NewStore is the state store component of that name.
func NewStore(client dapr.Client, name string) *Store {
	return &Store{client: client, name: name, reads: make(chan struct{}, maxReads)}
}

// Load reads keys, each as it was at some moment of the call: there is no
// snapshot over several. A key that does not exist has a Document without ETag.
// Its error wraps ErrNotLoaded.
//
// It returns when ctx ends, but what it asked of the sidecar is carried through, for
// as long as a read may take: a read of Dapr 1.18's SQLite component that is cut off
// in the middle can leave a connection behind through which nothing is written any
// more ("database is locked (517)") until the sidecar is started anew. So that
// callers who come and leave don't pile reads up, no more than maxReads are under
// way; the next waits.
func (s *Store) Load(ctx context.Context, keys ...string) (map[string]Document, error) {
	type outcome struct {
		docs map[string]Document
		err  error
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	select {
	case s.reads <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNotLoaded, ctx.Err())
	}
	loaded := make(chan outcome, 1)
	go func() {
		defer func() { <-s.reads }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
		defer cancel()
		docs, err := s.load(ctx, keys)
		loaded <- outcome{docs, err}
	}()
	var o outcome
	select {
	case o = <-loaded:
	case <-ctx.Done():
		o.err = ctx.Err()
	}
	if o.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotLoaded, o.err)
	}
	return o.docs, nil
}

func (s *Store) load(ctx context.Context, keys []string) (map[string]Document, error) {
	docs := make(map[string]Document, len(keys))
	if len(keys) == 1 {
		item, err := s.client.GetState(ctx, s.name, keys[0], nil)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", keys[0], err)
		}
		docs[keys[0]] = Document{Key: keys[0], Value: item.Value, ETag: item.Etag}
		return docs, nil
	}
	for chunk := range slices.Chunk(keys, maxReadKeys) {
		items, err := s.client.GetBulkState(ctx, s.name, chunk, nil, int32(len(chunk)))
		if err != nil {
			return nil, fmt.Errorf("load %d keys from %s: %w", len(chunk), chunk[0], err)
		}
		for _, item := range items {
			if item.Error != "" {
				return nil, fmt.Errorf("load %s: %s", item.Key, item.Error)
			}
			docs[item.Key] = Document{Key: item.Key, Value: item.Value, ETag: item.Etag}
		}
		for _, key := range chunk {
			if _, ok := docs[key]; !ok {
				return nil, fmt.Errorf("load %s: the state store left it out of its answer", key)
			}
		}
	}
	return docs, nil
}

// Write sets each document if the key still has its ETag, or, where that is
// empty, does not exist. After an error any of them may have been written: the
// caller reads them again and decides anew.
func (s *Store) Write(ctx context.Context, docs ...Document) error {
	var created, changed []Document
	for _, d := range docs {
		if d.ETag == "" {
			created = append(created, d)
		} else {
			changed = append(changed, d)
		}
	}
	// Neither ends the other one: what is cut off in the middle leaves less known.
	var group errgroup.Group
	group.Go(func() error { return each(created, func(c []Document) error { return s.save(ctx, c) }) })
	group.Go(func() error { return each(changed, func(c []Document) error { return s.transact(ctx, c) }) })
	return group.Wait()
}

// each calls f with pieces of docs that fit into a message.
func each(docs []Document, f func([]Document) error) error {
	for start := 0; start < len(docs); {
		end, size := start, 0
		for end < len(docs) && end-start < maxWriteKeys && (end == start || size+len(docs[end].Value) <= maxWriteBytes) {
			size += len(docs[end].Value)
			end++
		}
		if err := f(docs[start:end]); err != nil {
			return err
		}
		start = end
	}
	return nil
}

// save writes each document by itself, in one call.
func (s *Store) save(ctx context.Context, docs []Document) error {
	items := make([]*dapr.SetStateItem, len(docs))
	for i, d := range docs {
		items[i] = item(d)
	}
	if err := s.client.SaveBulkState(ctx, s.name, items...); err != nil {
		return fmt.Errorf("save %s and %d more: %w", docs[0].Key, len(docs)-1, err)
	}
	return nil
}

func (s *Store) transact(ctx context.Context, docs []Document) error {
	if len(docs) == 1 {
		return s.save(ctx, docs)
	}
	ops := make([]*dapr.StateOperation, len(docs))
	for i, d := range docs {
		ops[i] = &dapr.StateOperation{Type: dapr.StateOperationTypeUpsert, Item: item(d)}
	}
	if err := s.client.ExecuteStateTransaction(ctx, s.name, nil, ops); err != nil {
		return fmt.Errorf("transaction over %s and %d more: %w", docs[0].Key, len(docs)-1, err)
	}
	return nil
}

func item(d Document) *dapr.SetStateItem {
	i := &dapr.SetStateItem{Key: d.Key, Value: d.Value, Options: firstWrite}
	if d.ETag != "" {
		i.Etag = &dapr.ETag{Value: d.ETag}
	}
	return i
}
