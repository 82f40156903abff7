package aggregate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"orderflow/internal/daprtest"
)

// appendTo appends v to the log under key, unless its tail has it.
func appendTo(key string, p Pages, v int) func(*Tx) error {
	return func(tx *Tx) error {
		l, err := Get[Log[int]](tx, key)
		if err != nil {
			return err
		}
		if l == nil {
			l = &Log[int]{}
		}
		if !slices.Contains(l.Tail, v) {
			l.Append(tx, p, v)
		}
		tx.Put(key, l)
		return nil
	}
}

func readLog(t *rapid.T, s *daprtest.Sidecar, key string) Log[int] {
	var l Log[int]
	if b := s.State(key); b != nil {
		if err := json.Unmarshal(b, &l); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// A log holds what was appended, in order, however writers die on the way; its
// pages never change and its document does not grow.
func TestLogHoldsWhatWasAppended(t *testing.T) {
	for name, mode := range map[string]daprtest.Mode{"Redis": daprtest.RedisLike, "SQL": daprtest.SQLLike} {
		t.Run(name, func(t *testing.T) {
			s, client := daprtest.Start(t, mode)
			store := NewStore(client, "statestore")
			round := 0
			rapid.Check(t, func(t *rapid.T) {
				round++
				key := fmt.Sprintf("log%d", round)
				p := Pages{Prefix: key + ":", Size: rapid.IntRange(1, 4).Draw(t, "page size")}
				var model []int
				pages := map[int]string{} // as they were first seen
				largest := 0
				for range rapid.IntRange(1, 12).Draw(t, "batches") {
					n := rapid.IntRange(1, 9).Draw(t, "appended")
					largest = max(largest, n)
					var batch []*command
					for i := range n {
						batch = append(batch, &command{ctx: t.Context(), keys: []string{key}, decide: appendTo(key, p, len(model)+i)})
					}
					crash := rapid.Int64Range(0, 8).Draw(t, "crash at write") // 0: none
					failNth(s, crash)
					c := &Committer{store: store}
					for _, cmd := range batch {
						cmd.answer = make(chan error, 1)
					}
					if _, err := c.attempt(time.Now().Add(patience), batch); err != nil {
						s.Fail(nil)
						// The log is as it was or as it was to be, and can be read.
						got := whole(t, store, readLog(t, s, key), p)
						if len(got) != len(model) && len(got) != len(model)+n {
							t.Fatalf("after a crash there are %d entries; there were %d and %d were to come", len(got), len(model), n)
						}
						// Another writer does it again.
						for _, err := range together(store, patience, batch...) {
							if err != nil {
								t.Fatal(err)
							}
						}
					}
					s.Fail(nil)
					for range n {
						model = append(model, len(model))
					}
					l := readLog(t, s, key)
					if got := whole(t, store, l, p); !slices.Equal(got, model) {
						t.Fatalf("the log holds %v, want %v", got, model)
					}
					if l.Len(p) != len(model) {
						t.Fatalf("Len is %d, want %d", l.Len(p), len(model))
					}
					if len(l.Tail) >= 2*p.Size+largest {
						t.Fatalf("a tail of %d entries with pages of %d and batches of up to %d", len(l.Tail), p.Size, largest)
					}
					for i := range l.Pages {
						page := string(s.State(p.Key(i)))
						if first, ok := pages[i]; ok && page != first {
							t.Fatalf("page %d was %s and is %s", i, first, page)
						}
						pages[i] = page
					}
				}

				end := rapid.IntRange(-1, len(model)+3).Draw(t, "end")
				limit := rapid.IntRange(-1, len(model)+3).Draw(t, "limit")
				got, err := Newest(t.Context(), store, readLog(t, s, key), p, end, limit)
				if err != nil {
					t.Fatal(err)
				}
				stop := max(0, min(end, len(model)))
				want := slices.Clone(model[max(0, stop-max(0, limit)):stop])
				slices.Reverse(want)
				if !slices.Equal(got, want) {
					t.Fatalf("the newest %d before %d of %d with pages of %d: %v, want %v", limit, end, len(model), p.Size, got, want)
				}
			})
		})
	}
}

// whole is the log from its oldest entry on.
func whole(t *rapid.T, store *Store, l Log[int], p Pages) []int {
	all, err := Newest(t.Context(), store, l, p, l.Len(p), l.Len(p))
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(all)
	return all
}

func TestNewestAtEveryBoundary(t *testing.T) {
	s, client := daprtest.Start(t, daprtest.SQLLike)
	store := NewStore(client, "statestore")
	p := Pages{Prefix: "log:", Size: 3}
	const entries = 20
	for i := range entries {
		noErrors(t, together(store, patience, &command{keys: []string{"log"}, decide: appendTo("log", p, i)})...)
	}
	var l Log[int]
	noErrors(t, json.Unmarshal(s.State("log"), &l))
	if l.Pages < 3 || len(l.Tail) < p.Size {
		t.Fatalf("%d pages and a tail of %d", l.Pages, len(l.Tail))
	}
	for end := range entries + 1 {
		for limit := range entries + 1 {
			one, many := s.Calls("GetState"), s.Calls("GetBulkState")
			got, err := Newest(t.Context(), store, l, p, end, limit)
			noErrors(t, err)
			var want []int
			for i := end - 1; i >= max(0, end-limit); i-- {
				want = append(want, i)
			}
			if !slices.Equal(got, want) {
				t.Errorf("the newest %d before %d: %v, want %v", limit, end, got, want)
			}
			one, many = s.Calls("GetState")-one, s.Calls("GetBulkState")-many
			first, last := max(0, end-limit)/p.Size, min((end-1)/p.Size, l.Pages-1)
			pages := last - first + 1 // that hold some of it
			if len(want) == 0 {
				pages = 0
			}
			if wantOne, wantMany := pages == 1, pages > 1; (one == 1) != wantOne || (many == 1) != wantMany || one+many > 1 {
				t.Errorf("the newest %d before %d: %d reads of one page and %d of several, for %d pages", limit, end, one, many, pages)
			}
		}
	}
}

func TestNewestSaysWhichPageIsBroken(t *testing.T) {
	for name, page := range map[string]string{"missing": "", "cut": `[1`, "short": `[1]`} {
		t.Run(name, func(t *testing.T) {
			_, client := daprtest.Start(t, daprtest.SQLLike)
			store := NewStore(client, "statestore")
			if page != "" {
				noErrors(t, store.Write(t.Context(), Document{Key: "log:0", Value: []byte(page)}))
			}
			_, err := Newest(t.Context(), store, Log[int]{Pages: 1}, Pages{Prefix: "log:", Size: 2}, 2, 2)
			if err == nil || !strings.Contains(err.Error(), "log:0") {
				t.Errorf("%v, want an error that names the page", err)
			}
		})
	}
}
