package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/pubsub"
	"orderflow/services/order/internal/order"
)

var (
	errNotFound  = errors.New("no such order")
	errKeyReused = errors.New("idempotency key was used with another request")
)

// State keys. A ':' never stands in an id, so no customer's id can name a page.
//
//	order-{id}            the order: its events, which are its outbox too
//	orders                index of all orders by time of placing; older parts in orders:{n}
//	customer-{id}         the same for one customer; customer-{id}:{n}
//	archive               how far the index is archived
//	price-{productId}     the price of a product as inventory last told it
const (
	allOrders = "orders"
	pageSize  = 64
)

func orderKey(id string) string        { return "order-" + id }
func customerKey(id string) string     { return "customer-" + id }
func priceKey(productID string) string { return "price-" + productID }
func pagesOf(index string) aggregate.Pages {
	return aggregate.Pages{Prefix: index + ":", Size: pageSize}
}

// document is what the store holds of an order.
type document struct {
	// Fingerprint tells a request that is repeated from another one that
	// reuses its idempotency key.
	Fingerprint string `json:"fingerprint"`
	// Archived is where Events are if they are not here any more.
	Archived *place `json:"archived,omitempty"`
	// Events are the order. They are also its outbox: each is published after
	// it is committed, and can be published again from here, the same, until
	// its effect is seen.
	Events []events.Event `json:"events,omitempty"`
}

// entry is a line of an index: the order that was placed at that moment. A
// request whose placing came to nothing and was repeated leaves one that names
// the order and another moment; it stands for nothing.
type entry struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

func (e entry) equal(other entry) bool { return e.ID == other.ID && e.At.Equal(other.At) }

type index = aggregate.Log[entry]

// orders is the store of orders.
type orders struct {
	store     *aggregate.Store
	committer *aggregate.Committer
	now       func() time.Time
	ended     waiters
	archive   archive
}

// Place commits a new order and answers its first event; fresh is false if the
// order exists already by the same request, and the event is the one that it
// began with. Its error is errKeyReused, a *lackedPrices, order.ErrCurrencies or the committer's.
func (s *orders) Place(ctx context.Context, r placement) (created events.Event, fresh bool, err error) {
	keys := []string{orderKey(r.id), allOrders, customerKey(r.CustomerID)}
	for _, it := range r.Items {
		keys = append(keys, priceKey(it.ID))
	}
	now := s.now()
	err = s.committer.Do(ctx, keys, func(tx *aggregate.Tx) error {
		d, err := aggregate.Get[document](tx, orderKey(r.id))
		if err != nil {
			return err
		}
		if d != nil {
			if d.Fingerprint != r.fingerprint {
				return errKeyReused
			}
			if d.Archived != nil {
				return errArchived
			}
			created = d.Events[0]
			return nil // an attempt of this call, half failed, may have made it: fresh stays
		}
		fresh = true
		prices, err := pricesOf(tx, r.Items, r.since)
		if err != nil {
			return err
		}
		fact, err := order.Place(r.id, r.CustomerID, r.Email, r.Items, prices)
		if err != nil {
			return err
		}
		if created, err = events.New(source, 1, now, fact); err != nil {
			return err
		}
		created = pubsub.Traced(ctx, created)
		// The indexes first: an order that is in no index would be seen by
		// nobody, while an index entry whose order never came is passed over.
		if err := appendEntry(tx, entry{ID: r.id, At: now}, allOrders, customerKey(r.CustomerID)); err != nil {
			return err
		}
		tx.PutAfter(orderKey(r.id), &document{Fingerprint: r.fingerprint, Events: []events.Event{created}})
		return nil
	})
	if errors.Is(err, errArchived) {
		history, err := s.History(ctx, r.id)
		if err != nil {
			return events.Event{}, false, err
		}
		return history[0], false, nil
	}
	return created, fresh, err
}

// appendEntry adds e to the indexes of those names, except where an attempt that
// was half written has done so already.
func appendEntry(tx *aggregate.Tx, e entry, names ...string) error {
	logs := make([]*index, len(names))
	for i, name := range names {
		log, err := aggregate.Get[index](tx, name)
		if err != nil {
			return err
		}
		if log == nil {
			log = &index{}
		}
		logs[i] = log
	}
	for i, log := range logs {
		if !slices.ContainsFunc(log.Tail, e.equal) {
			log.Append(tx, pagesOf(names[i]), e)
		}
		tx.Put(names[i], log)
	}
	return nil
}

// Change commits what decide makes of an order, and answers the order and its
// last event: the new one, or, if decide has nothing to add, the one before.
// Its error is errNotFound, decide's or the committer's.
func (s *orders) Change(ctx context.Context, id string, decide func(order.Order) (events.Payload, error)) (order.Order, events.Event, error) {
	now := s.now()
	var after order.Order
	var last events.Event
	err := s.committer.Do(ctx, []string{orderKey(id)}, func(tx *aggregate.Tx) error {
		d, err := aggregate.Get[document](tx, orderKey(id))
		if err != nil {
			return err
		}
		if d == nil {
			return fmt.Errorf("%w: %s", errNotFound, id)
		}
		if d.Archived != nil {
			return errArchived
		}
		o, err := order.Fold(d.Events)
		if err != nil {
			return err
		}
		fact, err := decide(o)
		if err != nil {
			return err
		}
		if fact == nil {
			after, last = o, d.Events[len(d.Events)-1]
			return nil
		}
		e, err := events.New(source, o.Version+1, now, fact)
		if err != nil {
			return err
		}
		history := append(slices.Clone(d.Events), pubsub.Traced(ctx, e))
		if after, err = order.Fold(history); err != nil {
			return err
		}
		last = history[len(history)-1]
		tx.Put(orderKey(id), &document{Fingerprint: d.Fingerprint, Events: history})
		return nil
	})
	if errors.Is(err, errArchived) {
		return s.unchanged(ctx, id, decide)
	}
	if err == nil && after.Status.Final() {
		s.ended.wake(id)
	}
	return after, last, err
}

// unchanged is Change of an order that is archived: it has ended, so that nothing
// is left to decide but what to answer.
func (s *orders) unchanged(ctx context.Context, id string, decide func(order.Order) (events.Payload, error)) (order.Order, events.Event, error) {
	history, err := s.History(ctx, id)
	if err != nil {
		return order.Order{}, events.Event{}, err
	}
	o, err := order.Fold(history)
	if err != nil {
		return order.Order{}, events.Event{}, err
	}
	fact, err := decide(o)
	if err == nil && fact != nil {
		err = fmt.Errorf("%w: %s after the end of order %s", order.ErrContradiction, fact.EventType(), id)
	}
	return o, history[len(history)-1], err
}

// pointTo replaces orders by where they are in the archive, except those that are
// not as they were archived.
func (s *orders) pointTo(ctx context.Context, archived []line, places []place) error {
	keys := make([]string, len(archived))
	for i, l := range archived {
		keys[i] = orderKey(l.OrderID)
	}
	return s.committer.Do(ctx, keys, func(tx *aggregate.Tx) error {
		for i, l := range archived {
			d, err := aggregate.Get[document](tx, keys[i])
			if err != nil {
				return err
			}
			if d != nil && d.Archived == nil && len(d.Events) == len(l.Events) {
				tx.Put(keys[i], &document{Fingerprint: d.Fingerprint, Archived: &places[i]})
			}
		}
		return nil
	})
}

// History is the order's events, oldest first. Its error is errNotFound, errAway or
// the store's.
func (s *orders) History(ctx context.Context, id string) ([]events.Event, error) {
	histories, away, err := s.Histories(ctx, []string{id})
	if err != nil {
		return nil, err
	}
	if p, ok := away[id]; ok {
		return nil, fmt.Errorf("%w: %s is in %s", errAway, id, p.File)
	}
	history, ok := histories[id]
	if !ok {
		return nil, fmt.Errorf("%w: %s", errNotFound, id)
	}
	return history, nil
}

func historyOf(doc aggregate.Document, id string) ([]events.Event, error) {
	if doc.ETag == "" {
		return nil, fmt.Errorf("%w: %s", errNotFound, id)
	}
	var d document
	if err := json.Unmarshal(doc.Value, &d); err != nil {
		return nil, fmt.Errorf("order %s can't be read: %w", id, err)
	}
	if d.Archived != nil {
		return nil, errArchived
	}
	return d.Events, nil
}

// Histories are the events of those of the orders that exist, from the archive if
// need be; away are those whose archive file is not here.
func (s *orders) Histories(ctx context.Context, ids []string) (histories map[string][]events.Event, away map[string]place, err error) {
	if len(ids) == 0 {
		return nil, nil, nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = orderKey(id)
	}
	docs, err := s.store.Load(ctx, keys...)
	if err != nil {
		return nil, nil, err
	}
	histories, away = make(map[string][]events.Event, len(ids)), map[string]place{}
	for i, id := range ids {
		if docs[keys[i]].ETag == "" {
			continue
		}
		var d document
		if err := json.Unmarshal(docs[keys[i]].Value, &d); err != nil {
			return nil, nil, fmt.Errorf("order %s can't be read: %w", id, err)
		}
		if d.Archived != nil {
			away[id] = *d.Archived
			continue
		}
		histories[id] = d.Events
	}
	archived, err := s.archive.read(away)
	if err != nil {
		return nil, nil, err
	}
	for id, history := range archived {
		histories[id] = history
		delete(away, id)
	}
	return histories, away, nil
}

// index is the index of that name, empty if there is none yet.
func (s *orders) index(ctx context.Context, name string) (index, error) {
	docs, err := s.store.Load(ctx, name)
	if err != nil {
		return index{}, err
	}
	log, err := aggregate.Value[index](docs[name])
	if err != nil || log == nil {
		return index{}, err
	}
	return *log, nil
}

// Find is the order as it stands. Its error is errNotFound or the store's.
func (s *orders) Find(ctx context.Context, id string) (order.Order, error) {
	history, err := s.History(ctx, id)
	if err != nil {
		return order.Order{}, err
	}
	return order.Fold(history)
}

// maxExamined bounds the orders that one listing reads. A filter that fits few
// of them gives short pages, with a cursor to go on.
const maxExamined = 1000

// List reads orders of an index, the newest first, from position end on
// (counted from the oldest; negative means the newest), those that fit, at most
// limit. The position answered is where to go on; 0 means there are no more.
func (s *orders) List(ctx context.Context, name string, end, limit int, fits func(order.Order) bool) ([]order.Order, int, error) {
	log, err := s.index(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	pages := pagesOf(name)
	if end < 0 || end > log.Len(pages) {
		end = log.Len(pages)
	}
	found := make([]order.Order, 0, limit)
	for examined := 0; end > 0 && len(found) < limit && examined < maxExamined; {
		entries, err := aggregate.Newest(ctx, s.store, log, pages, end, min(max(limit, pageSize), maxExamined-examined))
		if err != nil {
			return nil, 0, err
		}
		ids := make([]string, len(entries))
		for i, e := range entries {
			ids[i] = e.ID
		}
		histories, _, err := s.Histories(ctx, ids)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range entries {
			if len(found) == limit {
				break
			}
			end--
			examined++
			history, ok := histories[e.ID]
			if !ok {
				continue // placing it did not get so far, or its archive is not here
			}
			o, err := order.Fold(history)
			if err != nil {
				return nil, 0, err
			}
			if o.CreatedAt.Equal(e.At) && fits(o) {
				found = append(found, o)
			}
		}
	}
	return found, end, nil
}

// waiters are those who wait in this process for an order to end.
type waiters struct {
	mu sync.Mutex
	by map[string]map[chan struct{}]bool
}

// wait answers a channel that is closed when the order ends by this process,
// and a function that gives the place back.
func (w *waiters) wait(id string) (<-chan struct{}, func()) {
	ch := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[string]map[chan struct{}]bool{}
	}
	if w.by[id] == nil {
		w.by[id] = map[chan struct{}]bool{}
	}
	w.by[id][ch] = true
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.by[id], ch)
		if len(w.by[id]) == 0 {
			delete(w.by, id)
		}
	}
}

func (w *waiters) wake(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.by[id] {
		close(ch)
	}
	delete(w.by, id)
}
