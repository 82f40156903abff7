// Package stock holds the rules by which products are counted and held for
// orders. It does no I/O and knows no clock.
//
// What became of an order here is its reservation record; what is held for it
// stands in the products themselves:
//
//	               enough of all lines
//	no record ──┬─ create ──────────────▶ RESERVED ──┬─ complete ─▶ SHIPPED
//	            │                                    └─ cancel ───▶ RELEASED
//	            ├─ create, a line is short ─────────▶ REJECTED
//	            └─ cancel (it overtook the create) ─▶ CANCELLED: the create will find it and reserve nothing
//
// Record and products are keys of their own that no transaction binds, and that
// are not read at one moment. Each is changed by compare-and-set; a decision is
// made again, over what is there by then, when any of its writes failed; a crash
// leaves the rest to the event's redelivery. Nothing else coordinates replicas.
// Three rules make that enough:
//
//	Claim last.      RESERVED and SHIPPED are written after the products, so
//	                 that RESERVED means: all lines are held, or being shipped.
//	Disclaim first.  REJECTED, RELEASED and CANCELLED are written before
//	                 anything is given back, and say until it is that it is
//	                 being given back. Without a record nobody gives anything
//	                 back.
//	Name the hold.   RESERVED names, for each line, the movement by which it is
//	                 held. Anything else that is held for an order with a record
//	                 is a leftover: whoever sees it gives it back, and nobody
//	                 ships it.
//
// The record is created once, by whoever comes first; that settles every race:
//
//   - A create and a cancel at once, or two deliveries of one create that saw
//     different stock. If RESERVED is first, the other one has changed nothing
//     yet (it disclaims first) and decides again, by the record. If the
//     disclaiming record is first, a create that has filled the products fails
//     to write its own, decides again, and gives back what it finds held.
//   - A create that crashed before its record leaves stock held and no record.
//     Redelivered, it finds its lines held already. A cancel that comes before
//     that writes CANCELLED and gives back; the create then finds CANCELLED.
//   - A create that read "no record", and a product only after the order was
//     shipped or given back, holds stock once more. It can't create the record,
//     decides again, and finds a leftover.
//   - A cancel that read a product before the create filled it, and the record
//     after, would miss what is held there. It sees that the line is not held as
//     RESERVED says, and reads again (ErrTorn).
//   - A cancel that overtakes a create on its way finds nothing held and says so; the
//     create may hold something for a moment yet. If it dies in that moment, only its
//     redelivery gives it back.
package stock

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"orderflow/events"
)

// Status says what became of an order.
type Status string

const (
	Reserved  Status = "RESERVED"  // all its lines are held
	Rejected  Status = "REJECTED"  // a line fell short; nothing is held, unless GivingBack
	Shipped   Status = "SHIPPED"   // all its lines left
	Released  Status = "RELEASED"  // was RESERVED; nothing is held any more, unless GivingBack
	Cancelled Status = "CANCELLED" // cancelled before anything was decided; nothing will be held
)

// Reservation is the record of what became of an order.
type Reservation struct {
	OrderID   string            `json:"orderId"`
	Status    Status            `json:"status"`
	Items     []events.Item     `json:"items"`
	Held      map[string]int    `json:"held,omitempty"`      // the Seq of each item's Hold, by product id, if it was ever RESERVED
	Shortages []events.Shortage `json:"shortages,omitempty"` // if REJECTED
	// GivingBack says that something may be held still, whatever Status says: whoever
	// was giving it back may have died over it.
	GivingBack bool      `json:"givingBack,omitempty"`
	DecidedAt  time.Time `json:"decidedAt"`          // when the record was created
	SettledAt  time.Time `json:"settledAt,omitzero"` // when it became SHIPPED or RELEASED
}

// Order is an order, what its record says, which is nil if there is none, and
// those of its products that exist, by id. Decisions change the products in
// place and the record not at all.
type Order struct {
	ID       string
	Items    []events.Item
	Record   *Reservation
	Products map[string]*Product
}

// Decision is what follows from an event about an order.
type Decision struct {
	// Record is the record to write, nil if it stays as it is.
	Record *Reservation
	// RecordFirst says that Record is written before the products rather than
	// after them.
	RecordFirst bool
	// Moves are the changes made to the products, at most one each.
	Moves []Move
	// Facts are what to tell when all is written.
	Facts []Fact
	// Oddity is what should never be, to be logged, or empty.
	Oddity string
}

// Versions of an order's answers, which make the ids of their events.
const (
	firstAnswer  = 1 // INVENTORY_RESERVED or INVENTORY_REJECTED
	secondAnswer = 2 // INVENTORY_RELEASED
)

// Reserve decides what follows from the order's creation: all its items are
// held, or none. ErrBusy, with nothing changed, if a product is held for too
// many orders already.
func (o Order) Reserve(at time.Time) (Decision, error) {
	if o.Record != nil {
		d := Decision{Moves: o.giveBack(o.leftovers(), at), Facts: o.Record.answer()}
		d.Facts = append(d.Facts, o.lowFacts()...)
		return d, nil
	}
	var shortages []events.Shortage
	var full *Product
	for _, it := range o.Items {
		p := o.Products[it.ID]
		switch {
		case p == nil:
			shortages = append(shortages, events.Shortage{ID: it.ID, Requested: it.Quantity})
		case p.holds(o.ID):
		case p.Available < int64(it.Quantity):
			shortages = append(shortages, events.Shortage{ID: it.ID, Requested: it.Quantity, Available: int(p.Available)})
		case len(p.Live) >= MaxLive:
			full = p
		}
	}
	if len(shortages) > 0 {
		record := &Reservation{OrderID: o.ID, Status: Rejected, Items: o.Items, Shortages: shortages, DecidedAt: at}
		d := Decision{Record: record, Moves: o.giveBack(o.holding(), at), Facts: record.answer()}
		// With nothing to give back the rejection is written last: it may be
		// for want of stock that another order of the same batch is about to
		// take, and then stands only if that order got it.
		d.RecordFirst = len(d.Moves) > 0
		record.GivingBack = d.RecordFirst
		return d, nil
	}
	if full != nil {
		return Decision{}, fmt.Errorf("product %s: %w: it is held for %d orders", full.ID, ErrBusy, MaxLive)
	}
	record := &Reservation{OrderID: o.ID, Status: Reserved, Items: o.Items, Held: map[string]int{}, DecidedAt: at}
	d := Decision{Record: record, Facts: record.answer()}
	for _, it := range o.Items {
		p := o.Products[it.ID]
		if !p.holds(o.ID) {
			d.Moves = append(d.Moves, p.hold(o.ID, it.Quantity, at))
		}
		record.Held[p.ID] = p.Live[o.ID].Seq
	}
	d.Facts = append(d.Facts, o.lowFacts()...)
	return d, nil
}

// Ship decides what follows from the order's completion: what is held for it
// leaves.
func (o Order) Ship(at time.Time) Decision {
	d := Decision{Moves: o.giveBack(o.leftovers(), at)}
	var record Reservation
	switch {
	case o.Record == nil:
		d.Oddity = "order completed that nothing was decided about: what is held for it is shipped"
		record = Reservation{OrderID: o.ID, Items: o.Items, DecidedAt: at}
	case o.Record.Status == Reserved:
		record = *o.Record
	case o.Record.Status == Shipped:
		d.Facts = o.lowFacts()
		return d
	default:
		d.Oddity = fmt.Sprintf("order completed that is %s: nothing is shipped", o.Record.Status)
		return d
	}
	for _, p := range o.holding() {
		d.Moves = append(d.Moves, p.ship(o.ID, at))
	}
	record.Status, record.SettledAt = Shipped, at
	d.Record, d.Facts = &record, o.lowFacts()
	return d
}

// Release decides what follows from the order's cancellation: what is held for
// it is given back, and if it was never decided about, nothing will be held.
// ErrTorn, with nothing changed, if a product was read before the record.
func (o Order) Release(at time.Time) (Decision, error) {
	d := Decision{RecordFirst: true}
	switch {
	case o.Record == nil:
		d.Record = &Reservation{OrderID: o.ID, Status: Cancelled, Items: o.Items, DecidedAt: at}
	case o.Record.Status == Reserved:
		if len(o.holding()) < len(o.Items) || len(o.leftovers()) > 0 {
			return Decision{}, fmt.Errorf("order %s: %w", o.ID, ErrTorn)
		}
		record := *o.Record
		record.Status, record.SettledAt = Released, at
		d.Record, d.Facts = &record, record.answer()
	case o.Record.Status == Released:
		d.Facts = o.Record.answer()
	case o.Record.Status == Shipped:
		d.Oddity = "order cancelled that is SHIPPED: nothing is given back"
	}
	d.Moves = o.giveBack(o.holding(), at)
	if d.Record != nil {
		d.Record.GivingBack = len(d.Moves) > 0
	}
	d.Facts = append(d.Facts, o.lowFacts()...)
	return d, nil
}

// GivingBack says that, once all of d is written, the record says that something is
// being given back: then GivenBack is to be decided.
func (o Order) GivingBack(d Decision) bool {
	record := cmp.Or(d.Record, o.Record)
	return record != nil && record.GivingBack
}

// GivenBack decides that the record need no longer say that something is being
// given back. ErrTorn, with nothing changed, if something is held: whoever gave it
// back has not seen it, or it has come since, and the event has to come again.
func (o Order) GivenBack(time.Time) (Decision, error) {
	if o.Record == nil || !o.Record.GivingBack {
		return Decision{}, nil
	}
	if len(o.holding()) > 0 {
		return Decision{}, fmt.Errorf("order %s: %w", o.ID, ErrTorn)
	}
	record := *o.Record
	record.GivingBack = false
	return Decision{Record: &record}, nil
}

// holding are the products in which something is held for the order, in the
// sequence of its items.
func (o Order) holding() []*Product {
	var products []*Product
	for _, it := range o.Items {
		if p := o.Products[it.ID]; p != nil && p.holds(o.ID) {
			products = append(products, p)
		}
	}
	return products
}

// leftovers are the products in which something is held for the order that its
// record knows nothing of.
func (o Order) leftovers() []*Product {
	if o.Record == nil {
		return nil
	}
	return slices.DeleteFunc(o.holding(), func(p *Product) bool {
		return o.Record.Status == Reserved && o.Record.Held[p.ID] == p.Live[o.ID].Seq
	})
}

// giveBack releases what the products hold for the order.
func (o Order) giveBack(products []*Product, at time.Time) []Move {
	var moves []Move
	for _, p := range products {
		moves = append(moves, p.release(o.ID, at))
	}
	return moves
}

// answer is what the order service is told, each time it asks. An order that
// was cancelled before anything was decided is not waiting for an answer.
func (r *Reservation) answer() []Fact {
	held := events.Reservation{OrderID: r.OrderID, Items: r.Items}
	switch r.Status {
	case Reserved, Shipped:
		return []Fact{{firstAnswer, r.DecidedAt, events.InventoryReserved{Reservation: held}}}
	case Rejected:
		return []Fact{{firstAnswer, r.DecidedAt, events.InventoryRejected{OrderID: r.OrderID, Shortages: r.Shortages}}}
	case Released:
		return []Fact{{secondAnswer, r.SettledAt, events.InventoryReleased{Reservation: held}}}
	case Cancelled:
		return nil
	}
	panic("stock: a reservation can't be " + string(r.Status))
}

// Answers are all that the order service was ever told, the oldest first: those
// that others build on who were not told, or have forgotten.
func (r *Reservation) Answers() []Fact {
	if r.Status != Released {
		return r.answer()
	}
	held := *r
	held.Status = Reserved
	return append(held.answer(), r.answer()...)
}

// lowFacts tells of the products whose stock this order made low, as long as it
// is: when the order takes it and again when the order ends, for the notice may
// have been lost although the broker took it. An order does end.
func (o Order) lowFacts() []Fact {
	var facts []Fact
	for _, it := range o.Items {
		if p := o.Products[it.ID]; p != nil && p.Low != nil && p.Low.OrderID == o.ID {
			facts = append(facts, Fact{p.Low.Version, p.Low.At, events.StockLow{ProductID: p.ID}})
		}
	}
	return facts
}
