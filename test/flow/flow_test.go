// Package flow tries the whole system from outside: real services, sidecars,
// broker and store, spoken to over HTTP. BROKER and STATE choose broker and
// store, as they do for make.
package flow

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"orderflow/events"
	"orderflow/test/system"
)

// numbers are what was measured, printed after everything else.
var numbers []string

func TestMain(m *testing.M) {
	code := m.Run()
	if len(numbers) > 0 {
		fmt.Println("measured: " + strings.Join(numbers, "; "))
	}
	os.Exit(code)
}

func options() system.Options {
	return system.Options{Broker: os.Getenv("BROKER"), State: os.Getenv("STATE")}
}

// flow is the running system with what the tests share. Every test has products
// and customers of its own.
type flow struct {
	*system.System
	products []string // all that were made
}

func TestFlow(t *testing.T) {
	o := options()
	o.Env = append(o.Env, "ARCHIVE_DIR="+t.TempDir())
	f := &flow{System: system.Start(t, o)}
	for _, test := range []struct {
		name string
		run  func(*flow, *testing.T)
	}{
		{"an order is completed, shipped and told of", (*flow).completes},
		{"an idle system takes an order to its e-mail in time", (*flow).latency},
		{"services are small", (*flow).memory},
		{"an order that stock does not suffice for is cancelled", (*flow).rejects},
		{"low stock is told to the operator", (*flow).lowStock},
		{"a client may wait for the end", (*flow).waits},
		{"one key of 20 clients is one order", (*flow).oneKey},
		{"50 clients share the last 10 units", (*flow).lastUnits},
		{"cancelling right after placing ends well either way", (*flow).cancels},
		{"an event that comes again has no second effect", (*flow).redelivers},
		{"prices are followed, and fixed at placing", (*flow).prices},
		{"sidecars and event routes want their tokens", (*flow).tokens},
		{"orders are listed", (*flow).lists},
		{"what can't be meant is refused", (*flow).refuses},
		{"an order of 999 lines goes through", (*flow).large},
		{"what can't be handled is kept, mended and sent again", (*flow).deadLetters},
		{"a replay has no effect", (*flow).replays},
		{"timelines that were dropped come back by a replay", (*flow).drops},
		{"the ledgers equal the counts", (*flow).audits},
		{"everything adds up", (*flow).addsUp},
		{"orders are archived", (*flow).archives},
		{"timelines are rebuilt, from the archive too", (*flow).rebuilds},
		{"everything adds up from the archive", (*flow).addsUp},
		{"the demo comes out as it should", (*flow).demo},
		{"logs hold no e-mail address", (*flow).logs},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(f, t) })
	}
}

// domain is where all customers are. Nothing else has this name in it, so it
// shows where an address got to.
const domain = "customers.example"

var customers atomic.Int64

// placement is an order of a new customer, with an e-mail address that no other
// order has.
func placement(items ...events.Item) system.Placement {
	id := fmt.Sprintf("c-%d", customers.Add(1))
	return system.Placement{CustomerID: id, Email: id + "@" + domain, Items: items}
}

func item(id string, quantity int) events.Item { return events.Item{ID: id, Quantity: quantity} }

// stock creates a product.
func (f *flow) stock(t *testing.T, id string, cents int64, units int) string {
	t.Helper()
	f.Stock(t, id, cents, units)
	f.products = append(f.products, id)
	return id
}

// counted waits until the product has these counts. What is reserved becomes
// shipped, or is released, a moment after the order has ended.
func (f *flow) counted(t *testing.T, id string, available, reserved, shipped int64) {
	t.Helper()
	system.Eventually(t, fmt.Sprintf("%s has %d available, %d reserved and %d shipped", id, available, reserved, shipped), func() (bool, string) {
		p := f.Product(t, id)
		return p.Available == available && p.Reserved == reserved && p.Shipped == shipped, fmt.Sprintf("%+v", p)
	})
}

// ledger is the product's newest movements, the oldest first, each as kind and
// quantity.
func (f *flow) ledger(t *testing.T, id string) string {
	t.Helper()
	var all []string
	for _, m := range f.Ledger(t, id) {
		all = append([]string{fmt.Sprintf("%s %d", m.Kind, m.Quantity)}, all...)
	}
	return strings.Join(all, ", ")
}

// types are the types of the order's events.
func (f *flow) types(t *testing.T, id string) string {
	t.Helper()
	var all []string
	for _, e := range f.Events(t, id) {
		all = append(all, e.Type)
	}
	return strings.Join(all, ", ")
}

// theMail is the one e-mail that was sent for the order, which has ended.
func (f *flow) theMail(t *testing.T, o system.Order) system.Mail {
	t.Helper()
	f.Notified(t, o.OrderID)
	mails := f.Mails(t, o.Email)
	if len(mails) != 1 {
		t.Fatalf("%d e-mails for order %s, want 1: %+v", len(mails), o.OrderID, mails)
	}
	return mails[0]
}
