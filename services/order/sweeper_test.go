package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/daprtest"
	"orderflow/internal/pubsub"
	"orderflow/services/order/internal/order"
)

// sweepBench is a sweeper over orders that are placed directly, with a clock
// and effects that the test sets.
type sweepBench struct {
	*daprtest.Sidecar
	t       *testing.T
	now     time.Time
	orders  *orders
	effects map[string]order.Effects
	asking  error
	asked   int
	placed  int
}

var patience = order.Patience{Answer: 10 * time.Minute, Effect: 8 * time.Second}

func startSweep(t *testing.T, mode daprtest.Mode) (*sweepBench, *sweeper) {
	sidecar, client := daprtest.Start(t, mode)
	store := aggregate.NewStore(client, stateStore)
	committer := aggregate.NewCommitter(store)
	publisher := pubsub.NewPublisher(client, events.TopicOrders)
	b := &sweepBench{Sidecar: sidecar, t: t, now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), effects: map[string]order.Effects{}}
	b.orders = &orders{store: store, committer: committer, now: func() time.Time { return b.now }}
	t.Cleanup(func() {
		committer.Close()
		publisher.Close()
	})
	if err := b.orders.LearnPrices(t.Context(), map[string]price{"cup": {Price: events.Money{Amount: 250, Currency: "EUR"}, Version: 1}}); err != nil {
		t.Fatal(err)
	}
	return b, b.sweeper("first", newOutbox(publisher, slog.New(slog.DiscardHandler)))
}

func (b *sweepBench) sweeper(owner string, o *outbox) *sweeper {
	return &sweeper{orders: b.orders, outbox: o, owner: owner, patience: patience, maxOpen: 120, log: slog.New(slog.DiscardHandler),
		effects: func(_ context.Context, ids []string) (map[string]order.Effects, error) {
			b.asked += len(ids)
			return b.effects, b.asking
		}}
}

// place commits an order whose events nobody publishes: as after a crash.
func (b *sweepBench) place() string {
	b.t.Helper()
	b.placed++
	id := fmt.Sprintf("o-%d", b.placed)
	r := placement{CustomerID: "ada", Email: "ada@example.com", Items: []events.Item{{ID: "cup", Quantity: 1}}, id: id}
	if _, _, err := b.orders.Place(b.t.Context(), r); err != nil {
		b.t.Fatal(err)
	}
	return id
}

// sweep sweeps once and answers the ids of the events that were published by it.
func (b *sweepBench) sweep(s *sweeper) []string {
	b.t.Helper()
	before := len(b.Published())
	if err := s.sweep(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	if err := s.outbox.wait(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	var ids []string
	for _, e := range b.Published()[before:] {
		ids = append(ids, e.ID)
	}
	return ids
}

func (b *sweepBench) want(got []string, want ...string) {
	b.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("published %v, want %v", got, want)
	}
}

func (b *sweepBench) document() sweep {
	b.t.Helper()
	var d sweep
	if err := json.Unmarshal(b.State(sweepKey), &d); err != nil {
		b.t.Fatal(err)
	}
	return d
}

func TestSweepTellsUntilTheEffectsAreThere(t *testing.T) {
	for name, mode := range map[string]daprtest.Mode{"redis-like": daprtest.RedisLike, "sql-like": daprtest.SQLLike} {
		t.Run(name, func(t *testing.T) {
			b, s := startSweep(t, mode)
			id := b.place()
			b.want(b.sweep(s)) // young: it may come to its end by itself
			b.now = b.now.Add(8 * time.Second)
			b.want(b.sweep(s), id+":1:ORDER_CREATED")
			b.want(b.sweep(s)) // told just now
			b.now = b.now.Add(8 * time.Second)
			b.want(b.sweep(s)) // told once, and given twice the time
			b.now = b.now.Add(8 * time.Second)
			b.want(b.sweep(s), id+":1:ORDER_CREATED")

			if _, _, err := b.orders.Change(t.Context(), id, order.Order.Reserved); err != nil {
				t.Fatal(err)
			}
			b.want(b.sweep(s)) // completed just now
			b.now = b.now.Add(8 * time.Second)
			b.want(b.sweep(s), id+":2:ORDER_COMPLETED")
			b.effects[id] = order.Effects{Stock: true}
			b.now = b.now.Add(16 * time.Second)
			b.want(b.sweep(s), id+":2:ORDER_COMPLETED")
			b.effects[id] = order.Effects{Stock: true, Notified: true}
			b.now = b.now.Add(8 * time.Second)
			b.want(b.sweep(s))
			if d := b.document(); len(d.Open) != 0 || d.Position != 1 {
				t.Errorf("the sweep is at %d with %v open, want 1 and none", d.Position, d.Open)
			}
		})
	}
}

func TestSweepTimesOrdersOut(t *testing.T) {
	b, s := startSweep(t, daprtest.RedisLike)
	id := b.place()
	b.asking, b.effects = errors.New("inventory is down"), nil
	b.now = b.now.Add(time.Minute)
	b.want(b.sweep(s)) // it may have the event waiting: telling it again would only pile up
	b.now = b.now.Add(9 * time.Minute)
	b.want(b.sweep(s), id+":2:ORDER_CANCELLED")
	o, err := b.orders.Find(t.Context(), id)
	if err != nil || o.Status != order.Cancelled || o.Reason != events.ReasonTimeout {
		t.Errorf("is %s %s, %v", o.Status, o.Reason, err)
	}
}

// A sweep's cost follows the open orders: settled ones are looked at once.
func TestSweepLooksAtSettledOrdersOnce(t *testing.T) {
	b, s := startSweep(t, daprtest.RedisLike)
	const settled = 250 // more than one chunk, and into the pages of the index
	for range settled {
		id := b.place()
		b.effects[id] = order.Effects{Stock: true, Notified: true}
		if _, _, err := b.orders.Change(t.Context(), id, order.Order.Reserved); err != nil {
			t.Fatal(err)
		}
	}
	open := b.place()
	b.now = b.now.Add(9 * time.Second)
	b.want(b.sweep(s), open+":1:ORDER_CREATED")
	if b.asked != settled+1 {
		t.Errorf("looked at %d orders, want %d", b.asked, settled+1)
	}
	b.asked = 0
	b.want(b.sweep(s))
	if b.asked != 1 {
		t.Errorf("looked at %d orders the second time, want 1", b.asked)
	}
}

func TestOneProcessSweeps(t *testing.T) {
	b, first := startSweep(t, daprtest.RedisLike)
	second := b.sweeper("second", first.outbox)
	id := b.place()
	b.now = b.now.Add(8 * time.Second)
	b.want(b.sweep(first), id+":1:ORDER_CREATED")
	b.now = b.now.Add(8 * time.Second)
	b.want(b.sweep(second)) // the first one's lease runs
	b.now = b.now.Add(leaseFor)
	b.want(b.sweep(second), id+":1:ORDER_CREATED")
	b.now = b.now.Add(8 * time.Second)
	b.want(b.sweep(first))
	if d := b.document(); d.Owner != "second" {
		t.Errorf("%s sweeps, want second", d.Owner)
	}
}

// An index entry whose order never came is let go, but not at once.
func TestSweepPassesOverWhatWasNeverPlaced(t *testing.T) {
	b, s := startSweep(t, daprtest.RedisLike)
	err := b.orders.committer.Do(t.Context(), []string{allOrders}, func(tx *aggregate.Tx) error {
		return appendEntry(tx, entry{ID: "ghost", At: b.now}, allOrders)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(time.Minute)
	b.want(b.sweep(s))
	if d := b.document(); len(d.Open) != 1 {
		t.Errorf("%d open after a minute, want 1", len(d.Open))
	}
	b.now = b.now.Add(voidAfter)
	b.want(b.sweep(s))
	if d := b.document(); len(d.Open) != 0 {
		t.Errorf("%d open after %s, want none", len(d.Open), voidAfter)
	}
}

// With more open orders than the document takes, the rest waits in the index.
func TestSweepIsBounded(t *testing.T) {
	b, s := startSweep(t, daprtest.RedisLike)
	for range s.maxOpen + 50 {
		b.place()
	}
	b.now = b.now.Add(9 * time.Second)
	if got := len(b.sweep(s)); got != s.maxOpen {
		t.Errorf("%d events told, want %d", got, s.maxOpen)
	}
	if d := b.document(); len(d.Open) != s.maxOpen || d.Position != s.maxOpen {
		t.Errorf("%d open at %d, want %d", len(d.Open), d.Position, s.maxOpen)
	}
	for id := range b.placed {
		b.effects[fmt.Sprintf("o-%d", id+1)] = order.Effects{Stock: true, Notified: true}
	}
	for _, open := range b.document().Open {
		if _, _, err := b.orders.Change(t.Context(), open.ID, order.Order.Reserved); err != nil {
			t.Fatal(err)
		}
	}
	b.now = b.now.Add(9 * time.Second)
	if got := len(b.sweep(s)); got != 50 {
		t.Errorf("%d events told, want the 50 that waited", got)
	}
}

// An order that can't be read is kept open, and the others do not wait for it.
func TestSweepPassesADamagedOrder(t *testing.T) {
	b, s := startSweep(t, daprtest.RedisLike)
	damaged, sound := b.place(), b.place()
	err := b.orders.committer.Do(t.Context(), []string{orderKey(damaged)}, func(tx *aggregate.Tx) error {
		tx.Put(orderKey(damaged), &map[string]any{"events": "none"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(9 * time.Second)
	b.want(b.sweep(s), sound+":1:ORDER_CREATED")
	if d := b.document(); len(d.Open) != 2 {
		t.Errorf("%d open, want 2", len(d.Open))
	}
}

// A service that was away, for however long, gets the time to work off what waits
// for it before it is told again; one that comes and goes holds nothing back for long.
func TestSweepGivesTimeAfterAnOutage(t *testing.T) {
	for _, outage := range []time.Duration{12 * time.Second, 5 * time.Minute} {
		b, s := startSweep(t, daprtest.RedisLike)
		b.effects = nil
		id := b.place()
		b.asking = errors.New("inventory is away")
		for end := b.now.Add(outage); b.now.Before(end); b.now = b.now.Add(2 * time.Second) {
			b.want(b.sweep(s))
		}
		b.asking, b.effects = nil, map[string]order.Effects{}
		b.want(b.sweep(s))
		b.now = b.now.Add(7 * time.Second)
		b.want(b.sweep(s))
		b.now = b.now.Add(time.Second)
		b.want(b.sweep(s), id+":1:ORDER_CREATED")

		other := b.place()
		var told []string
		for range 10 { // every other time nobody answers
			b.asking, b.effects = errors.New("inventory is away"), nil
			b.now = b.now.Add(2 * time.Second)
			b.want(b.sweep(s))
			b.asking, b.effects = nil, map[string]order.Effects{}
			b.now = b.now.Add(2 * time.Second)
			told = append(told, b.sweep(s)...)
		}
		if !slices.Contains(told, other+":1:ORDER_CREATED") {
			t.Errorf("told %v, want %s among them", told, other)
		}
	}
}

// With notification away, an order that inventory has not answered is told again all
// the same; one that has ended is not, since nobody knows whether it need be.
func TestSweepNeedsOnlyInventoryForWhatIsPending(t *testing.T) {
	b, s := startSweep(t, daprtest.SQLLike)
	pending, ended := b.place(), b.place()
	if _, _, err := b.orders.Change(t.Context(), ended, order.Order.Reserved); err != nil {
		t.Fatal(err)
	}
	b.asking = errors.New("notification is away")
	b.now = b.now.Add(8 * time.Second)
	b.want(b.sweep(s), pending+":1:ORDER_CREATED")
}

func TestEffectsAsOthersTellThem(t *testing.T) {
	sidecar, client := daprtest.Start(t, daprtest.RedisLike)
	sidecar.Invoke(func(appID, _ string) ([]byte, error) {
		if appID == "notification" {
			return []byte(`{"notifications":[{"orderId":"shipped","status":"SENT"},{"orderId":"released","status":"FAILED"},{"orderId":"held","status":"PENDING"}]}`), nil
		}
		return []byte(`{"reservations":[{"orderId":"held","status":"RESERVED"},{"orderId":"shipped","status":"SHIPPED"},
			{"orderId":"leaving","status":"RELEASED","givingBack":true},{"orderId":"released","status":"RELEASED"}]}`), nil
	})
	got, err := others{client}.effects(t.Context(), []string{"held", "shipped", "leaving", "released", "unknown"})
	want := map[string]order.Effects{
		"held":     {},
		"shipped":  {Stock: true, Notified: true},
		"leaving":  {},
		"released": {Stock: true, Notified: true},
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}
