package console

import (
	"context"
	"slices"
	"time"

	"orderflow/internal/aggregate"
)

// Bounds of one document.
const (
	maxMoments = 100 // of an order's timeline; an order has a handful
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
	Came    int       `json:"came,omitempty"`      // as which of the order's it came, from 1; not stored
}

// moments are some of an order's, each event once.
type moments struct {
	Events  []moment `json:"events"`
	LeftOut int      `json:"leftOut,omitempty"` // more came than are kept
}

// add says whether m is new.
func (l *moments) add(m moment) bool {
	switch {
	case slices.ContainsFunc(l.Events, func(o moment) bool { return o.ID == m.ID }):
		return false
	case len(l.Events) == maxMoments:
		l.LeftOut++
	default:
		l.Events = append(l.Events, m)
	}
	return true
}

// timeline is what happened to an order, as people are shown it.
type timeline struct {
	OrderID string   `json:"orderId"`
	Events  []moment `json:"events"`
	LeftOut int      `json:"leftOut"`
}

// history is the document of an order: its timeline in each generation of the
// projection that still counts, which are one, or two while it is rebuilt; and
// what console itself sent again, of which no other service knows and no replay
// tells, so that it belongs to no generation.
type history struct {
	OrderID     string       `json:"orderId"`
	Generations []generation `json:"generations"`
	Redriven    moments      `json:"redriven,omitzero"`
}

type generation struct {
	Number int `json:"number"`
	moments
}

func historyKey(orderID string) string { return "history-" + orderID }

// happened adds m to every generation that p writes, and says whether it is new in
// the one that is shown. A generation that is older than that is dropped in
// passing; one that is newer stays, for p may have been read a moment ago.
func (h *history) happened(p projection, m moment) bool {
	if m.Redrive != "" {
		return h.Redriven.add(m)
	}
	h.Generations = slices.DeleteFunc(h.Generations, func(g generation) bool { return g.Number < p.Shown })
	isNew := false
	for _, number := range p.written() {
		i := slices.IndexFunc(h.Generations, func(g generation) bool { return g.Number == number })
		if i < 0 {
			i = len(h.Generations)
			h.Generations = append(h.Generations, generation{Number: number})
		}
		if h.Generations[i].add(m) && number == p.Shown {
			isNew = true
		}
	}
	return isNew
}

// timelines are the timelines of all orders, one key each.
type timelines struct {
	store     *aggregate.Store
	committer *aggregate.Committer
	tally     *tally
}

// happened adds m to the order's timeline, unless it is there already. An event
// of no order is only counted.
func (t *timelines) happened(ctx context.Context, orderID string, m moment) error {
	if orderID == "" {
		t.tally.happened(m.Type)
		return nil
	}
	isNew := false
	err := t.committer.Do(ctx, []string{projectionKey, historyKey(orderID)}, func(tx *aggregate.Tx) error {
		p, err := readProjection(tx)
		if err != nil {
			return err
		}
		h, err := aggregate.Get[history](tx, historyKey(orderID))
		if err != nil {
			return err
		}
		if h == nil {
			h = &history{OrderID: orderID}
		}
		if h.happened(*p, m) {
			isNew = true // also if the commit is made once more and finds it there
		}
		tx.Put(historyKey(orderID), h)
		return nil
	})
	if err == nil && isNew {
		t.tally.happened(m.Type)
	}
	return err
}

// of is the order's timeline by the events' times. Its error is errNotFound, or
// the store's.
func (t *timelines) of(ctx context.Context, orderID string) (timeline, error) {
	docs, err := t.store.Load(ctx, projectionKey, historyKey(orderID))
	if err != nil {
		return timeline{}, err
	}
	p, err := projectionOf(docs[projectionKey])
	if err != nil {
		return timeline{}, err
	}
	h, err := read[history](docs[historyKey(orderID)])
	if err != nil {
		return timeline{}, err
	}
	line := timeline{OrderID: orderID, Events: h.Redriven.Events, LeftOut: h.Redriven.LeftOut}
	for _, g := range h.Generations {
		if g.Number == p.Shown {
			for i := range g.Events {
				g.Events[i].Came = i + 1
			}
			line.Events = append(line.Events, g.Events...)
			line.LeftOut += g.LeftOut
		}
	}
	if len(line.Events) == 0 {
		return timeline{}, errNotFound
	}
	slices.SortStableFunc(line.Events, func(a, b moment) int { return a.Time.Compare(b.Time) })
	return line, nil
}
