package events

import (
	"fmt"
	"slices"
)

const (
	TypeOrderCreated   = "ORDER_CREATED"
	TypeOrderCompleted = "ORDER_COMPLETED"
	TypeOrderCancelled = "ORDER_CANCELLED"
)

// Item is a quantity of a product.
type Item struct {
	ID       string `json:"id"`
	Quantity int    `json:"quantity"`
}

// Line is an item at the price at which it was ordered.
type Line struct {
	ID        string `json:"id"`
	Quantity  int    `json:"quantity"`
	UnitPrice Money  `json:"unitPrice"`
}

// Order is what an order's events carry: all that a consumer needs to act
// without asking back (event-carried state transfer). Items are in the order in
// which they were placed; Total is their sum, fixed at placing.
type Order struct {
	OrderID    string `json:"orderId"`
	CustomerID string `json:"customerId"`
	Email      string `json:"email"`
	Items      []Line `json:"items"`
	Total      Money  `json:"total"`
}

func (o Order) EventSubject() string { return o.OrderID }

// Quantities are the order's items without their prices.
func (o Order) Quantities() []Item {
	items := make([]Item, len(o.Items))
	for i, l := range o.Items {
		items[i] = Item{ID: l.ID, Quantity: l.Quantity}
	}
	return items
}

// Validate says in what way the order violates the schema, if it does.
func (o Order) Validate() error {
	if err := CheckID(o.OrderID); err != nil {
		return fmt.Errorf("orderId: %w", err)
	}
	if err := CheckID(o.CustomerID); err != nil {
		return fmt.Errorf("customerId: %w", err)
	}
	if err := CheckEmail(o.Email); err != nil {
		return fmt.Errorf("email: %w", err)
	}
	if err := CheckItems(o.Quantities()); err != nil {
		return err
	}
	if err := checkCurrency(o.Total.Currency); err != nil {
		return fmt.Errorf("total: %w", err)
	}
	var sum int64
	for i, l := range o.Items {
		if err := CheckPrice(l.UnitPrice); err != nil {
			return fmt.Errorf("items[%d].unitPrice: %w", i, err)
		}
		if l.UnitPrice.Currency != o.Total.Currency {
			return fmt.Errorf("%w: items[%d] is in %s, the total in %s", ErrInvalid, i, l.UnitPrice.Currency, o.Total.Currency)
		}
		sum += l.UnitPrice.Amount * int64(l.Quantity)
	}
	if sum != o.Total.Amount {
		return fmt.Errorf("%w: total is %d, the items add up to %d", ErrInvalid, o.Total.Amount, sum)
	}
	return nil
}

// OrderCreated asks for the order's stock: the order was accepted.
type OrderCreated struct{ Order }

func (OrderCreated) EventType() string  { return TypeOrderCreated }
func (OrderCreated) SchemaVersion() int { return 1 }

// OrderCompleted ends the order well: its stock is held, to be shipped.
type OrderCompleted struct{ Order }

func (OrderCompleted) EventType() string  { return TypeOrderCompleted }
func (OrderCompleted) SchemaVersion() int { return 1 }

// Reasons of an OrderCancelled.
const (
	ReasonRejected = "REJECTED" // inventory could not reserve all of it
	ReasonCustomer = "CUSTOMER" // the customer withdrew it
	ReasonTimeout  = "TIMEOUT"  // inventory did not answer in time
)

// Reasons lists every reason of a cancellation.
var Reasons = []string{ReasonRejected, ReasonCustomer, ReasonTimeout}

// OrderCancelled ends the order: whatever stock is held for it is given back.
// Shortages are there if, and only if, Reason is REJECTED.
type OrderCancelled struct {
	Order
	Reason    string     `json:"reason"`
	Shortages []Shortage `json:"shortages,omitempty"`
}

func (OrderCancelled) EventType() string  { return TypeOrderCancelled }
func (OrderCancelled) SchemaVersion() int { return 1 }

// Validate says in what way the event violates the schema, if it does.
func (o OrderCancelled) Validate() error {
	if !slices.Contains(Reasons, o.Reason) {
		return fmt.Errorf("%w: reason %q is none of %v", ErrInvalid, o.Reason, Reasons)
	}
	if (o.Reason == ReasonRejected) != (len(o.Shortages) > 0) {
		return fmt.Errorf("%w: shortages go with reason %s and no other", ErrInvalid, ReasonRejected)
	}
	if err := checkShortages(o.Shortages); err != nil {
		return err
	}
	return o.Order.Validate()
}
