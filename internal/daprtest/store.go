package daprtest

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	commonpb "github.com/dapr/dapr/pkg/proto/common/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Store is the state store of the stand-in, for tests that use it without a
// sidecar between.
type Store struct {
	mode Mode

	mu    sync.Mutex
	state map[string]record
}

type record struct {
	value   []byte
	version int
}

// NewStore is an empty store.
func NewStore(mode Mode) *Store { return &Store{mode: mode, state: map[string]record{}} }

// Get is the value of key and its ETag, which is empty if there is no such key.
func (s *Store) Get(key string) (value []byte, etag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(key)
}

func (s *Store) get(key string) (value []byte, etag string) {
	rec, ok := s.state[key]
	if !ok {
		return nil, ""
	}
	return rec.value, strconv.Itoa(rec.version)
}

// Set has key hold value, whatever is there.
func (s *Store) Set(key string, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state[key] = record{value, s.state[key].version + 1}
}

// Keys counts the keys, but for those that begin with one of the prefixes.
func (s *Store) Keys(except ...string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.state {
		if !slices.ContainsFunc(except, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			n++
		}
	}
	return n
}

// Save sets one item, if its condition holds.
func (s *Store) Save(item *commonpb.StateItem) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.fits(item, false) {
		return status.Error(codes.Aborted, "possible etag mismatch")
	}
	s.set(item)
	return nil
}

// Transact sets items as the store's mode has it.
func (s *Store) Transact(items ...*commonpb.StateItem) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var fitting []*commonpb.StateItem
	for _, item := range items {
		if s.fits(item, true) {
			fitting = append(fitting, item)
		}
	}
	failed := len(fitting) < len(items)
	if !failed || s.mode == RedisLike {
		for _, item := range fitting {
			s.set(item)
		}
	}
	if failed {
		return status.Error(codes.Internal, "failed to set key")
	}
	return nil
}

// fits says whether the item's condition holds. In a transaction a RedisLike
// store does not know the condition "must not exist".
func (s *Store) fits(item *commonpb.StateItem, inTransaction bool) bool {
	_, etag := s.get(item.GetKey())
	switch {
	case item.GetOptions().GetConcurrency() != commonpb.StateOptions_CONCURRENCY_FIRST_WRITE:
		return true // last write wins: what the SDK asks for unless told otherwise
	case item.GetEtag() != nil:
		return etag != "" && item.GetEtag().GetValue() == etag
	case inTransaction && s.mode == RedisLike:
		return true
	}
	return etag == ""
}

func (s *Store) set(item *commonpb.StateItem) {
	s.state[item.GetKey()] = record{value: item.GetValue(), version: s.state[item.GetKey()].version + 1}
}
