package cases

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/test/system"
)

// made makes an event that a service might have said.
func made(t *testing.T, source string, p events.Payload) events.Event {
	t.Helper()
	e, err := events.New(source, 1, time.Now(), p)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// publish publishes an event through the sidecar of the service that says such.
func publish(t *testing.T, s *system.Shop, e events.Event) {
	t.Helper()
	from := s.Order
	if e.Topic() == events.TopicInventory {
		from = s.Inventory
	}
	s.Publish(t, from, e)
}

// behind has an order go through all services, behind what was published before.
func behind(t *testing.T, s *system.Shop, id string) {
	t.Helper()
	s.TheMail(t, s.Ended(t, s.MustPlace(t, s.Placement(system.Item(id, 1))).OrderID))
}

// wantMovements wants these movements of the product, now and when everything is over:
// some brokers deliver side by side, so that what is handled last was not sent last.
func wantMovements(t *testing.T, s *system.Shop, id, want string) {
	t.Helper()
	check := func(tb testing.TB) {
		tb.Helper()
		if got := s.Movements(tb, id); got != want {
			tb.Errorf("ledger of %s: %s, want %s", id, got, want)
		}
	}
	check(t)
	s.Later(check)
}

// Duplicates has every event of an order come again, several times and under new
// ids too, so that no broker takes them for repetitions.
func Duplicates(t *testing.T, s *system.Shop) {
	id := s.Shelve(t, "duplicates", 100, 10)
	o := s.Ended(t, s.MustPlace(t, s.Placement(system.Item(id, 2))).OrderID)
	s.TheMail(t, o)
	s.Counted(t, id, 8, 0, 2)
	ledger := s.Movements(t, id)
	reserved := made(t, "inventory", events.InventoryReserved{Reservation: events.Reservation{OrderID: o.OrderID, Items: o.Quantities()}})
	for round := range 3 {
		for _, e := range append(s.Events(t, o.OrderID), reserved) {
			publish(t, s, e)
			e.ID = fmt.Sprintf("again-%d-%s", round, e.ID)
			publish(t, s, e)
		}
	}
	behind(t, s, id)
	s.Counted(t, id, 7, 0, 3)
	wantMovements(t, s, id, ledger+", reserved 1, shipped 1")
	s.TheMail(t, o)
	if got := s.Types(t, o.OrderID); got != "ORDER_CREATED, ORDER_COMPLETED" {
		t.Errorf("events afterwards: %s", got)
	}
}

// OutOfOrder has events overtake those that they follow from.
func OutOfOrder(t *testing.T, s *system.Shop) {
	id := s.Shelve(t, "overtaken", 100, 10)

	// The cancel of an order comes before its creation: nothing is ever held.
	cancelledFirst := events.Order{
		OrderID: "overtaken-order", CustomerID: "c-overtaken", Email: "overtaken@elsewhere.example",
		Items: []events.Line{{ID: id, Quantity: 2, UnitPrice: events.Money{Amount: 100, Currency: "EUR"}}},
		Total: events.Money{Amount: 200, Currency: "EUR"},
	}
	publish(t, s, made(t, "order", events.OrderCancelled{Order: cancelledFirst, Reason: events.ReasonCustomer}))
	system.Eventually(t, "inventory knows of the cancel", func() (bool, string) {
		a, err := system.Send(t.Context(), http.MethodGet, s.Inventory.URL+"/reservations?orderId="+cancelledFirst.OrderID, nil)
		return err == nil && strings.Contains(string(a.Body), "CANCELLED"), fmt.Sprintf("%s (%v)", a, err)
	})
	publish(t, s, made(t, "order", events.OrderCreated{Order: cancelledFirst}))
	behind(t, s, id)
	s.Counted(t, id, 9, 0, 1)

	// An answer comes after the customer has withdrawn the order: it stays cancelled,
	// and what was held is given back. Inventory stands still meanwhile.
	if err := s.Signal("inventory", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() error { return s.Signal("inventory", syscall.SIGCONT) }
	defer func() { _ = goOn() }() // once more does no harm
	withdrawn := s.MustPlace(t, s.Placement(system.Item(id, 3)))
	if a, err := s.Cancel(t.Context(), withdrawn.OrderID); err != nil || a.Status != http.StatusOK {
		t.Fatalf("cancel: %s (%v)", a, err)
	}
	late := made(t, "inventory", events.InventoryReserved{Reservation: events.Reservation{OrderID: withdrawn.OrderID, Items: withdrawn.Quantities()}})
	late.ID = "late-" + late.ID
	publish(t, s, late)
	if err := goOn(); err != nil {
		t.Fatal(err)
	}
	behind(t, s, id)
	s.TheMail(t, s.Ended(t, withdrawn.OrderID))
	if got := s.Types(t, withdrawn.OrderID); got != "ORDER_CREATED, ORDER_CANCELLED" {
		t.Errorf("events: %s", got)
	}
	s.Counted(t, id, 8, 0, 2)
}

// DeadLetters gives the services what they can't handle, wants exactly that among
// the dead letters, and then does with them what an operator would.
func DeadLetters(t *testing.T, s *system.Shop) {
	if before := s.DeadLetters(t, nil); len(before) != 0 {
		t.Fatalf("sound events were given up: %+v", before)
	}
	id := s.Shelve(t, "poisoned", 100, 10)
	sound := s.Ended(t, s.MustPlace(t, s.Placement(system.Item(id, 1))).OrderID)
	s.TheMail(t, sound)

	// An order waits for its answer while inventory stands still; the answer comes, and
	// is broken.
	if err := s.Signal("inventory", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() error { return s.Signal("inventory", syscall.SIGCONT) }
	defer func() { _ = goOn() }()
	waiting := s.MustPlace(t, s.Placement(system.Item(id, 2)))
	answer := made(t, "inventory", events.InventoryRejected{OrderID: waiting.OrderID, Shortages: []events.Shortage{{ID: id, Requested: 2}}})
	answer.ID = "poison-wrong-type"
	broken := answer
	broken.Data = []byte(strings.Replace(string(answer.Data), `"requested":2`, `"requested":"2"`, 1))
	publish(t, s, broken)
	ghost := made(t, "inventory", events.InventoryReserved{Reservation: events.Reservation{OrderID: "nobodys-order", Items: []events.Item{system.Item(id, 2)}}})
	ghost.ID = "poison-contradiction"
	publish(t, s, ghost)
	letters := amongLetters(t, s, "order poison-wrong-type", "order poison-contradiction")

	l := s.DeadLetter(t, letters["order poison-wrong-type"])
	if e, err := events.Parse(l.Original); err != nil || e.ID != broken.ID || !strings.Contains(string(e.Data), `"requested":"2"`) {
		t.Errorf("kept %s (%v)", l.Original, err)
	}
	if o := s.Find(t, waiting.OrderID); o.Final() {
		t.Fatalf("the order is %s without an answer", o.Status)
	}
	if a := s.Redrive(t, l.LetterID, "ada", &answer); a.Status != http.StatusOK {
		t.Fatalf("redrive: %s", a)
	}
	if o := s.Ended(t, waiting.OrderID); o.Status != system.Cancelled {
		t.Errorf("the order is %s, though the mended answer rejects it", o.Status)
	}
	if err := goOn(); err != nil {
		t.Fatal(err)
	}
	s.TheMail(t, s.Ended(t, waiting.OrderID))

	created := s.Events(t, sound.OrderID)[0]
	created.ID, created.DataSchema = "poison-version", events.SchemaBase+"ORDER_CREATED/v99"
	publish(t, s, created)
	s.PublishRaw(t, s.Order, events.TopicOrders, "?metadata.rawPayload=true", "application/octet-stream", []byte("\xffno event at all {"))
	letters = amongLetters(t, s, "order poison-wrong-type", "order poison-contradiction", "inventory poison-version", "sidecar ")

	if a := s.Redrive(t, letters["order poison-contradiction"], "ada", nil); a.Status != http.StatusOK {
		t.Fatalf("redrive: %s", a)
	}
	system.Eventually(t, "what is still poison is back, with an attempt more", func() (bool, string) {
		l := s.DeadLetter(t, letters["order poison-contradiction"])
		return l.Status == "OPEN" && l.Attempts == 2 && l.Redrives == 1, fmt.Sprintf("%+v", l)
	})
	for name, id := range letters {
		if name == "order poison-wrong-type" {
			continue
		}
		if a := s.Discard(t, id, "ada", "a test"); a.Status != http.StatusOK {
			t.Errorf("discard %s: %s", name, a)
		}
	}
	if open := s.DeadLetters(t, map[string][]string{"status": {"OPEN"}}); len(open) != 0 {
		t.Errorf("still open: %+v", open)
	}
	s.Counted(t, id, 9, 0, 1)
}

// amongLetters waits until the dead letters are exactly these, each as service and id
// of its event, and answers with their ids. An event may be given up by several
// services' sidecars, where the broker does not know it again.
func amongLetters(t *testing.T, s *system.Shop, want ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	system.Eventually(t, "exactly the poison is among the dead letters", func() (bool, string) {
		all := s.DeadLetters(t, nil)
		for _, l := range all {
			found[l.Service+" "+l.Event.ID] = l.LetterID
		}
		for _, name := range want {
			if found[name] == "" {
				return false, fmt.Sprintf("%s is not; there is %+v", name, found)
			}
		}
		return true, ""
	})
	if len(found) != len(want) {
		t.Fatalf("nobody sent some of this poison: %+v, want %v", found, want)
	}
	return found
}

// Replays has order tell its history again: everything must be as it was.
func Replays(t *testing.T, s *system.Shop) {
	id := s.Shelve(t, "replayed", 700, 4)
	completed := s.Ended(t, s.MustPlace(t, s.Placement(system.Item(id, 2))).OrderID)
	rejected := s.Ended(t, s.MustPlace(t, s.Placement(system.Item(id, 3))).OrderID)
	if completed.Status != system.Completed || rejected.Status != system.Cancelled {
		t.Fatalf("orders ended as %s and %s", completed.Status, rejected.Status)
	}
	s.TheMail(t, completed)
	s.TheMail(t, rejected)
	s.Counted(t, id, 2, 0, 2)
	ledger := s.Movements(t, id)
	a, err := system.Send(t.Context(), http.MethodPost, s.Order.Sidecar+"/v1.0/invoke/order/method/admin/replay",
		map[string]any{"orderIds": []string{completed.OrderID, rejected.OrderID}}, s.SidecarToken())
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("replay: %s (%v)", a, err)
	}
	behind(t, s, id)
	s.Counted(t, id, 1, 0, 3)
	wantMovements(t, s, id, ledger+", reserved 1, shipped 1")
	for _, o := range []system.Order{completed, rejected} {
		s.TheMail(t, o)
		if got := s.Find(t, o.OrderID); got.Version != o.Version {
			t.Errorf("the order was %+v, is %+v", o, got)
		}
	}
}

// Names has ids of every character that is allowed, and names in several scripts.
func Names(t *testing.T, s *system.Shop) {
	const all = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-"
	for _, name := range []string{"0", all, "x" + strings.Repeat(".", events.MaxIDLength-1), "A..B", "a~b", "9-_-9"} {
		id := s.Shelve(t, name, 100, 5)
		p := s.Placement(system.Item(id, 2))
		p.CustomerID = name
		o, err := s.PlaceSurely(t.Context(), "key "+name, p)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if o = s.Ended(t, o.OrderID); o.Status != system.Completed || o.CustomerID != name || o.Items[0].ID != name {
			t.Errorf("%q: %+v", name, o)
		}
		s.TheMail(t, o)
		s.Counted(t, id, 3, 0, 2)
		if mine := s.ListAll(t, map[string][]string{"customerId": {name}}); len(mine) != 1 {
			t.Errorf("customer %q has %d orders, want 1", name, len(mine))
		}
	}
	for i, name := range []string{`"quoted" & <b>tagged</b> 'twice' \ / %s {{.}}`, "Тест 试验 δοκιμή परीक्षण 🫘", "קפה ☕ بن", strings.Repeat("ä", 200)} {
		id := fmt.Sprintf("named-%d", i)
		if err := s.Describe(t.Context(), id, system.Description{Name: name, Price: events.Money{Amount: 1, Currency: "JPY"}}); err != nil {
			t.Fatal(err)
		}
		if p := s.Product(t, id); p.Name != name {
			t.Errorf("a product named %q is now %q", name, p.Name)
		}
	}
}
