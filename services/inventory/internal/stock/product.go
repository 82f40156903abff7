package stock

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"orderflow/events"
)

// Limits. They keep a product's document far below what one call to the sidecar
// takes (4 MiB), and every count exact as an IEEE 754 double.
const (
	MaxNameLength  = 200               // characters
	MaxReceived    = 1_000_000_000_000 // units of one product, ever
	MaxLive        = 10_000            // orders that hold stock of one product at a time
	receiptsKept   = 64                // receipts of a product that are always remembered
	receiptsAtMost = 1024              // receipts of a product remembered at any time
	receiptKeptFor = 15 * time.Second  // and each for as long as this, three times what a commit may take
)

// Errors of decisions. A decision that fails has changed nothing.
var (
	// ErrInvalid: the request can't be meant.
	ErrInvalid = errors.New("invalid")
	// ErrOtherReceipt: the receipt's id was used for another quantity.
	ErrOtherReceipt = errors.New("the receipt was counted with another quantity")
	// ErrTooMuch: more would have been received than MaxReceived.
	ErrTooMuch = errors.New("too many units received")
	// ErrBusy: too much is going on with the product at this moment; the same
	// decision is possible later.
	ErrBusy = errors.New("the product is too busy")
	// ErrTorn: what was read does not go together, for parts of it were read at
	// different moments; the same decision is possible over what is read anew.
	ErrTorn = errors.New("record and products were read at different moments")
)

// Details are what is said about a product rather than counted.
type Details struct {
	Name              string
	Price             events.Money
	LowStockThreshold int64
}

// Validate says why d can't describe a product, if it can't.
func (d Details) Validate() error {
	if n := utf8.RuneCountInString(d.Name); n < 1 || n > MaxNameLength {
		return fmt.Errorf("%w: name must have from 1 to %d characters", ErrInvalid, MaxNameLength)
	}
	for _, r := range d.Name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%w: name holds a character that can't be printed", ErrInvalid)
		}
	}
	if err := events.CheckPrice(d.Price); err != nil {
		return fmt.Errorf("price: %w", err)
	}
	if d.LowStockThreshold < 0 || d.LowStockThreshold > MaxReceived {
		return fmt.Errorf("%w: lowStockThreshold must be from 0 to %d", ErrInvalid, int64(MaxReceived))
	}
	return nil
}

// Product is a product and its stock. At any time
//
//	Received = Available + Reserved + Shipped
//
// and none of them is negative; Reserved is the sum of Live.
type Product struct {
	ID                string       `json:"id"`
	Name              string       `json:"name"`
	Price             events.Money `json:"price"`
	LowStockThreshold int64        `json:"lowStockThreshold"`
	Received          int64        `json:"received"`
	Available         int64        `json:"available"`
	Reserved          int64        `json:"reserved"`
	Shipped           int64        `json:"shipped"`
	Version           int          `json:"version"`   // changes so far
	Movements         int          `json:"movements"` // movements so far

	// Live is what is held for whom, by order id. A reaction that comes twice is
	// recognised by it.
	Live map[string]Hold `json:"live,omitempty"`
	// Receipts are the latest ones, oldest first: a receipt that comes again is
	// recognised by its id as long as it stands here.
	Receipts []Receipt `json:"receipts,omitempty"`
	// Priced is when the price became what it is.
	Priced Change `json:"priced"`
	// Low is when, and by whose order, Available last fell to the threshold; it
	// is nil once there is more again. It is kept so that the notice about it
	// can be given again, as the same event.
	Low *Low `json:"low,omitempty"`
}

// Change is a change of a product: the version it made, and when.
type Change struct {
	Version int       `json:"version"`
	At      time.Time `json:"at"`
}

// Low is the change by which a product's stock became low.
type Low struct {
	Change
	OrderID string `json:"orderId"`
}

// Hold is stock that is held for an order.
type Hold struct {
	Quantity int `json:"quantity"`
	Seq      int `json:"seq"` // of the movement by which it is held
}

// Receipt is stock that came in.
type Receipt struct {
	ID       string    `json:"id"`
	Quantity int64     `json:"quantity"`
	At       time.Time `json:"at"`
}

// Kind says what a movement did with its units.
type Kind string

const (
	KindReceived Kind = "received" // came in: available
	KindReserved Kind = "reserved" // available → reserved
	KindReleased Kind = "released" // reserved → available
	KindShipped  Kind = "shipped"  // reserved → shipped
)

// Movement is an entry of a product's ledger. The ledger adds up to the
// product's counts.
type Movement struct {
	Seq       int       `json:"seq"` // from 1, without gaps
	At        time.Time `json:"at"`
	Kind      Kind      `json:"kind"`
	Quantity  int64     `json:"quantity"`
	OrderID   string    `json:"orderId,omitempty"`
	ReceiptID string    `json:"receiptId,omitempty"`
}

// Move is a movement of a product.
type Move struct {
	Product *Product
	Movement
}

// Fact is what others are to be told: Payload, which became true at At, with
// the version that makes its event's id.
type Fact struct {
	Version int
	At      time.Time
	Payload events.Payload
}

// Describe gives the product the details d, which are valid; a product that has
// nothing but its id is new. It tells the price if that is new, and also if
// nothing at all is: that is a request that comes again because the answer to it
// was lost, and maybe the notice was too. The event is the same as the first
// time.
func (p *Product) Describe(d Details, at time.Time) []Fact {
	if d == (Details{Name: p.Name, Price: p.Price, LowStockThreshold: p.LowStockThreshold}) {
		return []Fact{p.priceFact()}
	}
	p.Version++
	p.Name, p.LowStockThreshold = d.Name, d.LowStockThreshold
	if p.Available > p.LowStockThreshold {
		p.Low = nil
	}
	if d.Price == p.Price {
		return nil
	}
	p.Price, p.Priced = d.Price, Change{Version: p.Version, At: at}
	return []Fact{p.priceFact()}
}

func (p *Product) priceFact() Fact {
	return Fact{Version: p.Priced.Version, At: p.Priced.At, Payload: events.PriceUpdated{ProductID: p.ID}}
}

// Receive counts quantity units in, once for each receipt id: it returns no
// move if it knows the receipt. It knows a product's last 64 receipts, and all
// of the last 15 seconds, in which a command that is decided again surely comes
// back. ErrBusy, where that would be more than 1024.
func (p *Product) Receive(id string, quantity int64, at time.Time) ([]Move, error) {
	if quantity < 1 || quantity > MaxReceived {
		return nil, fmt.Errorf("%w: quantity must be from 1 to %d", ErrInvalid, int64(MaxReceived))
	}
	if i := slices.IndexFunc(p.Receipts, func(r Receipt) bool { return r.ID == id }); i >= 0 {
		if p.Receipts[i].Quantity != quantity {
			return nil, fmt.Errorf("%w: %d", ErrOtherReceipt, p.Receipts[i].Quantity)
		}
		return nil, nil
	}
	if quantity > MaxReceived-p.Received {
		return nil, fmt.Errorf("%w: %d so far, at most %d can be", ErrTooMuch, p.Received, int64(MaxReceived))
	}
	old := 0
	for len(p.Receipts)-old >= receiptsKept && at.Sub(p.Receipts[old].At) > receiptKeptFor {
		old++
	}
	if len(p.Receipts)-old >= receiptsAtMost {
		return nil, fmt.Errorf("%w: %d receipts within %s", ErrBusy, receiptsAtMost, receiptKeptFor)
	}
	p.Receipts = append(slices.Clone(p.Receipts[old:]), Receipt{ID: id, Quantity: quantity, At: at})
	p.Received += quantity
	p.free(quantity)
	return []Move{p.move(Movement{At: at, Kind: KindReceived, Quantity: quantity, ReceiptID: id})}, nil
}

// holds says whether stock is held for the order.
func (p *Product) holds(orderID string) bool { return p.Live[orderID].Quantity > 0 }

// hold sets quantity units aside for the order. The caller has made sure that
// they are there and that nothing is held for it yet.
func (p *Product) hold(orderID string, quantity int, at time.Time) Move {
	above := p.Available > p.LowStockThreshold
	p.Available -= int64(quantity)
	p.Reserved += int64(quantity)
	m := p.move(Movement{At: at, Kind: KindReserved, Quantity: int64(quantity), OrderID: orderID})
	if p.Live == nil {
		p.Live = map[string]Hold{}
	}
	p.Live[orderID] = Hold{Quantity: quantity, Seq: m.Seq}
	if above && p.Available <= p.LowStockThreshold {
		p.Low = &Low{Change: Change{Version: p.Version, At: at}, OrderID: orderID}
	}
	return m
}

// release gives back what is held for the order.
func (p *Product) release(orderID string, at time.Time) Move {
	quantity := p.letGo(orderID)
	p.free(quantity)
	return p.move(Movement{At: at, Kind: KindReleased, Quantity: quantity, OrderID: orderID})
}

// ship sends away what is held for the order.
func (p *Product) ship(orderID string, at time.Time) Move {
	quantity := p.letGo(orderID)
	p.Shipped += quantity
	return p.move(Movement{At: at, Kind: KindShipped, Quantity: quantity, OrderID: orderID})
}

func (p *Product) letGo(orderID string) (quantity int64) {
	quantity = int64(p.Live[orderID].Quantity)
	delete(p.Live, orderID)
	p.Reserved -= quantity
	return quantity
}

func (p *Product) free(quantity int64) {
	p.Available += quantity
	if p.Available > p.LowStockThreshold {
		p.Low = nil
	}
}

func (p *Product) move(m Movement) Move {
	p.Version++
	p.Movements++
	m.Seq = p.Movements
	return Move{Product: p, Movement: m}
}
