package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"orderflow/internal/aggregate"
)

// Bounds of one document.
const (
	maxMoments = 100 // of an order's timeline; an order has a handful
	maxTypes   = 100 // that stats count apart
	maxEventID = 512 // bytes
)

// moment is an event in the timeline of an order.
type moment struct {
	ID      string    `json:"id"`
	Type    string    `json:"type"`
	Source  string    `json:"source"` // the service that said it
	Topic   string    `json:"topic"`
	Time    time.Time `json:"time"`
	TraceID string    `json:"traceId,omitempty"`
	Redrive string    `json:"redriveOf,omitempty"` // the event that it is again
}

// timeline is what happened to an order, as it came here.
type timeline struct {
	OrderID string   `json:"orderId"`
	Events  []moment `json:"events"`
	LeftOut int      `json:"leftOut"` // more came than are kept
}

// stats count what came. They are kept beside what they count, and a failure of
// the store in the middle may put them off by one.
type stats struct {
	Events  map[string]int `json:"events"`  // by type; those of orders once each
	Letters map[string]int `json:"letters"` // by status
}

const statsKey = "stats"

func timelineKey(orderID string) string { return "timeline-" + orderID }

// timelines are the timelines of all orders, one key each.
type timelines struct {
	store     *aggregate.Store
	committer *aggregate.Committer
}

// happened adds m to the order's timeline, unless it is there already. An event
// of no order is only counted.
func (t *timelines) happened(ctx context.Context, orderID string, m moment) error {
	keys := []string{statsKey}
	if orderID != "" {
		keys = append(keys, timelineKey(orderID))
	}
	return t.committer.Do(ctx, keys, func(tx *aggregate.Tx) error {
		counts, err := readStats(tx)
		if err != nil {
			return err
		}
		if orderID != "" {
			line, err := aggregate.Get[timeline](tx, timelineKey(orderID))
			if err != nil {
				return err
			}
			if line == nil {
				line = &timeline{OrderID: orderID}
			}
			switch {
			case slices.ContainsFunc(line.Events, func(o moment) bool { return o.ID == m.ID }):
				return nil
			case len(line.Events) == maxMoments:
				line.LeftOut++
			default:
				line.Events = append(line.Events, m)
			}
			tx.Put(timelineKey(orderID), line)
		}
		counts.happened(m.Type)
		tx.Put(statsKey, counts) // with the timeline, in one write: this is once for every event
		return nil
	})
}

// of is the order's timeline by the events' times. Its error is errNotFound, or
// the store's.
func (t *timelines) of(ctx context.Context, orderID string) (timeline, error) {
	var line timeline
	if err := t.read(ctx, timelineKey(orderID), &line); err != nil {
		return timeline{}, err
	}
	slices.SortStableFunc(line.Events, func(a, b moment) int { return a.Time.Compare(b.Time) })
	return line, nil
}

// stats are the counts so far.
func (t *timelines) stats(ctx context.Context) (stats, error) {
	counts := stats{Events: map[string]int{}, Letters: map[string]int{}}
	if err := t.read(ctx, statsKey, &counts); err != nil && !errors.Is(err, errNotFound) {
		return stats{}, err
	}
	return counts, nil
}

func (t *timelines) read(ctx context.Context, key string, v any) error {
	docs, err := t.store.Load(ctx, key)
	if err != nil {
		return err
	}
	if docs[key].ETag == "" {
		return errNotFound
	}
	if err := json.Unmarshal(docs[key].Value, v); err != nil {
		return fmt.Errorf("document %s can't be read: %w", key, err)
	}
	return nil
}

func readStats(tx *aggregate.Tx) (*stats, error) {
	s, err := aggregate.Get[stats](tx, statsKey)
	if err != nil {
		return nil, err
	}
	if s == nil {
		s = &stats{}
	}
	if s.Events == nil {
		s.Events = map[string]int{}
	}
	if s.Letters == nil {
		s.Letters = map[string]int{}
	}
	return s, nil
}

func (s *stats) happened(eventType string) {
	if _, known := s.Events[eventType]; !known && (len(s.Events) >= maxTypes || len(eventType) > maxEventID) {
		eventType = "other"
	}
	s.Events[eventType]++
}

// moved counts a letter that went from one status to another; "" is none.
func (s *stats) moved(from, to string) {
	if from != "" {
		s.Letters[from] = max(0, s.Letters[from]-1)
	}
	s.Letters[to]++
}
