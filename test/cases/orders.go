// Package cases are what the system does whatever broker and store it runs on and
// whatever its services are written in, told over HTTP and through the sidecars.
// Each has products and customers of its own, so that they can share a system.
package cases

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

func Completes(t *testing.T, s *system.Shop) {
	beans, filters := s.Shelve(t, "complete-beans", 1890, 10), s.Shelve(t, "complete-filters", 450, 5)
	p := s.Placement(system.Item(beans, 2), system.Item(filters, 1))
	placed, answer, err := s.Place(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusAccepted || answer.Header.Get("Location") != "/orders/"+placed.OrderID {
		t.Errorf("placing answers %s with Location %q, want 202 and that of the order", answer, answer.Header.Get("Location"))
	}
	if placed.Status != system.Pending {
		t.Errorf("placed order is %s, want PENDING", placed.Status)
	}

	o := s.Ended(t, placed.OrderID)
	if o.Status != system.Completed || o.Total != (events.Money{Amount: 2*1890 + 450, Currency: "EUR"}) {
		t.Errorf("order ended as %+v, want COMPLETED and 42.30 EUR", o)
	}
	if got := s.Types(t, o.OrderID); got != "ORDER_CREATED, ORDER_COMPLETED" {
		t.Errorf("events: %s", got)
	}
	CheckContract(t, s.System, o.OrderID)
	s.Counted(t, beans, 8, 0, 2)
	s.Counted(t, filters, 4, 0, 1)
	if got := s.Movements(t, beans); got != "received 10, reserved 2, shipped 2" {
		t.Errorf("ledger: %s", got)
	}

	n := s.Notified(t, o.OrderID)
	if n.Kind != "COMPLETED" || n.SentAt.IsZero() {
		t.Errorf("notification: %+v", n)
	}
	m := s.TheMail(t, o)
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

	again, err := s.Cancel(t.Context(), o.OrderID)
	if err != nil || again.Status != http.StatusConflict {
		t.Errorf("cancelling a completed order: %s (%v), want 409", again, err)
	}
}

func Rejects(t *testing.T, s *system.Shop) {
	scarce, plenty := s.Shelve(t, "reject-scarce", 100, 1), s.Shelve(t, "reject-plenty", 100, 50)
	o := s.Ended(t, s.MustPlace(t, s.Placement(system.Item(plenty, 3), system.Item(scarce, 2))).OrderID)
	if o.Status != system.Cancelled || o.Reason != events.ReasonRejected {
		t.Errorf("order ended as %s %s, want CANCELLED REJECTED", o.Status, o.Reason)
	}
	if want := []events.Shortage{{ID: scarce, Requested: 2, Available: 1}}; !slices.Equal(o.Shortages, want) {
		t.Errorf("shortages %+v, want %+v", o.Shortages, want)
	}
	if got := s.Types(t, o.OrderID); got != "ORDER_CREATED, ORDER_CANCELLED" {
		t.Errorf("events: %s", got)
	}
	CheckContract(t, s.System, o.OrderID)
	m := s.TheMail(t, o)
	if n := s.Notified(t, o.OrderID); n.Kind != "CANCELLED" || n.MessageID != m.MessageID {
		t.Errorf("notification: %+v, the e-mail's Message-ID: %s", n, m.MessageID)
	}
	if !strings.Contains(m.Text, scarce) || !strings.Contains(m.HTML, scarce) {
		t.Errorf("the e-mail does not say that %s is missing:\n%s", scarce, m.Text)
	}
	s.Counted(t, scarce, 1, 0, 0)
	s.Counted(t, plenty, 50, 0, 0)
	if got := s.Movements(t, plenty); got != "received 50" {
		t.Errorf("ledger of what there was enough of: %s", got)
	}
}

func Cancels(t *testing.T, s *system.Shop) {
	const clients = 40
	id := s.Shelve(t, "cancel", 100, 1000)
	placed := make([]string, clients)
	answers := make([]system.Answer, clients)
	AtOnce(t, clients, func(i int) error {
		o, _, err := s.Place(t.Context(), s.Placement(system.Item(id, 3)))
		if err != nil {
			return err
		}
		placed[i] = o.OrderID
		// Each a little later than the one before, so that some come too late.
		for range i {
			if _, err := system.Send(t.Context(), http.MethodGet, s.Order.URL+"/orders/"+o.OrderID, nil); err != nil {
				return err
			}
		}
		answers[i], err = s.Cancel(t.Context(), o.OrderID)
		return err
	})
	var shipped int64
	for i, orderID := range placed {
		o := s.Ended(t, orderID)
		switch {
		case o.Status == system.Completed && answers[i].Status == http.StatusConflict:
			shipped += 3
			if got := s.Types(t, orderID); got != "ORDER_CREATED, ORDER_COMPLETED" {
				t.Errorf("events of completed order: %s", got)
			}
		case o.Reason == events.ReasonCustomer && answers[i].Status == http.StatusOK:
			if got := s.Types(t, orderID); got != "ORDER_CREATED, ORDER_CANCELLED" {
				t.Errorf("events of cancelled order: %s", got)
			}
			again, err := s.Cancel(t.Context(), orderID)
			if err != nil || again.Status != http.StatusOK {
				t.Errorf("cancelling a cancelled order again: %s (%v), want 200", again, err)
			}
		default:
			t.Errorf("cancelling was answered with %s, and the order ended as %s %s", answers[i], o.Status, o.Reason)
		}
		s.TheMail(t, o)
	}
	t.Logf("%d of %d orders were cancelled in time", clients-int(shipped/3), clients)
	s.Counted(t, id, 1000-shipped, 0, shipped)
}

func OneKey(t *testing.T, s *system.Shop) {
	const clients = 20
	id := s.Shelve(t, "key", 100, 100)
	p, key := s.Placement(system.Item(id, 1)), system.With("Idempotency-Key", `"a-key-that-twenty-clients-share"`)
	answers := make([]system.Answer, clients)
	AtOnce(t, clients, func(i int) (err error) {
		_, answers[i], err = s.Place(t.Context(), p, key)
		return err
	})
	for i, a := range answers {
		if a.String() != answers[0].String() || a.Header.Get("Location") != answers[0].Header.Get("Location") {
			t.Errorf("client %d was answered %s, client 0 %s", i, a, answers[0])
		}
	}
	mine := s.ListAll(t, url.Values{"customerId": {p.CustomerID}})
	if len(mine) != 1 {
		t.Fatalf("%d orders of one key, want 1", len(mine))
	}
	o := s.Ended(t, mine[0].OrderID)
	s.TheMail(t, o)
	s.Counted(t, id, 99, 0, 1)

	late, a, err := s.Place(t.Context(), p, key)
	if err != nil || late.OrderID != o.OrderID {
		t.Errorf("the same request after the end: %s (%v), want order %s", a, err, o.OrderID)
	}
	other := p
	other.Items = []events.Item{system.Item(id, 2)}
	a, err = system.Send(t.Context(), http.MethodPost, s.Order.URL+"/orders", other, key)
	if err != nil || a.Status != http.StatusUnprocessableEntity {
		t.Errorf("another body with the same key: %s (%v), want 422", a, err)
	}
	CheckProblem(t, a)
	if n := len(s.ListAll(t, url.Values{"customerId": {p.CustomerID}})); n != 1 {
		t.Errorf("%d orders afterwards, want 1", n)
	}
}

func LastUnits(t *testing.T, s *system.Shop) {
	const clients, units = 50, 10
	id := s.Shelve(t, "last", 100, units)
	placed := make([]string, clients)
	AtOnce(t, clients, func(i int) error {
		o, _, err := s.Place(t.Context(), s.Placement(system.Item(id, 1)))
		placed[i] = o.OrderID
		return err
	})
	completed := 0
	for _, orderID := range placed {
		switch o := s.Ended(t, orderID); {
		case o.Status == system.Completed:
			completed++
		case o.Reason != events.ReasonRejected:
			t.Errorf("order %s was cancelled for %s, want REJECTED", orderID, o.Reason)
		}
	}
	if completed != units {
		t.Errorf("%d of %d orders completed, want %d", completed, clients, units)
	}
	s.Counted(t, id, 0, 0, units)
}

// Large places an order as large as they come: as many lines as are taken, with
// ids as long as they may be. Its events are about 200 KiB each.
func Large(t *testing.T, s *system.Shop) {
	const clients = 16
	ids := make([]string, events.MaxLines)
	items := make([]events.Item, len(ids))
	for i := range ids {
		prefix := fmt.Sprintf("large-%03d-", i)
		ids[i] = prefix + strings.Repeat("x", events.MaxIDLength-len(prefix))
		items[i] = system.Item(ids[i], 2)
	}
	begin := time.Now()
	var (
		group sync.WaitGroup
		errs  = make([]error, clients)
	)
	for c := range clients {
		group.Go(func() {
			for i := c; i < len(ids) && errs[c] == nil; i += clients {
				d := system.Description{Name: ids[i], Price: events.Money{Amount: 199, Currency: "EUR"}}
				if errs[c] = s.Describe(t.Context(), ids[i], d); errs[c] == nil {
					errs[c] = s.Receive(t.Context(), ids[i], 3)
				}
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d products made in %s", len(ids), time.Since(begin).Round(time.Millisecond))

	begin = time.Now()
	o := s.Ended(t, s.MustPlace(t, s.Placement(items...)).OrderID)
	if o.Status != system.Completed || o.Total.Amount != int64(len(ids))*2*199 {
		t.Errorf("order ended as %s with a total of %v", o.Status, o.Total)
	}
	CheckContract(t, s.System, o.OrderID)
	m := s.TheMail(t, o)
	t.Logf("from POST to e-mail: %s", time.Since(begin).Round(time.Millisecond))
	for _, id := range []string{ids[0], ids[500], ids[998]} {
		s.Counted(t, id, 1, 0, 2)
	}
	if !strings.Contains(m.Text, "3,976.02") && !strings.Contains(m.Text, "3976.02") {
		t.Errorf("the e-mail does not name the total of 3976.02:\n%.200s", m.Text)
	}
}

// AtOnce calls f for 0 to n-1, all at the same moment, and fails the test with
// the errors.
func AtOnce(t *testing.T, n int, f func(i int) error) {
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
