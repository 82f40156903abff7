package console

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/daprtest"
)

func (b *bench) timeline(orderID string) (line timeline) {
	b.tb.Helper()
	b.call("GET", "/orders/"+orderID+"/timeline", "", 200, &line)
	return line
}

func (b *bench) show(generation, want int) (p projection) {
	b.tb.Helper()
	if want != 200 {
		b.call("POST", "/admin/projection/show", fmt.Sprintf(`{"generation":%d}`, generation), want, nil)
		return
	}
	b.call("POST", "/admin/projection/show", fmt.Sprintf(`{"generation":%d}`, generation), want, &p)
	return p
}

// An order before, one during and one after the rebuild; an event of the first
// that was sent again from here.
func TestTimelinesAreRebuilt(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		first, second, third := reserved(t, "o-1"), reserved(t, "o-2"), reserved(t, "o-3")
		again := first
		again.ID += ":redrive:1"
		again.Time = noon.Add(time.Second)
		again.Redrive = events.Redrive{RedriveOf: first.ID, Redrives: 1, LetterID: "l"}
		b.deliver(events.TopicInventory, encode(t, first), "SUCCESS")
		b.deliver(events.TopicInventory, encode(t, again), "SUCCESS")
		b.deliver(events.TopicInventory, encode(t, second), "SUCCESS")
		before := b.timeline("o-1")

		var p projection
		b.show(2, 409) // before anybody has begun to build it
		for range 2 {
			b.call("POST", "/admin/projection/rebuild", "", 200, &p)
			if p.Shown != 1 || p.Building != 2 || p.Since.IsZero() {
				t.Fatalf("%+v", p)
			}
		}
		since := p.Since
		b.call("GET", "/admin/projection", "", 200, &p)
		if p.Since != since {
			t.Errorf("begun at %v, then at %v", since, p.Since)
		}
		if got := b.timeline("o-1"); !reflect.DeepEqual(got, before) {
			t.Errorf("shown while it is rebuilt: %+v, want %+v", got, before)
		}
		b.deliver(events.TopicInventory, encode(t, third), "SUCCESS")
		live := b.timeline("o-3")
		told := first
		told.TraceParent = "00-11111111111111111111111111111111-2222222222222222-01" // of the replay
		for range 2 {
			b.deliver(events.TopicReplay, encode(t, told), "SUCCESS")
		}
		for range 2 {
			if p := b.show(2, 200); p.Shown != 2 || p.Building != 0 || !p.Since.IsZero() {
				t.Errorf("%+v", p)
			}
		}
		b.show(1, 409)
		b.show(3, 409)
		b.show(0, 400)

		before.Events[0].TraceID = "" // a replay does not tell it
		if got := b.timeline("o-1"); !reflect.DeepEqual(got, before) {
			t.Errorf("rebuilt: %+v, want %+v", got, before)
		}
		if got := b.timeline("o-3"); !reflect.DeepEqual(got, live) {
			t.Errorf("what came meanwhile: %+v, want %+v", got, live)
		}
		b.call("GET", "/orders/o-2/timeline", "", 404, nil) // nobody has replayed it so far
		b.deliver(events.TopicReplay, encode(t, second), "SUCCESS")
		b.timeline("o-2")
		if s := b.stats(); s.Replayed != 3 {
			t.Errorf("%+v, want 3 replayed", s)
		}
		// Nothing of what is not shown is left of an order that was heard of since.
		if doc := string(b.State(historyKey("o-2"))); strings.Contains(doc, `"number":1`) || !strings.Contains(doc, `"number":2`) {
			t.Error(doc)
		}
	})
}

// A replica may have read the projection just before another one changed it. What
// it writes late must leave the newer generations alone.
func TestALateWriteLeavesNewerGenerations(t *testing.T) {
	h := history{OrderID: "o-1"}
	h.happened(projection{Shown: 2, Building: 3}, moment{ID: "a"})
	h.happened(projection{Shown: 1}, moment{ID: "b"})
	h.happened(projection{Shown: 3}, moment{ID: "c"})
	want := []generation{{Number: 3, moments: moments{Events: []moment{{ID: "a"}, {ID: "c"}}}}}
	if !reflect.DeepEqual(h.Generations, want) {
		t.Errorf("%+v, want %+v", h.Generations, want)
	}
}

func newReplica(t *testing.T, s *aggregate.Store) (*tally, *aggregate.Committer) {
	committer := aggregate.NewCommitter(s)
	t.Cleanup(committer.Close)
	counts := newTally(s, committer, slog.New(slog.DiscardHandler))
	return counts, committer
}

// The counts of two replicas add up, also where a write fails that was made.
func TestCountsAddUp(t *testing.T) {
	for name, mode := range map[string]daprtest.Mode{"redis-like": daprtest.RedisLike, "sql-like": daprtest.SQLLike} {
		t.Run(name, func(t *testing.T) {
			sidecar, client := daprtest.Start(t, mode)
			store := aggregate.NewStore(client, stateStore)
			one, _ := newReplica(t, store)
			two, committer := newReplica(t, store)
			const each = 200
			for i := range each {
				one.happened("A")
				two.happened("A")
				two.replayed()
				if i%50 == 0 {
					for _, r := range []*tally{one, two} {
						if err := r.flush(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			for _, r := range []*tally{one, two} {
				if err := r.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			got, err := one.stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got.Events["A"] != 2*each || got.Replayed != each {
				t.Errorf("%+v, want %d and %d", got, 2*each, each)
			}
			// What was read in the store may hold what is still to be added.
			c := &batch{id: "x", events: map[string]int{"B": 1}}
			for range 2 {
				err := committer.Do(t.Context(), []string{statsKey}, func(tx *aggregate.Tx) error {
					k, err := readStats(tx)
					if err != nil {
						return err
					}
					k.add(c)
					tx.PutAfter(statsKey, k)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if got, err = one.stats(t.Context()); err != nil || got.Events["B"] != 1 {
				t.Errorf("%+v (%v)", got, err)
			}
			if doc := string(sidecar.State(statsKey)); !strings.Contains(doc, `"A":400`) {
				t.Error(doc)
			}
		})
	}
}

// While the store is away counts are kept; they are added at the end at the latest.
func TestCountsOutliveTheStoresAbsence(t *testing.T) {
	sidecar, client := daprtest.Start(t, daprtest.SQLLike)
	store := aggregate.NewStore(client, stateStore)
	committer := aggregate.NewCommitter(store)
	t.Cleanup(committer.Close)
	// Without its clock, so that only what is called here adds anything.
	counts := &tally{store: store, committer: committer, since: newBatch(), stop: func(context.Context) error { return nil }}
	counts.happened("A")
	sidecar.Fail(func(string) error { return status.Error(codes.Unavailable, "away") })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := counts.flush(ctx); err == nil {
		t.Fatal("flushed into nothing")
	}
	counts.happened("A")
	sidecar.Fail(nil)
	if err := counts.Close(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := counts.stats(ctx)
	if err != nil || got.Events["A"] != 2 || !strings.Contains(string(sidecar.State(statsKey)), `"A":2`) {
		t.Errorf("%+v (%v), stored %s", got, err, sidecar.State(statsKey))
	}
}
