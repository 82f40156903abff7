package stock

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"orderflow/events"
)

// world is a state store and what the order service makes of the answers. It
// promises no more than the worst of the real ones: a key is written by
// compare-and-set, and that is all.
type world struct {
	t        *rapid.T
	cells    map[string]cell
	orders   []*customer
	actors   []*actor
	receipts int
}

// cell is what stands under a key.
type cell struct {
	version int // 0: nothing
	json    []byte
}

// shelved is a product's document.
type shelved struct {
	Product
	Ledger []Movement
}

// customer is the order service's side of an order.
type customer struct {
	id        string
	items     []events.Item
	cancels   bool            // will be cancelled, at any moment; otherwise it completes
	reserved  bool            // heard INVENTORY_RESERVED
	rejected  bool            // heard INVENTORY_REJECTED
	delivered map[string]bool // events that were, at least once
}

func (c *customer) event(kind string) (delivery, bool) {
	switch kind {
	case "create":
		return delivery{c, Order.Reserve}, true
	case "cancel":
		return delivery{c, Order.Release}, c.cancels || c.rejected
	default:
		return delivery{c, ship}, !c.cancels && c.reserved
	}
}

type delivery struct {
	customer *customer
	decide   func(Order, time.Time) (Decision, error)
}

// actor is a replica on its way through one delivery, a read or a write at a
// time. An actor without a delivery counts a receipt in.
type actor struct {
	delivery
	product, receipt string

	toRead   []string
	read     map[string]cell
	stages   [][]write
	failed   bool
	facts    []Fact
	finished bool
}

type write struct {
	key     string
	version int // that it replaces
	json    []byte
}

func (w *world) start(a *actor) {
	var keys []string
	if a.customer == nil {
		keys = []string{a.product}
	} else {
		keys = append(keys, "reservation-"+a.customer.id)
		for _, it := range a.customer.items {
			keys = append(keys, it.ID)
		}
	}
	a.toRead = rapid.Permutation(keys).Draw(w.t, "read in this sequence")
	a.read, a.stages, a.failed = map[string]cell{}, nil, false
}

// step lets a do one thing; lies says that a write which is done now is reported
// as failed.
func (w *world) step(a *actor, lies bool) {
	if len(a.toRead) > 0 {
		key := a.toRead[0]
		a.read[key], a.toRead = w.cells[key], a.toRead[1:]
		if len(a.toRead) == 0 {
			w.decide(a)
		}
		return
	}
	for len(a.stages) > 0 && len(a.stages[0]) == 0 {
		a.stages = a.stages[1:]
	}
	if len(a.stages) == 0 {
		w.finish(a)
		return
	}
	next := a.stages[0][0]
	a.stages[0] = a.stages[0][1:]
	if w.cells[next.key].version == next.version {
		w.cells[next.key] = cell{next.version + 1, next.json}
		a.failed = a.failed || lies
	} else {
		a.failed = true
	}
	// The rest of a stage is written though one write failed, as Redis does it;
	// the next stage is not.
	if a.failed && len(a.stages[0]) == 0 {
		w.start(a)
	}
}

func (w *world) decide(a *actor) {
	docs := map[string]*shelved{}
	o := Order{Products: map[string]*Product{}}
	for key, c := range a.read {
		switch {
		case c.version == 0:
		case a.customer != nil && key == "reservation-"+a.customer.id:
			o.Record = parse[Reservation](c)
		default:
			docs[key] = parse[shelved](c)
			o.Products[key] = &docs[key].Product
		}
	}
	var d Decision
	if a.customer == nil {
		moves, err := docs[a.product].Receive(a.receipt, 3, noon)
		if err != nil {
			w.t.Fatal(err)
		}
		d.Moves = moves
	} else {
		o.ID, o.Items = a.customer.id, a.customer.items
		var err error
		if d, err = a.delivery.decide(o, noon); errors.Is(err, ErrTorn) {
			w.start(a)
			return
		} else if err != nil {
			w.t.Fatal(err)
		}
		if d.Oddity != "" {
			w.t.Fatalf("%s: %s", o.ID, d.Oddity)
		}
	}
	a.facts = d.Facts
	var first, products, last []write
	for _, m := range d.Moves {
		doc := docs[m.Product.ID]
		doc.Ledger = append(doc.Ledger, m.Movement)
		products = append(products, write{doc.ID, a.read[doc.ID].version, text(doc)})
	}
	if d.Record != nil {
		key := "reservation-" + o.ID
		record := []write{{key, a.read[key].version, text(d.Record)}}
		if d.RecordFirst {
			first = record
		} else {
			last = record
		}
	}
	slices.SortFunc(products, func(a, b write) int { return cmp.Compare(a.key, b.key) })
	if rapid.Bool().Draw(w.t, "written backwards") {
		slices.Reverse(products)
	}
	a.stages = [][]write{first, products, last}
}

// finish acknowledges the delivery and tells the order service the facts.
func (w *world) finish(a *actor) {
	a.finished = true
	for _, f := range a.facts {
		switch f.Payload.(type) {
		case events.InventoryReserved:
			a.customer.reserved = true
		case events.InventoryRejected:
			a.customer.rejected = true
		}
	}
	if a.customer != nil && a.customer.reserved && a.customer.rejected {
		w.t.Fatalf("%s was told both", a.customer.id)
	}
}

// check is what holds at every moment, whatever is on its way.
func (w *world) check() {
	for key, c := range w.cells {
		if c.version == 0 {
			continue
		}
		if len(key) > 1 {
			r := parse[Reservation](c)
			o := w.orders[slices.IndexFunc(w.orders, func(o *customer) bool { return o.id == r.OrderID })]
			for _, it := range r.Items {
				if r.Status == Reserved && !o.delivered["complete"] && !parse[shelved](w.cells[it.ID]).holds(o.id) {
					w.t.Fatalf("%s is RESERVED, but %s is not held for it", o.id, it.ID)
				}
			}
			continue
		}
		p := parse[shelved](c)
		live := int64(0)
		for _, h := range p.Live {
			live += int64(h.Quantity)
		}
		if p.Received != p.Available+p.Reserved+p.Shipped || min(p.Available, p.Reserved, p.Shipped) < 0 || live != p.Reserved {
			w.t.Fatalf("%s does not add up: received %d, available %d, reserved %d (%d live), shipped %d", key, p.Received, p.Available, p.Reserved, live, p.Shipped)
		}
		if counts := count(w.t, p.Ledger); counts != (tally{p.Received, p.Available, p.Reserved, p.Shipped}) {
			w.t.Fatalf("the ledger of %s adds up to %v, the product has %v", key, counts, p.Product)
		}
	}
}

type tally struct{ received, available, reserved, shipped int64 }

// count rebuilds a product's counts from its ledger.
func count(t *rapid.T, ledger []Movement) tally {
	var c tally
	for i, m := range ledger {
		if m.Seq != i+1 {
			t.Fatalf("movement %d has seq %d", i+1, m.Seq)
		}
		switch m.Kind {
		case KindReceived:
			c.received, c.available = c.received+m.Quantity, c.available+m.Quantity
		case KindReserved:
			c.available, c.reserved = c.available-m.Quantity, c.reserved+m.Quantity
		case KindReleased:
			c.available, c.reserved = c.available+m.Quantity, c.reserved-m.Quantity
		case KindShipped:
			c.reserved, c.shipped = c.reserved-m.Quantity, c.shipped+m.Quantity
		}
	}
	return c
}

func parse[T any](c cell) *T {
	v := new(T)
	if err := json.Unmarshal(c.json, v); err != nil {
		panic(err)
	}
	return v
}

func text(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Replicas that work on deliveries of the same few orders read and write in any
// sequence, are told that writes failed which did not, crash between any two
// writes, and get deliveries twice. In the end each order has exactly one fate,
// for all of its lines, and nothing is left held.
func TestAnyInterleaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, cells: map[string]cell{}}
		for _, id := range []string{"A", "B", "C"} {
			p := &shelved{Product: Product{ID: id}}
			p.Describe(Details{Name: id, LowStockThreshold: 1}, noon)
			moves, err := p.Receive("first", int64(rapid.IntRange(1, 4).Draw(t, "stock of "+id)), noon)
			if err != nil {
				t.Fatal(err)
			}
			p.Ledger = []Movement{moves[0].Movement}
			w.cells[id] = cell{1, text(p)}
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "orders") {
			c := &customer{id: fmt.Sprintf("o%d", i+1), cancels: rapid.Bool().Draw(t, "cancels"), delivered: map[string]bool{}}
			for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"A", "B", "C"}), 1, 3, rapid.ID).Draw(t, "lines") {
				c.items = append(c.items, events.Item{ID: id, Quantity: rapid.IntRange(1, 2).Draw(t, "quantity")})
			}
			w.orders = append(w.orders, c)
		}
		kinds := []string{"create", "complete", "cancel"}
		var crashed []*actor
		begin := func(a *actor) {
			w.start(a)
			w.actors = append(w.actors, a)
		}
		deliver := func(c *customer, kind string) bool {
			d, ok := c.event(kind)
			if ok {
				c.delivered[kind] = true
				begin(&actor{delivery: d})
			}
			return ok
		}
		// To an action that can't be taken now, Skip says: choose another.
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { w.check() },
			"deliver": func(t *rapid.T) {
				w.t = t
				if len(w.actors) > 5 || !deliver(rapid.SampledFrom(w.orders).Draw(t, "order"), rapid.SampledFrom(kinds).Draw(t, "event")) {
					t.Skip()
				}
			},
			"receive": func(t *rapid.T) {
				w.t = t
				if w.receipts == 2 {
					t.Skip()
				}
				w.receipts++
				begin(&actor{product: rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "product"), receipt: fmt.Sprint("r", w.receipts)})
			},
			"step": func(t *rapid.T) {
				w.t = t
				if len(w.actors) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(w.actors)-1).Draw(t, "actor")
				for range rapid.IntRange(1, 4).Draw(t, "steps") {
					if w.step(w.actors[i], rapid.IntRange(0, 9).Draw(t, "lie") == 0); w.actors[i].finished {
						w.actors = slices.Delete(w.actors, i, i+1)
						return
					}
				}
			},
			"crash": func(t *rapid.T) {
				w.t = t
				if len(w.actors) == 0 || rapid.IntRange(0, 3).Draw(t, "crash") > 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(w.actors)-1).Draw(t, "actor")
				crashed = append(crashed, w.actors[i])
				w.actors = slices.Delete(w.actors, i, i+1)
			},
		})
		w.t = t

		// What crashed is delivered again, what is on its way arrives, and so does
		// what has not come yet. Nothing else comes that could mend anything.
		run := func() {
			for len(w.actors) > 0 {
				a := w.actors[0]
				for !a.finished {
					w.step(a, false)
				}
				w.actors = w.actors[1:]
				w.check()
			}
		}
		for _, a := range crashed {
			begin(a)
		}
		run()
		for _, kind := range kinds {
			for _, c := range w.orders {
				if !c.delivered[kind] {
					deliver(c, kind)
				}
			}
			run()
		}
		w.settled()
	})
}

// settled is what holds when nothing is on its way.
func (w *world) settled() {
	shipped := map[string]int64{}
	for _, c := range w.orders {
		status := parse[Reservation](w.cells["reservation-"+c.id]).Status
		fates := []Status{Shipped, Rejected}
		if c.cancels {
			fates = []Status{Released, Cancelled, Rejected}
		}
		if !slices.Contains(fates, status) {
			w.t.Errorf("%s is %s, want one of %v", c.id, status, fates)
		}
		if (status == Rejected) != c.rejected {
			w.t.Errorf("%s is %s, but rejected was told: %v", c.id, status, c.rejected)
		}
		if status == Shipped {
			for _, it := range c.items {
				shipped[it.ID] += int64(it.Quantity)
			}
		}
	}
	for _, id := range []string{"A", "B", "C"} {
		p := parse[shelved](w.cells[id])
		if len(p.Live) > 0 {
			w.t.Errorf("%s is still held for %v", id, slices.Sorted(maps.Keys(p.Live)))
		}
		if p.Shipped != shipped[id] {
			w.t.Errorf("%d of %s are shipped, the orders that are SHIPPED have %d", p.Shipped, id, shipped[id])
		}
	}
}
