// Package order holds the rules of one order's life. It does no I/O and knows
// no time but what it is told.
//
//	                      stock is held
//	                  ┌─────────────────────▶ COMPLETED
//	placed ─▶ PENDING ┤
//	                  └─────────────────────▶ CANCELLED
//	                      stock falls short (REJECTED), the customer
//	                      withdraws (CUSTOMER), or nobody answers (TIMEOUT)
//
// An order is the list of its events; everything else here is folded from it.
// COMPLETED and CANCELLED are final: whatever comes after is answered with the
// event that ended the order, so that whoever missed it hears it again.
package order

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"orderflow/events"
)

// Status is where in its life an order is.
type Status string

const (
	Pending   Status = "PENDING"   // placed; inventory is asked for the stock
	Completed Status = "COMPLETED" // the stock is held, to be shipped
	Cancelled Status = "CANCELLED" // nothing is held for it, or soon nothing
)

// Statuses lists every status.
var Statuses = []Status{Pending, Completed, Cancelled}

// Final says whether an order of this status changes no more.
func (s Status) Final() bool { return s != Pending }

var (
	// ErrCompleted: the order can't be withdrawn any more.
	ErrCompleted = errors.New("order is completed")
	// ErrContradiction: an event says what can't be true of this order, such as
	// that the stock of a completed order fell short.
	ErrContradiction = errors.New("event contradicts the order's history")
	// ErrCurrencies: the items are priced in more than one currency.
	ErrCurrencies = errors.New("items are priced in different currencies")
)

// Order is the state that a list of events amounts to.
type Order struct {
	events.Order
	Status    Status            `json:"status"`
	Reason    string            `json:"reason,omitempty"`    // of a cancellation
	Shortages []events.Shortage `json:"shortages,omitempty"` // of a rejection
	Version   int               `json:"version"`             // events so far
	CreatedAt time.Time         `json:"createdAt"`
	UpdatedAt time.Time         `json:"updatedAt"`
}

// Place decides what follows from a customer asking for items at these prices,
// one for each product: the order is created, its total fixed.
func Place(id, customerID, email string, items []events.Item, prices map[string]events.Money) (events.OrderCreated, error) {
	o := events.Order{OrderID: id, CustomerID: customerID, Email: email, Items: make([]events.Line, len(items))}
	for i, it := range items {
		price, ok := prices[it.ID]
		if !ok {
			return events.OrderCreated{}, fmt.Errorf("place order %s: no price for %s", id, it.ID)
		}
		if i > 0 && price.Currency != o.Total.Currency {
			return events.OrderCreated{}, fmt.Errorf("%w: %s and %s", ErrCurrencies, o.Total.Currency, price.Currency)
		}
		o.Items[i] = events.Line{ID: it.ID, Quantity: it.Quantity, UnitPrice: price}
		o.Total.Currency = price.Currency
		o.Total.Amount += price.Amount * int64(it.Quantity)
	}
	return events.OrderCreated{Order: o}, nil
}

// Reserved decides what follows from inventory holding the order's stock. It is
// nil if the order has ended already.
func (o Order) Reserved() (events.Payload, error) {
	if o.Status.Final() {
		return nil, nil // redelivered, or cancelled meanwhile: then inventory is told so
	}
	return events.OrderCompleted{Order: o.Order}, nil
}

// Rejected decides what follows from inventory falling short.
func (o Order) Rejected(shortages []events.Shortage) (events.Payload, error) {
	switch o.Status {
	case Completed:
		return nil, fmt.Errorf("%w: order %s is completed, inventory rejects it", ErrContradiction, o.OrderID)
	case Cancelled:
		return nil, nil
	}
	return events.OrderCancelled{Order: o.Order, Reason: events.ReasonRejected, Shortages: shortages}, nil
}

// Withdraw decides what follows from the customer taking the order back.
func (o Order) Withdraw() (events.Payload, error) {
	switch o.Status {
	case Completed:
		return nil, fmt.Errorf("withdraw order %s: %w", o.OrderID, ErrCompleted)
	case Cancelled:
		return nil, nil
	}
	return events.OrderCancelled{Order: o.Order, Reason: events.ReasonCustomer}, nil
}

// TimeOut decides what follows from nobody having answered in time.
func (o Order) TimeOut() (events.Payload, error) {
	if o.Status.Final() {
		return nil, nil
	}
	return events.OrderCancelled{Order: o.Order, Reason: events.ReasonTimeout}, nil
}

// Effects are what the other services have on record about an order. Both are
// true of an order that is settled: nobody owes anything any more.
type Effects struct {
	Stock    bool // inventory has done what follows from the order's last event
	Notified bool // the customer was told how it ended
}

// Step is what is left to do about an order.
type Step int

const (
	Settled Step = iota // nothing
	Wait                // nothing yet
	Tell                // publish its last event again
	GiveUp              // cancel it: TimeOut
)

// Patience is how long an order may take.
type Patience struct {
	Answer time.Duration // from placing to its end; then it is cancelled
	Effect time.Duration // from an event, or telling it again, to telling it (again)
}

// Next is the step to take at now about an order whose last event was last told
// at told, or never if that is zero. Without effects, nobody could be asked for them.
func (o Order) Next(effects *Effects, told, now time.Time, p Patience) Step {
	if o.Status == Pending && now.Sub(o.CreatedAt) >= p.Answer {
		return GiveUp
	}
	if o.Status.Final() && effects != nil && *effects == (Effects{Stock: true, Notified: true}) {
		return Settled
	}
	if told.Before(o.UpdatedAt) {
		told = o.UpdatedAt
	}
	if effects == nil || now.Sub(told) < p.Effect {
		return Wait
	}
	return Tell
}

// Fold is the state that history amounts to.
func Fold(history []events.Event) (Order, error) {
	var o Order
	for _, e := range history {
		p, err := events.Decode(e)
		if err != nil {
			return Order{}, fmt.Errorf("fold %s: %w", e.ID, err)
		}
		if o, err = o.apply(e, p); err != nil {
			return Order{}, err
		}
	}
	return o, nil
}

// apply is the order after e. It records and does not judge: an event is a
// fact. It only refuses what no decision above can have made.
func (o Order) apply(e events.Event, p events.Payload) (Order, error) {
	if first := o.Version == 0; first != (e.Type == events.TypeOrderCreated) || o.Status == Completed || o.Status == Cancelled {
		return Order{}, fmt.Errorf("%w: %s as event %d, after status %q", ErrContradiction, e.ID, o.Version+1, o.Status)
	}
	switch p := p.(type) {
	case events.OrderCreated:
		o.Order, o.Status, o.CreatedAt = p.Order, Pending, e.Time
	case events.OrderCompleted:
		o.Status = Completed
	case events.OrderCancelled:
		o.Status, o.Reason, o.Shortages = Cancelled, p.Reason, slices.Clone(p.Shortages)
	default:
		return Order{}, fmt.Errorf("%w: %s is not an event of an order", ErrContradiction, e.Type)
	}
	o.Version++
	o.UpdatedAt = e.Time
	return o, nil
}
