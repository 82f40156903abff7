package order

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/process"
	"orderflow/services/order/internal/order"
)

const (
	// sweepKey is the state key of the sweep.
	sweepKey = "sweep"
	// leaseFor is how long one process is the one that sweeps without saying so
	// again.
	leaseFor = 10 * time.Second
	// maxOpen bounds the orders that the sweep keeps in mind one by one.
	maxOpen = 2000
	// voidAfter is when an index entry without an order is taken for that of a
	// request that died. The order is written within seconds of the entry
	// (aggregate.Committer) unless the sidecar is stopped in between.
	voidAfter = 10 * time.Minute
)

// sweep is the document of the sweep: how far the index has been walked, and
// what was found open on the way. Every order is looked at once after it is
// placed and, while it is open, again and again: the cost of a sweep follows
// the number of open orders, and not that of all orders.
type sweep struct {
	Owner    string    `json:"owner"` // the process that sweeps
	Until    time.Time `json:"until"` // and until when it surely does
	Position int       `json:"position"`
	Open     []open    `json:"open"`
}

type open struct {
	entry
	Told  time.Time `json:"told,omitzero"`   // when its last event was last told again
	Times int       `json:"times,omitempty"` // and how often it was
}

// maxDoubled bounds how often the pause between two times of telling an event is
// doubled. Who is behind with a long queue is not helped by a longer one.
const maxDoubled = 3

// sweeper sees to it that every order comes to its end and every end has its
// effects, whatever was lost on the way: events of which the broker's word was
// good and worthless, answers, whole processes between a commit and a publish.
// It tells an order's last event again, under the same id, until the other
// services have on record what follows from it, at growing intervals.
//
// Any number of processes may run one: the document says who sweeps. Should two
// do it at once, they tell the same events twice, which changes nothing.
type sweeper struct {
	orders *orders
	outbox *outbox
	// effects asks the others; with an error it may still say what inventory did.
	effects  func(ctx context.Context, ids []string) (map[string]order.Effects, error)
	owner    string // this process
	patience order.Patience
	maxOpen  int // with more orders open, the rest waits in the index, where it stands anyway
	log      *slog.Logger

	// A service that was away has a queue to work off before anything can have had its
	// effect; telling it all again at once would make the queue twice as long. So, from
	// back, when the others could be asked again, it is given the time.
	mu   sync.Mutex // guards these two: nothing keeps two sweeps apart within a process
	away bool
	back time.Time
}

// start sweeps again and again until the function that it answers is called, which
// waits for the sweep that runs to be broken off.
func (s *sweeper) start(every time.Duration) (stop func(context.Context) error) {
	return process.Every(every, func(ctx context.Context) {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "sweep broken off", "error", err)
		}
	})
}

// errNotMine: another process sweeps.
var errNotMine = errors.New("another process sweeps")

// sweep goes once over the open orders and those placed since the last time.
func (s *sweeper) sweep(ctx context.Context) error {
	state, err := s.lease(ctx, nil)
	if errors.Is(err, errNotMine) {
		return nil
	}
	if err != nil {
		return err
	}
	var still []open
	for chunk := range slices.Chunk(state.Open, maxAsked) {
		left, err := s.examine(ctx, chunk)
		if err != nil {
			return err
		}
		still = append(still, left...)
	}
	state.Open = still
	for {
		next, err := s.placed(ctx, state.Position, min(maxAsked, s.maxOpen-len(state.Open)))
		if err != nil {
			return err
		}
		if len(next) == 0 {
			break
		}
		left, err := s.examine(ctx, next)
		if err != nil {
			return err
		}
		state.Position += len(next)
		state.Open = append(state.Open, left...)
		if s.orders.now().After(state.Until.Add(-leaseFor / 2)) {
			break // the next sweep goes on
		}
	}
	_, err = s.lease(ctx, &state)
	return err
}

// lease takes or keeps the sweep for this process, for leaseFor from now. What
// was done is recorded; nil is at the beginning, where there is nothing yet. Its
// error is errNotMine, or the committer's.
func (s *sweeper) lease(ctx context.Context, done *sweep) (sweep, error) {
	now := s.orders.now()
	var state sweep
	err := s.orders.committer.Do(ctx, []string{sweepKey}, func(tx *aggregate.Tx) error {
		d, err := aggregate.Get[sweep](tx, sweepKey)
		if err != nil {
			return err
		}
		if d == nil {
			d = &sweep{}
		}
		if d.Owner != s.owner && (done != nil || now.Before(d.Until)) {
			return errNotMine
		}
		if done != nil {
			*d = *done
		}
		d.Owner, d.Until = s.owner, now.Add(leaseFor)
		state = *d
		tx.Put(sweepKey, d)
		return nil
	})
	return state, err
}

// placed reads the next entries of the index from position on, at most limit of
// them, that have had the time to come to their end by themselves.
func (s *sweeper) placed(ctx context.Context, position, limit int) ([]open, error) {
	log, err := s.orders.index(ctx, allOrders)
	if err != nil {
		return nil, err
	}
	end := min(position+limit, log.Len(pagesOf(allOrders)))
	entries, err := aggregate.Newest(ctx, s.orders.store, log, pagesOf(allOrders), end, end-position)
	if err != nil {
		return nil, err
	}
	var due []open
	for _, e := range slices.Backward(entries) {
		if s.orders.now().Sub(e.At) < s.patience.Effect {
			break
		}
		due = append(due, open{entry: e})
	}
	return due, nil
}

// examine takes the next step about each of the orders and returns those that
// stay open.
func (s *sweeper) examine(ctx context.Context, orders []open) ([]open, error) {
	keys, ids := make([]string, len(orders)), make([]string, len(orders))
	for i, o := range orders {
		keys[i], ids[i] = orderKey(o.ID), o.ID
	}
	docs, err := s.orders.store.Load(ctx, keys...)
	if err != nil {
		return nil, err
	}
	effects, unknown := s.effects(ctx, ids)
	if unknown != nil {
		s.log.WarnContext(ctx, "the sweep can't ask what became of orders", "error", unknown)
	}
	back := s.heard(unknown == nil)
	var still []open
	var told []int // of still
	var tell []events.Event
	for i, o := range orders {
		stays, last, err := s.advance(ctx, &o, docs[keys[i]], effects, unknown == nil, back)
		if err != nil { // of this order: the others are not to wait for it
			s.log.ErrorContext(ctx, "the sweep can't advance an order", "order_id", o.ID, "error", err)
		}
		if last != nil {
			told, tell = append(told, len(still)), append(tell, *last)
		}
		if stays {
			still = append(still, o)
		}
	}
	if err := s.outbox.publish(ctx, tell...); err != nil {
		s.log.WarnContext(ctx, "the sweep can't publish", "events", len(tell), "error", err)
		return still, nil // all are told again: some were, but the broker is in trouble
	}
	for _, i := range told {
		still[i].Told = s.orders.now()
		still[i].Times++
	}
	return still, nil
}

// heard notes whether all others could be asked, and returns when they could again, if
// they are given time from then on still. One that comes and goes does not have
// everything held back each time.
func (s *sweeper) heard(all bool) (back time.Time) {
	now := s.orders.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if all && s.away && now.Sub(s.back) >= s.patience.Effect<<maxDoubled {
		s.back = now
	}
	s.away = !all
	if now.Sub(s.back) < s.patience.Effect {
		return s.back
	}
	return time.Time{}
}

// advance takes the next step about one order, and says whether it stays open and
// which event is to be told again, if one is. Unless all is true, of the effects only
// those on stock are known, or none. What was told before back counts as told then.
func (s *sweeper) advance(ctx context.Context, entry *open, doc aggregate.Document, effects map[string]order.Effects, all bool, back time.Time) (stays bool, tell *events.Event, err error) {
	history, err := historyOf(doc, entry.ID)
	if errors.Is(err, errArchived) {
		return false, nil, nil // it was settled before
	}
	if errors.Is(err, errNotFound) {
		return s.orders.now().Sub(entry.At) < voidAfter, nil, nil
	}
	if err != nil {
		return true, nil, err
	}
	o, err := order.Fold(history)
	if err != nil {
		return true, nil, err
	}
	var known *order.Effects
	if effects != nil && (all || !o.Status.Final()) {
		e := effects[entry.ID]
		known = &e
	}
	if !entry.Told.After(o.UpdatedAt) {
		entry.Times = 0 // that was another event
	}
	patience := s.patience
	patience.Effect <<= min(entry.Times, maxDoubled)
	last := history[len(history)-1]
	told := entry.Told
	if told.Before(back) {
		told = back
	}
	switch o.Next(known, told, s.orders.now(), patience) {
	case order.Settled:
		return false, nil, nil
	case order.GiveUp:
		if _, last, err = s.orders.Change(ctx, entry.ID, order.Order.TimeOut); err != nil {
			return true, nil, err
		}
		s.log.WarnContext(ctx, "order timed out", "order_id", entry.ID)
		return true, &last, nil
	case order.Tell:
		return true, &last, nil
	case order.Wait:
	}
	return true, nil, nil
}
