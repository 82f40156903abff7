package flow

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/test/system"
)

// operator is told of low stock: STOCK_ALERT_EMAIL in dapr.yaml.
const operator = "stock@example.com"

func (f *flow) completes(t *testing.T) {
	beans, filters := f.stock(t, "complete-beans", 1890, 10), f.stock(t, "complete-filters", 450, 5)
	p := placement(item(beans, 2), item(filters, 1))
	placed, answer, err := f.Place(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusAccepted || answer.Header.Get("Location") != "/orders/"+placed.OrderID {
		t.Errorf("placing answers %s with Location %q, want 202 and that of the order", answer, answer.Header.Get("Location"))
	}
	if placed.Status != system.Pending {
		t.Errorf("placed order is %s, want PENDING", placed.Status)
	}

	o := f.Ended(t, placed.OrderID)
	if o.Status != system.Completed || o.Total != (events.Money{Amount: 2*1890 + 450, Currency: "EUR"}) {
		t.Errorf("order ended as %+v, want COMPLETED and 42.30 EUR", o)
	}
	if got := f.types(t, o.OrderID); got != "ORDER_CREATED, ORDER_COMPLETED" {
		t.Errorf("events: %s", got)
	}
	checkContract(t, f.System, o.OrderID)
	f.counted(t, beans, 8, 0, 2)
	f.counted(t, filters, 4, 0, 1)
	if got := f.ledger(t, beans); got != "received 10, reserved 2, shipped 2" {
		t.Errorf("ledger: %s", got)
	}

	n := f.Notified(t, o.OrderID)
	if n.Kind != "COMPLETED" || n.SentAt.IsZero() {
		t.Errorf("notification: %+v", n)
	}
	m := f.theMail(t, o)
	if m.MessageID != n.MessageID || !strings.Contains(m.MessageID, o.OrderID) {
		t.Errorf("Message-ID is %q, the notification's %q; it should follow from the order %s", m.MessageID, n.MessageID, o.OrderID)
	}
	for form, text := range map[string]string{"subject": m.Subject, "text": m.Text, "HTML": m.HTML} {
		if !strings.Contains(text, o.OrderID) {
			t.Errorf("the e-mail's %s does not name the order:\n%s", form, text)
		}
	}
	for form, text := range map[string]string{"text": m.Text, "HTML": m.HTML} {
		if !strings.Contains(text, beans) || !strings.Contains(text, "42.30") {
			t.Errorf("the e-mail's %s names not the product %s or not the total 42.30:\n%s", form, beans, text)
		}
	}

	again, err := f.Cancel(t.Context(), o.OrderID)
	if err != nil || again.Status != http.StatusConflict {
		t.Errorf("cancelling a completed order: %s (%v), want 409", again, err)
	}
}

func (f *flow) rejects(t *testing.T) {
	scarce, plenty := f.stock(t, "reject-scarce", 100, 1), f.stock(t, "reject-plenty", 100, 50)
	o := f.Ended(t, f.MustPlace(t, placement(item(plenty, 3), item(scarce, 2))).OrderID)
	if o.Status != system.Cancelled || o.Reason != events.ReasonRejected {
		t.Errorf("order ended as %s %s, want CANCELLED REJECTED", o.Status, o.Reason)
	}
	if want := []events.Shortage{{ID: scarce, Requested: 2, Available: 1}}; !slices.Equal(o.Shortages, want) {
		t.Errorf("shortages %+v, want %+v", o.Shortages, want)
	}
	if got := f.types(t, o.OrderID); got != "ORDER_CREATED, ORDER_CANCELLED" {
		t.Errorf("events: %s", got)
	}
	checkContract(t, f.System, o.OrderID)
	m := f.theMail(t, o)
	if n := f.Notified(t, o.OrderID); n.Kind != "CANCELLED" || n.MessageID != m.MessageID {
		t.Errorf("notification: %+v, the e-mail's Message-ID: %s", n, m.MessageID)
	}
	if !strings.Contains(m.Text, scarce) || !strings.Contains(m.HTML, scarce) {
		t.Errorf("the e-mail does not say that %s is missing:\n%s", scarce, m.Text)
	}
	f.counted(t, scarce, 1, 0, 0)
	f.counted(t, plenty, 50, 0, 0)
	if got := f.ledger(t, plenty); got != "received 50" {
		t.Errorf("ledger of what there was enough of: %s", got)
	}
}

func (f *flow) lowStock(t *testing.T) {
	id := f.stock(t, "low-tea", 300, 6)
	d := system.Description{Name: "Tea", Price: events.Money{Amount: 300, Currency: "EUR"}, LowStockThreshold: 4}
	if err := f.Describe(t.Context(), id, d); err != nil {
		t.Fatal(err)
	}
	o := f.Ended(t, f.MustPlace(t, placement(item(id, 2))).OrderID)
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
	id := f.stock(t, "wait", 100, 10)
	o, answer, err := f.Place(t.Context(), placement(item(id, 1)), system.With("Prefer", "wait=20"))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusCreated || o.Status != system.Completed || answer.Header.Get("Preference-Applied") != "wait=20" {
		t.Errorf("Prefer: wait=20 answers %s, preference applied: %q", answer, answer.Header.Get("Preference-Applied"))
	}
	o, answer, err = f.Place(t.Context(), placement(item(id, 100)), system.With("Prefer", "wait=20"))
	if err != nil {
		t.Fatal(err)
	}
	if o.Status != system.Cancelled || o.Reason != events.ReasonRejected {
		t.Errorf("Prefer: wait=20 for more than there is answers %s", answer)
	}
}

func (f *flow) oneKey(t *testing.T) {
	const clients = 20
	id := f.stock(t, "key", 100, 100)
	p, key := placement(item(id, 1)), system.With("Idempotency-Key", `"a-key-that-twenty-clients-share"`)
	answers := make([]system.Answer, clients)
	atOnce(t, clients, func(i int) (err error) {
		_, answers[i], err = f.Place(t.Context(), p, key)
		return err
	})
	for i, a := range answers {
		if a.String() != answers[0].String() || a.Header.Get("Location") != answers[0].Header.Get("Location") {
			t.Errorf("client %d was answered %s, client 0 %s", i, a, answers[0])
		}
	}
	mine := f.ListAll(t, url.Values{"customerId": {p.CustomerID}})
	if len(mine) != 1 {
		t.Fatalf("%d orders of one key, want 1", len(mine))
	}
	o := f.Ended(t, mine[0].OrderID)
	f.theMail(t, o)
	f.counted(t, id, 99, 0, 1)

	late, a, err := f.Place(t.Context(), p, key)
	if err != nil || late.OrderID != o.OrderID {
		t.Errorf("the same request after the end: %s (%v), want order %s", a, err, o.OrderID)
	}
	other := p
	other.Items = []events.Item{item(id, 2)}
	a, err = system.Send(t.Context(), http.MethodPost, f.Order.URL+"/orders", other, key)
	if err != nil || a.Status != http.StatusUnprocessableEntity {
		t.Errorf("another body with the same key: %s (%v), want 422", a, err)
	}
	checkProblem(t, a)
	if n := len(f.ListAll(t, url.Values{"customerId": {p.CustomerID}})); n != 1 {
		t.Errorf("%d orders afterwards, want 1", n)
	}
}

func (f *flow) lastUnits(t *testing.T) {
	const clients, units = 50, 10
	id := f.stock(t, "last", 100, units)
	placed := make([]string, clients)
	atOnce(t, clients, func(i int) error {
		o, _, err := f.Place(t.Context(), placement(item(id, 1)))
		placed[i] = o.OrderID
		return err
	})
	completed := 0
	for _, orderID := range placed {
		switch o := f.Ended(t, orderID); {
		case o.Status == system.Completed:
			completed++
		case o.Reason != events.ReasonRejected:
			t.Errorf("order %s was cancelled for %s, want REJECTED", orderID, o.Reason)
		}
	}
	if completed != units {
		t.Errorf("%d of %d orders completed, want %d", completed, clients, units)
	}
	f.counted(t, id, 0, 0, units)
}

func (f *flow) cancels(t *testing.T) {
	const clients = 40
	id := f.stock(t, "cancel", 100, 1000)
	placed := make([]string, clients)
	answers := make([]system.Answer, clients)
	atOnce(t, clients, func(i int) error {
		o, _, err := f.Place(t.Context(), placement(item(id, 3)))
		if err != nil {
			return err
		}
		placed[i] = o.OrderID
		// Each a little later than the one before, so that some come too late.
		for range i {
			if _, err := system.Send(t.Context(), http.MethodGet, f.Order.URL+"/orders/"+o.OrderID, nil); err != nil {
				return err
			}
		}
		answers[i], err = f.Cancel(t.Context(), o.OrderID)
		return err
	})
	var shipped int64
	for i, orderID := range placed {
		o := f.Ended(t, orderID)
		switch {
		case o.Status == system.Completed && answers[i].Status == http.StatusConflict:
			shipped += 3
			if got := f.types(t, orderID); got != "ORDER_CREATED, ORDER_COMPLETED" {
				t.Errorf("events of completed order: %s", got)
			}
		case o.Reason == events.ReasonCustomer && answers[i].Status == http.StatusOK:
			if got := f.types(t, orderID); got != "ORDER_CREATED, ORDER_CANCELLED" {
				t.Errorf("events of cancelled order: %s", got)
			}
			again, err := f.Cancel(t.Context(), orderID)
			if err != nil || again.Status != http.StatusOK {
				t.Errorf("cancelling a cancelled order again: %s (%v), want 200", again, err)
			}
		default:
			t.Errorf("cancelling was answered with %s, and the order ended as %s %s", answers[i], o.Status, o.Reason)
		}
		f.theMail(t, o)
	}
	t.Logf("%d of %d orders were cancelled in time", clients-int(shipped/3), clients)
	f.counted(t, id, 1000-shipped, 0, shipped)
}

func (f *flow) redelivers(t *testing.T) {
	id := f.stock(t, "again", 100, 10)
	o := f.Ended(t, f.MustPlace(t, placement(item(id, 2))).OrderID)
	f.theMail(t, o)
	f.counted(t, id, 8, 0, 2)
	history := f.Events(t, o.OrderID)
	ledger := f.ledger(t, id)

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
	behind := f.Ended(t, f.MustPlace(t, placement(item(id, 1))).OrderID)
	f.theMail(t, behind)
	f.counted(t, id, 7, 0, 3)
	if got, want := f.ledger(t, id), ledger+", reserved 1, shipped 1"; got != want {
		t.Errorf("ledger afterwards: %s, want %s", got, want)
	}
	f.theMail(t, o)
	if got := f.Events(t, o.OrderID); len(got) != 2 {
		t.Errorf("the order has %d events afterwards, want 2", len(got))
	}
}

func (f *flow) prices(t *testing.T) {
	id := f.stock(t, "price", 100, 100_000)
	first := f.MustPlace(t, placement(item(id, 2)))
	if first.Total.Amount != 200 {
		t.Errorf("total at 1.00 is %d", first.Total.Amount)
	}
	f.Stock(t, id, 250, 0)
	system.Eventually(t, "an order is placed at the new price", func() (bool, string) {
		o := f.MustPlace(t, placement(item(id, 2)))
		return o.Total.Amount == 500 && o.Items[0].UnitPrice.Amount == 250, fmt.Sprintf("%+v", o.Order)
	})
	if o := f.Ended(t, first.OrderID); o.Total.Amount != 200 {
		t.Errorf("the first order's total is %d now, was 200", o.Total.Amount)
	}

	p := placement(item(id, 1), item("price-of-nothing", 1))
	a, err := system.Send(t.Context(), http.MethodPost, f.Order.URL+"/orders", p)
	if err != nil || a.Status != http.StatusUnprocessableEntity || !strings.Contains(string(a.Body), "price-of-nothing") {
		t.Errorf("an unknown product: %s (%v), want a 422 that names it", a, err)
	}
	checkProblem(t, a)
	if mine := f.ListAll(t, url.Values{"customerId": {p.CustomerID}}); len(mine) != 0 {
		t.Errorf("it left orders: %+v", mine)
	}
}

func (f *flow) tokens(t *testing.T) {
	id := f.stock(t, "token", 100, 10)
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
			p := placement(item(id, 1))
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

	created := f.Events(t, f.MustPlace(t, placement(item(id, 1))).OrderID)[0]
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
				checkProblem(t, a)
			})
		}
	}
}

// atOnce calls f for 0 to n-1, all at the same moment, and fails the test with
// the errors.
func atOnce(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	errs := make([]error, n)
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			<-start
			errs[i] = f(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
