package flow

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/test/cases"
	"orderflow/test/system"
)

// operator is told of low stock: STOCK_ALERT_EMAIL in dapr.yaml.
const operator = "stock@example.com"

func (f *flow) lowStock(t *testing.T) {
	id := f.Shelve(t, "low-tea", 300, 6)
	d := system.Description{Name: "Tea", Price: events.Money{Amount: 300, Currency: "EUR"}, LowStockThreshold: 4}
	if err := f.Describe(t.Context(), id, d); err != nil {
		t.Fatal(err)
	}
	o := f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 2))).OrderID)
	if o.Status != system.Completed {
		t.Fatalf("order ended as %s", o.Status)
	}
	about := func() []system.Mail {
		return slices.DeleteFunc(f.Mails(t, operator), func(m system.Mail) bool { return !strings.Contains(m.Subject, id) })
	}
	system.Eventually(t, "the operator has an e-mail about "+id, func() (bool, string) {
		return len(about()) == 1, fmt.Sprintf("%d such e-mails", len(about()))
	})
	if m := about()[0]; !strings.Contains(m.Text, id) || !strings.Contains(m.HTML, id) || m.MessageID == "" {
		t.Errorf("e-mail about low stock: %+v", m)
	}
}

func (f *flow) waits(t *testing.T) {
	id := f.Shelve(t, "wait", 100, 10)
	o, answer, err := f.Place(t.Context(), f.Placement(system.Item(id, 1)), system.With("Prefer", "wait=20"))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusCreated || o.Status != system.Completed || answer.Header.Get("Preference-Applied") != "wait=20" {
		t.Errorf("Prefer: wait=20 answers %s, preference applied: %q", answer, answer.Header.Get("Preference-Applied"))
	}
	o, answer, err = f.Place(t.Context(), f.Placement(system.Item(id, 100)), system.With("Prefer", "wait=20"))
	if err != nil {
		t.Fatal(err)
	}
	if o.Status != system.Cancelled || o.Reason != events.ReasonRejected {
		t.Errorf("Prefer: wait=20 for more than there is answers %s", answer)
	}
}

// leaves has many callers give up on a service that hangs, which then finds all
// their requests at once. With Dapr 1.18's SQLite component some such rounds did for
// no write to go through any more.
func (f *flow) leaves(t *testing.T) {
	const rounds, callers, patience = 20, 60, 50 * time.Millisecond
	id := f.Shelve(t, "leave", 100, 10)
	o := f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 1))).OrderID)
	ids := []string{o.OrderID}
	for i := range 99 {
		ids = append(ids, fmt.Sprint("none-", i))
	}
	reservations := f.Inventory.URL + "/reservations?" + url.Values{"orderId": ids}.Encode()
	d := system.Description{Name: "Leave", Price: events.Money{Amount: 100, Currency: "EUR"}}
	var left atomic.Int64
	for round := range rounds {
		if err := f.Signal("inventory", syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				ctx, leave := context.WithTimeout(t.Context(), patience)
				defer leave()
				if _, err := system.Send(ctx, http.MethodGet, reservations, nil); err != nil {
					left.Add(1)
				}
			})
		}
		all.Wait()
		if err := f.Signal("inventory", syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		d.LowStockThreshold = int64(round % 5) // so that there is something to write
		if err := f.Describe(t.Context(), id, d); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if n := left.Load(); n < rounds*callers/2 { // some come before the signal does
		t.Errorf("only %d of %d gave up", n, rounds*callers)
	}
	for range 5 {
		f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 1))).OrderID)
	}
	f.Counted(t, id, 4, 0, 6)
}

func (f *flow) redelivers(t *testing.T) {
	id := f.Shelve(t, "again", 100, 10)
	o := f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 2))).OrderID)
	f.TheMail(t, o)
	f.Counted(t, id, 8, 0, 2)
	history := f.Events(t, o.OrderID)
	ledger := f.Movements(t, id)

	created, completed := history[0], history[1]
	reserved, err := events.New("inventory", 1, time.Now(), events.InventoryReserved{
		Reservation: events.Reservation{OrderID: o.OrderID, Items: o.Quantities()},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, d := range []struct {
			to system.Service
			e  events.Event
		}{{f.Inventory, created}, {f.Order, reserved}, {f.Inventory, completed}, {f.Notification, completed}} {
			if verdict := f.Deliver(t, d.to, d.e.Topic(), d.e); verdict != "SUCCESS" {
				t.Errorf("%s again to %s: %s, want SUCCESS", d.e.Type, d.to.ID, verdict)
			}
		}
	}
	// Under new ids, so that no broker takes them for repetitions and drops them.
	for i, e := range []events.Event{created, completed, reserved} {
		e.ID = fmt.Sprintf("again-%d-%s", i, e.ID)
		from := f.Order
		if e.Topic() == events.TopicInventory {
			from = f.Inventory
		}
		f.Publish(t, from, e)
	}
	// An order placed after them has gone through all services behind them.
	behind := f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 1))).OrderID)
	f.TheMail(t, behind)
	f.Counted(t, id, 7, 0, 3)
	if got, want := f.Movements(t, id), ledger+", reserved 1, shipped 1"; got != want {
		t.Errorf("ledger afterwards: %s, want %s", got, want)
	}
	f.TheMail(t, o)
	if got := f.Events(t, o.OrderID); len(got) != 2 {
		t.Errorf("the order has %d events afterwards, want 2", len(got))
	}
}

func (f *flow) prices(t *testing.T) {
	id := f.Shelve(t, "price", 100, 100_000)
	first := f.MustPlace(t, f.Placement(system.Item(id, 2)))
	if first.Total.Amount != 200 {
		t.Errorf("total at 1.00 is %d", first.Total.Amount)
	}
	f.Stock(t, id, 250, 0)
	system.Eventually(t, "an order is placed at the new price", func() (bool, string) {
		o := f.MustPlace(t, f.Placement(system.Item(id, 2)))
		return o.Total.Amount == 500 && o.Items[0].UnitPrice.Amount == 250, fmt.Sprintf("%+v", o.Order)
	})
	if o := f.Ended(t, first.OrderID); o.Total.Amount != 200 {
		t.Errorf("the first order's total is %d now, was 200", o.Total.Amount)
	}

	p := f.Placement(system.Item(id, 1), system.Item("price-of-nothing", 1))
	a, err := system.Send(t.Context(), http.MethodPost, f.Order.URL+"/orders", p)
	if err != nil || a.Status != http.StatusUnprocessableEntity || !strings.Contains(string(a.Body), "price-of-nothing") {
		t.Errorf("an unknown product: %s (%v), want a 422 that names it", a, err)
	}
	cases.CheckProblem(t, a)
	if mine := f.ListAll(t, url.Values{"customerId": {p.CustomerID}}); len(mine) != 0 {
		t.Errorf("it left orders: %+v", mine)
	}
}

func (f *flow) tokens(t *testing.T) {
	id := f.Shelve(t, "token", 100, 10)
	invoke := f.Order.Sidecar + "/v1.0/invoke/order/method/orders"
	for _, test := range []struct {
		name, url string
		headers   []system.Header
		want      int
	}{
		{"through the sidecar", invoke, []system.Header{f.SidecarToken()}, http.StatusAccepted},
		{"through another service's sidecar", f.Notification.Sidecar + "/v1.0/invoke/order/method/orders", []system.Header{f.SidecarToken()}, http.StatusAccepted},
		{"through the sidecar without a token", invoke, nil, http.StatusUnauthorized},
		{"through the sidecar with a wrong token", invoke, []system.Header{system.With("dapr-api-token", "guessed")}, http.StatusUnauthorized},
		{"through the sidecar with the services' token", invoke, []system.Header{system.With("dapr-api-token", f.AppToken)}, http.StatusUnauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := f.Placement(system.Item(id, 1))
			a, err := system.Send(t.Context(), http.MethodPost, test.url, p, test.headers...)
			if err != nil || a.Status != test.want {
				t.Fatalf("%s (%v), want %d", a, err, test.want)
			}
			want := 0
			if test.want == http.StatusAccepted {
				want = 1
			}
			if n := len(f.ListAll(t, url.Values{"customerId": {p.CustomerID}})); n != want {
				t.Errorf("%d orders placed, want %d", n, want)
			}
		})
	}

	created := f.Events(t, f.MustPlace(t, f.Placement(system.Item(id, 1))).OrderID)[0]
	for _, to := range f.Services() {
		topic := events.TopicOrders
		if to.ID == "order" {
			topic = events.TopicInventory
		}
		for name, headers := range map[string][]system.Header{
			"without a token":            nil,
			"with a wrong token":         {system.With("dapr-api-token", "guessed")},
			"with the token of sidecars": {f.SidecarToken()},
			"with a part of the token":   {system.With("dapr-api-token", f.AppToken[:10])},
			"with more than the token":   {system.With("dapr-api-token", f.AppToken+"x")},
		} {
			t.Run("event to "+to.ID+" "+name, func(t *testing.T) {
				a, err := system.Send(t.Context(), http.MethodPost, to.URL+"/events/"+topic, created, headers...)
				if err != nil || a.Status != http.StatusUnauthorized {
					t.Fatalf("%s (%v), want 401", a, err)
				}
				cases.CheckProblem(t, a)
			})
		}
	}
}
