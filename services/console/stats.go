package console

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"orderflow/internal/aggregate"
	"orderflow/internal/process"
)

const (
	statsKey = "stats"
	maxTypes = 100 // that are counted apart
)

// flushEvery is how long a replica keeps what it has counted to itself.
const flushEvery = time.Second

// stats count what came. Letters are counted with the letter's own write, and a
// failure of the store in the middle may put them off by one. Events are counted
// by tally.
type stats struct {
	Events   map[string]int `json:"events"`   // by type; those of orders once each
	Letters  map[string]int `json:"letters"`  // by status
	Replayed int            `json:"replayed"` // came on the topic replay, as often as they came
}

// statsDocument is the document of stats. Added names the last counts that were added, for
// a write of which it is not known whether it was made.
type statsDocument struct {
	stats
	Added []string `json:"added,omitempty"`
}

// maxAdded bounds that list. A write is repeated within some ten seconds, in which each
// replica adds ten times: enough for a dozen of them.
const maxAdded = 128

func readStats(tx *aggregate.Tx) (*statsDocument, error) {
	s, err := aggregate.Get[statsDocument](tx, statsKey)
	if err != nil {
		return nil, err
	}
	if s == nil {
		s = &statsDocument{}
	}
	s.fill()
	return s, nil
}

func (s *stats) fill() {
	if s.Events == nil {
		s.Events = map[string]int{}
	}
	if s.Letters == nil {
		s.Letters = map[string]int{}
	}
}

func (s *stats) happened(eventType string, times int) {
	s.Events[countedAs(s.Events, eventType)] += times
}

// otherTypes is what types are counted as beyond the maxTypes that are counted
// apart.
const otherTypes = "other"

// countedAs is the name under which an event of the type is counted beside those that
// are counted already.
func countedAs(known map[string]int, eventType string) string {
	apart := len(known)
	if _, ok := known[otherTypes]; ok {
		apart--
	}
	if _, ok := known[eventType]; !ok && (apart >= maxTypes || len(eventType) > maxEventID) {
		return otherTypes
	}
	return eventType
}

// moved counts a letter that went from one status to another; "" is none.
func (s *stats) moved(from, to string) {
	if from != "" {
		s.Letters[from] = max(0, s.Letters[from]-1)
	}
	s.Letters[to]++
}

func (k *statsDocument) add(c *batch) {
	if slices.Contains(k.Added, c.id) {
		return
	}
	for eventType, times := range c.events {
		k.happened(eventType, times)
	}
	k.Replayed += c.replayed
	if k.Added = append(k.Added, c.id); len(k.Added) > maxAdded {
		k.Added = slices.Delete(k.Added, 0, 1)
	}
}

// tally counts events in memory and adds them to the stats about once a second, so
// that no event waits for a key that all others write too. Replicas add to the same
// document by compare-and-set. What a replica has counted is lost with it if it is
// killed: at most what the last second brought, or the time for which the store was
// away. The timelines are the truth; this is a gauge.
type tally struct {
	store     *aggregate.Store
	committer *aggregate.Committer
	log       *slog.Logger

	mu      sync.Mutex
	since   *batch // counted since the last flush
	flushed *batch // is being added, or nil

	flushing sync.Mutex // one flush at a time
	stop     func(context.Context) error
}

// batch is one addition; its id keeps it from being made twice.
type batch struct {
	id       string
	events   map[string]int
	replayed int
}

func newBatch() *batch { return &batch{id: rand.Text(), events: map[string]int{}} }

// newTally starts to count; Close ends it.
func newTally(store *aggregate.Store, committer *aggregate.Committer, log *slog.Logger) *tally {
	t := &tally{store: store, committer: committer, log: log, since: newBatch()}
	t.stop = process.Every(flushEvery, func(ctx context.Context) {
		if err := t.flush(ctx); err != nil && ctx.Err() == nil {
			log.Warn("the counts are not added yet", "error", err)
		}
	})
	return t
}

// Close adds what is left.
func (t *tally) Close(ctx context.Context) error {
	if err := t.stop(ctx); err != nil {
		return err
	}
	if err := t.flush(ctx); err != nil { // what an earlier one could not add
		return err
	}
	return t.flush(ctx)
}

func (t *tally) happened(eventType string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since.events[countedAs(t.since.events, eventType)]++
}

func (t *tally) replayed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since.replayed++
}

// flush adds what was counted. What it could not add it adds the next time, under
// the same name.
func (t *tally) flush(ctx context.Context) error {
	t.flushing.Lock()
	defer t.flushing.Unlock()
	t.mu.Lock()
	if t.flushed == nil && (len(t.since.events) > 0 || t.since.replayed > 0) {
		t.flushed, t.since = t.since, newBatch()
	}
	c := t.flushed
	t.mu.Unlock()
	if c == nil {
		return nil
	}
	err := t.committer.Do(ctx, []string{statsKey}, func(tx *aggregate.Tx) error {
		k, err := readStats(tx)
		if err != nil {
			return err
		}
		k.add(c)
		tx.PutAfter(statsKey, k) // as a letter does, with which it may be written together
		return nil
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.flushed = nil
	t.mu.Unlock()
	return nil
}

// stats are the counts so far: all that are stored, and this replica's own, which are
// looked at first: what is stored meanwhile is known by its id.
func (t *tally) stats(ctx context.Context) (stats, error) {
	t.mu.Lock()
	flushed, since := t.flushed, &batch{id: t.since.id, events: maps.Clone(t.since.events), replayed: t.since.replayed}
	t.mu.Unlock()
	docs, err := t.store.Load(ctx, statsKey)
	if err != nil {
		return stats{}, err
	}
	k, err := read[statsDocument](docs[statsKey])
	if err != nil && !errors.Is(err, errNotFound) {
		return stats{}, err
	}
	k.fill()
	if flushed != nil {
		k.add(flushed)
	}
	k.add(since)
	return k.stats, nil
}
