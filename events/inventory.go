package events

import "fmt"

const (
	TypeInventoryReserved = "INVENTORY_RESERVED"
	TypeInventoryRejected = "INVENTORY_REJECTED"
	TypeInventoryReleased = "INVENTORY_RELEASED"
	TypePriceUpdated      = "PRICE_UPDATED"
	TypeStockLow          = "STOCK_LOW"
)

// Shortage is a line that could not be reserved. A product that does not exist
// has none available.
type Shortage struct {
	ID        string `json:"id"`
	Requested int    `json:"requested"`
	Available int    `json:"available"`
}

func checkShortages(shortages []Shortage) error {
	if len(shortages) > MaxLines {
		return fmt.Errorf("%w: %d shortages, at most %d can be", ErrInvalid, len(shortages), MaxLines)
	}
	for i, s := range shortages {
		if err := CheckID(s.ID); err != nil {
			return fmt.Errorf("shortages[%d]: %w", i, err)
		}
		if s.Requested < 1 || s.Requested > MaxQuantity || s.Available < 0 || s.Available >= s.Requested {
			return fmt.Errorf("%w: shortages[%d]: available must be from 0 to less than requested", ErrInvalid, i)
		}
	}
	return nil
}

// Reservation is what inventory's answers about stock that is or was held carry.
type Reservation struct {
	OrderID string `json:"orderId"`
	Items   []Item `json:"items"`
}

func (r Reservation) EventSubject() string { return r.OrderID }

// Validate says in what way the reservation violates the schema, if it does.
func (r Reservation) Validate() error {
	if err := CheckID(r.OrderID); err != nil {
		return fmt.Errorf("orderId: %w", err)
	}
	return CheckItems(r.Items)
}

// InventoryReserved says that all items of the order are held for it.
type InventoryReserved struct{ Reservation }

func (InventoryReserved) EventType() string  { return TypeInventoryReserved }
func (InventoryReserved) SchemaVersion() int { return 1 }

// InventoryReleased says that what was held for the order was given back.
type InventoryReleased struct{ Reservation }

func (InventoryReleased) EventType() string  { return TypeInventoryReleased }
func (InventoryReleased) SchemaVersion() int { return 1 }

// InventoryRejected says that nothing is held for the order, and which of its
// items fell short.
type InventoryRejected struct {
	OrderID   string     `json:"orderId"`
	Shortages []Shortage `json:"shortages"`
}

func (InventoryRejected) EventType() string      { return TypeInventoryRejected }
func (InventoryRejected) SchemaVersion() int     { return 1 }
func (r InventoryRejected) EventSubject() string { return r.OrderID }

// Validate says in what way the event violates the schema, if it does.
func (r InventoryRejected) Validate() error {
	if err := CheckID(r.OrderID); err != nil {
		return fmt.Errorf("orderId: %w", err)
	}
	if len(r.Shortages) == 0 {
		return fmt.Errorf("%w: shortages is empty", ErrInvalid)
	}
	return checkShortages(r.Shortages)
}

// notice is an event without data: it says that something happened to its
// subject, and who wants to know more asks (event notification).
type notice interface {
	Payload
	bare()
}

// PriceUpdated says that the product's price may have changed.
type PriceUpdated struct{ ProductID string }

func (PriceUpdated) EventType() string      { return TypePriceUpdated }
func (PriceUpdated) SchemaVersion() int     { return 1 }
func (p PriceUpdated) EventSubject() string { return p.ProductID }
func (p PriceUpdated) Validate() error      { return CheckID(p.ProductID) }
func (PriceUpdated) bare()                  {}

// StockLow says that the product's available stock fell to its threshold or
// below it.
type StockLow struct{ ProductID string }

func (StockLow) EventType() string      { return TypeStockLow }
func (StockLow) SchemaVersion() int     { return 1 }
func (s StockLow) EventSubject() string { return s.ProductID }
func (s StockLow) Validate() error      { return CheckID(s.ProductID) }
func (StockLow) bare()                  {}
