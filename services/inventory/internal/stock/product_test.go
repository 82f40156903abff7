package stock

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"orderflow/events"
)

func TestDescribe(t *testing.T) {
	euros := func(n int64) events.Money { return events.Money{Amount: n, Currency: "EUR"} }
	first := Details{Name: "Cup", Price: euros(100), LowStockThreshold: 2}
	tests := []struct {
		name    string
		given   []Details
		then    Details
		facts   string
		version int
	}{
		{"a new product has a new price", nil, first, "cup:1:PRICE_UPDATED", 1},
		{"a free one too", nil, Details{Name: "Cup", Price: euros(0)}, "cup:1:PRICE_UPDATED", 1},
		{"another price", []Details{first}, Details{Name: "Cup", Price: euros(200), LowStockThreshold: 2}, "cup:2:PRICE_UPDATED", 2},
		{"another currency", []Details{first}, Details{Name: "Cup", Price: events.Money{Amount: 100, Currency: "USD"}, LowStockThreshold: 2}, "cup:2:PRICE_UPDATED", 2},
		{"another name", []Details{first}, Details{Name: "Mug", Price: euros(100), LowStockThreshold: 2}, "", 2},
		{"another threshold", []Details{first}, Details{Name: "Cup", Price: euros(100), LowStockThreshold: 3}, "", 2},
		{"nothing new: the last notice again", []Details{first, {Name: "Mug", Price: euros(100)}}, Details{Name: "Mug", Price: euros(100)}, "cup:1:PRICE_UPDATED", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &Product{ID: "cup"}
			for _, d := range tt.given {
				p.Describe(d, noon)
			}
			if got := told(t, p.Describe(tt.then, noon)); got != tt.facts || p.Version != tt.version {
				t.Errorf("facts %q, version %d; want %q, %d", got, p.Version, tt.facts, tt.version)
			}
		})
	}
}

func TestDetailsThatCantBe(t *testing.T) {
	good := func() Details { return Details{Name: "Cup", Price: events.Money{Amount: 1, Currency: "EUR"}} }
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Details){
		"no name":              func(d *Details) { d.Name = "" },
		"a long name":          func(d *Details) { d.Name = strings.Repeat("é", MaxNameLength+1) },
		"a line break":         func(d *Details) { d.Name = "Cup\r\nBcc: x" },
		"a negative price":     func(d *Details) { d.Price.Amount = -1 },
		"an absurd price":      func(d *Details) { d.Price.Amount = events.MaxUnitPrice + 1 },
		"a currency in words":  func(d *Details) { d.Price.Currency = "euro" },
		"a negative threshold": func(d *Details) { d.LowStockThreshold = -1 },
		"an absurd threshold":  func(d *Details) { d.LowStockThreshold = MaxReceived + 1 },
	} {
		d := good()
		spoil(&d)
		if err := d.Validate(); !errors.Is(err, ErrInvalid) && !errors.Is(err, events.ErrInvalid) {
			t.Errorf("%s: err = %v", name, err)
		}
	}
}

func TestReceive(t *testing.T) {
	p := shelf(map[string]int64{"cup": 0})["cup"]
	receive := func(id string, n int64, at time.Time) (int, error) {
		moves, err := p.Receive(id, n, at)
		return len(moves), err
	}
	if n, err := receive("a", 5, noon); n != 1 || err != nil || p.Received != 5 || p.Available != 5 {
		t.Fatalf("%d moves, %v; received %d", n, err, p.Received)
	}
	if n, err := receive("a", 5, noon); n != 0 || err != nil || p.Received != 5 {
		t.Errorf("again: %d moves, %v; received %d", n, err, p.Received)
	}
	for _, tt := range []struct {
		id       string
		quantity int64
		want     error
	}{
		{"a", 6, ErrOtherReceipt},
		{"b", 0, ErrInvalid},
		{"b", -1, ErrInvalid},
		{"b", MaxReceived + 1, ErrInvalid},
		{"b", MaxReceived - 4, ErrTooMuch},
	} {
		if n, err := receive(tt.id, tt.quantity, noon); n != 0 || !errors.Is(err, tt.want) || p.Received != 5 {
			t.Errorf("%s %d: %d moves, %v, want %v; received %d", tt.id, tt.quantity, n, err, tt.want, p.Received)
		}
	}

	// Within 15 seconds every receipt is remembered, however many there are.
	for i := range receiptsAtMost - 1 {
		if n, err := receive(fmt.Sprint(i), 1, noon.Add(receiptKeptFor)); n != 1 || err != nil {
			t.Fatalf("receipt %d: %d moves, %v", i, n, err)
		}
	}
	if n, err := receive("a", 5, noon.Add(receiptKeptFor)); n != 0 || err != nil {
		t.Errorf("the first, after %d more: %d moves, %v", receiptsAtMost-1, n, err)
	}
	if n, err := receive("more", 1, noon.Add(receiptKeptFor)); n != 0 || !errors.Is(err, ErrBusy) {
		t.Errorf("one more than can be remembered: %d moves, %v", n, err)
	}
	// Later on, the last 64.
	later := noon.Add(2*receiptKeptFor + 1)
	if n, err := receive("later", 1, later); n != 1 || err != nil || len(p.Receipts) != receiptsKept {
		t.Errorf("later: %d moves, %v; %d remembered", n, err, len(p.Receipts))
	}
	if n, err := receive(fmt.Sprint(receiptsAtMost-2), 1, later); n != 0 || err != nil {
		t.Errorf("the last but one, later: %d moves, %v", n, err)
	}
}

func TestStockIsLowOncePerCrossing(t *testing.T) {
	p := shelf(map[string]int64{"cup": 5})["cup"] // threshold 2
	low := func() string {
		if p.Low == nil {
			return ""
		}
		return fmt.Sprintf("%s@%d", p.Low.OrderID, p.Low.Version)
	}
	steps := []struct {
		name string
		do   func()
		want string
	}{
		{"above", func() { p.hold("a", 2, noon) }, ""},
		{"falls to it", func() { p.hold("b", 1, noon) }, "b@4"},
		{"falls further", func() { p.hold("c", 1, noon) }, "b@4"},
		{"shipped: not more available", func() { p.ship("a", noon) }, "b@4"},
		{"given back, still low", func() { p.release("c", noon) }, "b@4"},
		{"given back", func() { p.release("b", noon) }, ""},
		{"falls again", func() { p.hold("d", 3, noon) }, "d@9"},
		{"lower threshold", func() { d := detailsOf(p); d.LowStockThreshold = 0; p.Describe(d, noon) }, "d@9"},
		{"received", func() { _, _ = p.Receive("r", 1, noon) }, ""},
	}
	for _, s := range steps {
		s.do()
		if got := low(); got != s.want {
			t.Fatalf("%s: low is %q, want %q", s.name, got, s.want)
		}
	}
}

func detailsOf(p *Product) Details {
	return Details{Name: p.Name, Price: p.Price, LowStockThreshold: p.LowStockThreshold}
}
