package system

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"orderflow/events"
)

// Domain is where all customers of a Shop are. Nothing else has this name in it,
// so it shows where an address got to.
const Domain = "customers.example"

// Shop is a running system with what the tests that share it have put into it.
// Every test has products and customers of its own.
type Shop struct {
	*System

	mu        sync.Mutex
	products  []string
	later     []func(testing.TB)
	killed    bool
	customers atomic.Int64
}

// NewShop is a shop that nobody has been to.
func NewShop(s *System) *Shop { return &Shop{System: s} }

// Item is a line of an order.
func Item(id string, quantity int) events.Item { return events.Item{ID: id, Quantity: quantity} }

// Placement is an order of a new customer, with an e-mail address that no other
// order has.
func (s *Shop) Placement(items ...events.Item) Placement {
	id := fmt.Sprintf("c-%d", s.customers.Add(1))
	return Placement{CustomerID: id, Email: id + "@" + Domain, Items: items}
}

// Shelve creates a product at a price in cents (EUR) with so many units of it.
func (s *Shop) Shelve(tb testing.TB, id string, cents int64, units int) string {
	tb.Helper()
	s.Stock(tb, id, cents, units)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.products = append(s.products, id)
	return id
}

// Shelved are the products that Shelve created.
func (s *Shop) Shelved() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.products)
}

// Killed says that processes were killed: one that dies between handing an e-mail
// over and noting it hands it over once more, under the same Message-ID.
func (s *Shop) Killed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed = true
}

// Later has AddsUp check something too: what a late delivery could still undo.
func (s *Shop) Later(check func(testing.TB)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later = append(s.later, check)
}

// Counted waits until the product has these counts. What is reserved becomes
// shipped, or is released, a moment after the order has ended.
func (s *Shop) Counted(tb testing.TB, id string, available, reserved, shipped int64) {
	tb.Helper()
	Eventually(tb, fmt.Sprintf("%s has %d available, %d reserved and %d shipped", id, available, reserved, shipped), func() (bool, string) {
		p := s.Product(tb, id)
		return p.Available == available && p.Reserved == reserved && p.Shipped == shipped, fmt.Sprintf("%+v", p)
	})
}

// Movements are the product's newest movements, the oldest first, each as kind and
// quantity.
func (s *Shop) Movements(tb testing.TB, id string) string {
	tb.Helper()
	var all []string
	for _, m := range s.Ledger(tb, id) {
		all = append([]string{fmt.Sprintf("%s %d", m.Kind, m.Quantity)}, all...)
	}
	return strings.Join(all, ", ")
}

// Types are the types of the order's events.
func (s *Shop) Types(tb testing.TB, id string) string {
	tb.Helper()
	var all []string
	for _, e := range s.Events(tb, id) {
		all = append(all, e.Type)
	}
	return strings.Join(all, ", ")
}

// TheMail is the one e-mail that was sent for the order, which has ended.
func (s *Shop) TheMail(tb testing.TB, o Order) Mail {
	tb.Helper()
	s.Notified(tb, o.OrderID)
	mails := s.Mails(tb, o.Email)
	if len(mails) != 1 {
		tb.Fatalf("%d e-mails for order %s, want 1: %+v", len(mails), o.OrderID, mails)
	}
	return mails[0]
}

// AddsUp holds what is there against the system's promises: every order ended once
// and was told of once, and all stock is where orders say. It answers how many
// orders there are.
func (s *Shop) AddsUp(tb testing.TB) int {
	tb.Helper()
	s.mu.Lock()
	later, killed := slices.Clone(s.later), s.killed
	s.mu.Unlock()
	orders := s.ListAll(tb, url.Values{"limit": {"100"}})
	shipped := map[string]int64{}
	seen := map[string]bool{}
	for _, o := range orders {
		if seen[o.OrderID] {
			tb.Errorf("order %s is listed twice", o.OrderID)
		}
		seen[o.OrderID] = true
		o = s.Ended(tb, o.OrderID)
		want := "ORDER_CREATED, ORDER_" + o.Status
		if got := s.Types(tb, o.OrderID); got != want {
			tb.Errorf("order %s is %s with events %s", o.OrderID, o.Status, got)
		}
		var total int64
		for _, l := range o.Items {
			total += int64(l.Quantity) * l.UnitPrice.Amount
			if o.Status == Completed {
				shipped[l.ID] += int64(l.Quantity)
			}
		}
		if o.Total.Amount != total {
			tb.Errorf("order %s totals %d, its items %d", o.OrderID, o.Total.Amount, total)
		}
		n := s.Notified(tb, o.OrderID)
		mails := s.Mails(tb, o.Email)
		if len(mails) == 0 || len(mails) > 1 && !killed || n.Kind != o.Status {
			tb.Errorf("order %s is %s; notification %+v, e-mails %+v", o.OrderID, o.Status, n, mails)
		}
		for _, m := range mails {
			if m.MessageID != n.MessageID {
				tb.Errorf("order %s: notification %+v, e-mail %s", o.OrderID, n, m.MessageID)
			}
		}
	}
	for _, id := range s.Shelved() {
		Eventually(tb, "all that is held of "+id+" is shipped or given back", func() (bool, string) {
			p := s.Product(tb, id)
			return p.Reserved == 0, fmt.Sprintf("%+v", p)
		})
		if p := s.Product(tb, id); p.Shipped != shipped[id] {
			tb.Errorf("of %s %d are shipped, %d were ordered and completed", id, p.Shipped, shipped[id])
		}
	}
	for _, check := range later {
		check(tb)
	}
	messages, told := map[string]string{}, 0
	for _, m := range s.AllMails(tb) {
		if before, ok := messages[m.MessageID]; ok {
			if !killed {
				tb.Errorf("e-mails %s and %s have the Message-ID %s", before, m.File, m.MessageID)
			}
			continue
		}
		messages[m.MessageID] = m.File
		if strings.HasSuffix(m.To, "@"+Domain) {
			told++
		}
	}
	if told != len(orders) {
		tb.Errorf("customers have %d e-mails about %d orders", told, len(orders))
	}
	return len(orders)
}
