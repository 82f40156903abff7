package aggregate

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
)

// Log is an append-only list that is part of an aggregate. Its newest entries
// stand in the aggregate's own document; older ones lie in pages, each a key of
// its own that never changes, so that neither grows without bound. A page holds
// only entries that were committed before it was cut off: whoever writes it
// writes the same, and no race can make two of it.
type Log[T any] struct {
	Pages int `json:"pages"` // full pages cut off so far
	Tail  []T `json:"tail"`

	committed int // entries of Tail that the store held when it was read
}

// UnmarshalJSON reads a log and remembers how much of it is committed.
func (l *Log[T]) UnmarshalJSON(b []byte) error {
	type plain Log[T]
	if err := json.Unmarshal(b, (*plain)(l)); err != nil {
		return err
	}
	l.committed = len(l.Tail)
	return nil
}

// Pages says where a log's pages lie, and how many entries each has.
type Pages struct {
	Prefix string
	Size   int
}

// Key is the state key of page n, counted from 0.
func (p Pages) Key(n int) string { return p.Prefix + strconv.Itoa(n) }

// Len counts all entries, those in pages too.
func (l Log[T]) Len(p Pages) int { return l.Pages*p.Size + len(l.Tail) }

// Append adds v, and cuts off pages once the tail has twice a page's size.
func (l *Log[T]) Append(tx *Tx, p Pages, v T) {
	l.Tail = append(l.Tail, v)
	for len(l.Tail) >= 2*p.Size && l.committed >= p.Size {
		page := append([]T(nil), l.Tail[:p.Size]...)
		tx.PutBefore(p.Key(l.Pages), &page)
		l.Tail = append([]T(nil), l.Tail[p.Size:]...)
		l.Pages++
		l.committed -= p.Size
	}
}

// Newest reads at most limit entries that stand before position end (counted
// from 0), the newest first. An end beyond the log's is its end.
func Newest[T any](ctx context.Context, s *Store, l Log[T], p Pages, end, limit int) ([]T, error) {
	end = min(end, l.Len(p))
	start := max(0, end-limit)
	if start >= end {
		return nil, nil
	}
	var keys []string
	for n := start / p.Size; n < l.Pages && n*p.Size < end; n++ {
		keys = append(keys, p.Key(n))
	}
	var docs map[string]Document
	if len(keys) > 0 {
		var err error
		if docs, err = s.Load(ctx, keys...); err != nil {
			return nil, err
		}
	}
	pages := make(map[int][]T, len(keys))
	entries := make([]T, 0, end-start)
	for i := end - 1; i >= start; i-- {
		n := i / p.Size
		if n >= l.Pages {
			entries = append(entries, l.Tail[i-l.Pages*p.Size])
			continue
		}
		if pages[n] == nil {
			var page []T
			if err := json.Unmarshal(docs[p.Key(n)].Value, &page); err != nil {
				return nil, fmt.Errorf("log page %s can't be read: %w", p.Key(n), err)
			}
			if len(page) != p.Size {
				return nil, fmt.Errorf("log page %s has %d entries, want %d", p.Key(n), len(page), p.Size)
			}
			pages[n] = page
		}
		entries = append(entries, pages[n][i-n*p.Size])
	}
	return entries, nil
}
