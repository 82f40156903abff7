package flow

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow/events"
	"orderflow/test/system"
)

// orderNamespace is how the order service makes the id of an order from an
// idempotency key, so that the id is known before the order is placed.
var orderNamespace = uuid.MustParse("5b0e2f9c-64b8-5d0a-9a43-6a8f3b1c7d21")

// deadLetters gives the services what they can't handle and wants exactly that
// among the dead letters; then it does with them what an operator would.
func (f *flow) deadLetters(t *testing.T) {
	if before := f.DeadLetters(t, nil); len(before) != 0 {
		t.Fatalf("sound events were given up: %+v", before)
	}
	id := f.Shelve(t, "mended", 100, 10)
	first := f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 1))).OrderID)
	f.TheMail(t, first)

	// inventory answers to an order that is not placed yet: a contradiction, which
	// becomes true later.
	key := "early-" + first.OrderID
	later := f.Placement(system.Item(id, 2))
	early := events.Order{
		OrderID: uuid.NewSHA1(orderNamespace, []byte(key)).String(), CustomerID: later.CustomerID, Email: later.Email,
		Items: []events.Line{{ID: id, Quantity: 2, UnitPrice: events.Money{Amount: 100, Currency: "EUR"}}},
		Total: events.Money{Amount: 200, Currency: "EUR"},
	}
	ahead, err := events.New("order", 1, time.Now(), events.OrderCreated{Order: early})
	if err != nil {
		t.Fatal(err)
	}
	ahead.ID = "ahead-of-its-order" // not that of the real one
	f.Publish(t, f.Order, ahead)
	tooEarly := "order CONTRADICTION " + early.OrderID + ":1:INVENTORY_RESERVED"
	f.letters(t, map[string]string{tooEarly: ""})

	// An order stays pending while inventory stands still, so that a mended answer
	// can be seen to end it: a rejection, since inventory, which knows nothing of it,
	// takes the cancellation that follows before the order's creation as well as after.
	if err := f.Signal("inventory", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() {
		if err := f.Signal("inventory", syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	stopped := true
	defer func() {
		if stopped {
			goOn()
		}
	}()
	pending := f.MustPlace(t, f.Placement(system.Item(id, 2)))
	sound, err := events.New("inventory", 1, time.Now(), events.InventoryRejected{
		OrderID: pending.OrderID, Shortages: []events.Shortage{{ID: id, Requested: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	sound.ID = "poison-wrong-type"
	broken := sound
	broken.Data = []byte(strings.Replace(string(sound.Data), `"requested":2`, `"requested":"2"`, 1))
	ghost, err := events.New("inventory", 1, time.Now(), events.InventoryReserved{
		Reservation: events.Reservation{OrderID: "nobodys-order", Items: []events.Item{system.Item(id, 2)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ghost.ID = "poison-contradiction"
	created := f.Events(t, first.OrderID)[0]
	version2 := created
	version2.ID, version2.DataSchema = "poison-version", events.SchemaBase+"ORDER_CREATED/v2"
	completed := f.Events(t, first.OrderID)[1]
	completed.ID, completed.Data = "poison-empty", []byte(`{}`)
	const noEvent = "\xffno event at all {"

	f.Publish(t, f.Inventory, broken)
	f.Publish(t, f.Inventory, ghost)
	letter := f.letters(t, map[string]string{
		tooEarly:                                   "",
		"order UNDECODABLE poison-wrong-type":      "",
		"order CONTRADICTION poison-contradiction": "",
	})

	t.Run("true by now", func(t *testing.T) {
		o := f.MustPlace(t, later, system.With("Idempotency-Key", key))
		if o.OrderID != early.OrderID || f.Find(t, o.OrderID).Final() {
			t.Fatalf("%+v, want the order %s without an end", o, early.OrderID)
		}
		if a := f.Redrive(t, letter[tooEarly], "ada", nil); a.Status != http.StatusOK {
			t.Fatal(a)
		}
		if o = f.Ended(t, o.OrderID); o.Status != system.Completed {
			t.Errorf("the order is %s", o.Status)
		}
	})
	t.Run("mended", func(t *testing.T) {
		l := f.DeadLetter(t, letter["order UNDECODABLE poison-wrong-type"])
		if l.Topic != events.TopicInventory || l.Attempts != 1 || l.Event.Subject != pending.OrderID || !strings.Contains(l.Reason, "requested") {
			t.Errorf("%+v", l)
		}
		if e, err := events.Parse(l.Original); err != nil || e.ID != broken.ID || !strings.Contains(string(e.Data), `"requested":"2"`) {
			t.Errorf("kept %s (%v)", l.Original, err) // its fields in whatever sequence the sidecar likes
		}
		if o := f.Find(t, pending.OrderID); o.Final() {
			t.Fatalf("the order is %s without an answer", o.Status)
		}
		if a := f.Redrive(t, l.LetterID, "ada", &sound); a.Status != http.StatusOK {
			t.Fatal(a)
		}
		if o := f.Ended(t, pending.OrderID); o.Status != system.Cancelled {
			t.Errorf("the order is %s", o.Status)
		}
		if l = f.DeadLetter(t, l.LetterID); l.Status != "REDRIVEN" || l.Audit[len(l.Audit)-1].Who != "ada" {
			t.Errorf("%+v", l)
		}
	})
	goOn()
	stopped = false
	f.TheMail(t, f.Ended(t, pending.OrderID))
	f.TheMail(t, f.Ended(t, early.OrderID))
	f.Counted(t, id, 7, 0, 3)

	whole := f.publishLarge(t, ghost)
	f.Publish(t, f.Order, version2)
	f.Publish(t, f.Order, completed)
	f.PublishRaw(t, f.Order, events.TopicOrders, "?metadata.rawPayload=true", "application/octet-stream", []byte(noEvent))
	letter = f.letters(t, map[string]string{
		tooEarly:                                   "",
		"order UNDECODABLE poison-wrong-type":      "",
		"order CONTRADICTION poison-contradiction": "",
		"order CONTRADICTION poison-large":         "",
		"inventory VERSION poison-version":         "",
		"inventory UNDECODABLE poison-empty":       "",
		"notification UNDECODABLE poison-empty":    "",
		"sidecar UNDELIVERED ":                     "",
	})
	// A broker of text (SNS) puts a sign of its own in the place of a byte that is none.
	if l := f.DeadLetter(t, letter["sidecar UNDELIVERED "]); string(l.Original) != noEvent && string(l.Original) != strings.ToValidUTF8(noEvent, "\uFFFD") {
		t.Errorf("kept %q of %q", l.Original, noEvent)
	}

	if l := f.DeadLetter(t, letter["order CONTRADICTION poison-large"]); l.Truncated == whole || !whole && len(l.Original) != events.MaxOriginal {
		t.Errorf("%d bytes are kept, cut off: %t", len(l.Original), l.Truncated)
	}

	t.Run("still poisonous", func(t *testing.T) {
		id := letter["order CONTRADICTION poison-contradiction"]
		for attempts := 2; attempts <= 3; attempts++ {
			if a := f.Redrive(t, id, "ada", nil); a.Status != http.StatusOK {
				t.Fatal(a)
			}
			system.Eventually(t, "the letter is back", func() (bool, string) {
				l := f.DeadLetter(t, id)
				return l.Status == "OPEN" && l.Attempts == attempts && l.Redrives == attempts-1, fmt.Sprintf("%+v", l)
			})
		}
	})
	t.Run("not to be sent", func(t *testing.T) {
		if a := f.Redrive(t, letter["sidecar UNDELIVERED "], "ada", nil); a.Status != http.StatusUnprocessableEntity {
			t.Errorf("bytes that are no event: %s", a)
		}
		if !whole {
			if a := f.Redrive(t, letter["order CONTRADICTION poison-large"], "ada", nil); a.Status != http.StatusUnprocessableEntity {
				t.Errorf("the beginning of an event: %s", a)
			}
		}
		for name, id := range letter {
			if strings.HasPrefix(name, "order UNDECODABLE") || name == tooEarly {
				continue
			}
			if a := f.Discard(t, id, "ada", "a test"); a.Status != http.StatusOK {
				t.Errorf("%s: %s", name, a)
			}
		}
		// An operator has the sidecar's token; it adds the service's own.
		a, err := system.Send(t.Context(), http.MethodGet, f.Console.Sidecar+"/v1.0/invoke/console/method/deadletters?status=DISCARDED&limit=2", nil, f.SidecarToken())
		if err != nil || a.Status != http.StatusOK || strings.Count(string(a.Body), `"letterId"`) != 2 {
			t.Errorf("through the sidecar: %s (%v)", a, err)
		}
		if a, err = system.Send(t.Context(), http.MethodGet, f.Console.URL+"/deadletters", nil); err != nil || a.Status != http.StatusUnauthorized {
			t.Errorf("without a token: %s (%v)", a, err)
		}
		if open := f.DeadLetters(t, map[string][]string{"status": {"OPEN"}}); len(open) != 0 {
			t.Errorf("%+v", open)
		}
	})
	t.Run("timelines", func(t *testing.T) {
		f.timeline(t, first.OrderID, "order ORDER_CREATED, inventory INVENTORY_RESERVED, order ORDER_COMPLETED")
		system.Eventually(t, "the mended answer stands in the timeline", func() (bool, string) {
			moments := f.Moments(t, pending.OrderID)
			for _, m := range moments {
				if m.RedriveOf == sound.ID && m.ID == sound.ID+":redrive:1" {
					return true, ""
				}
			}
			return false, fmt.Sprintf("%+v", moments)
		})
	})
}

// publishLarge publishes ghost with so much padding that its letter can't hold all
// of it; or, where the broker takes no message of that size (SNS: 256 KiB, and the
// letter is one, too), with less, and the letter has the whole.
func (f *flow) publishLarge(t *testing.T, ghost events.Event) (whole bool) {
	t.Helper()
	large := ghost
	large.ID = "poison-large"
	for _, padding := range []int{900_000, 150_000} {
		large.Data = []byte(`{"padding":"` + strings.Repeat("x", padding) + `",` + string(ghost.Data[1:]))
		a, err := system.Send(t.Context(), http.MethodPost, f.Inventory.Sidecar+"/v1.0/publish/"+large.Topic()+"/"+large.Topic(), large,
			system.With("Content-Type", events.ContentType), f.SidecarToken())
		if err != nil {
			t.Fatal(err)
		}
		if a.Status/100 == 2 {
			return padding < events.MaxOriginal
		}
		t.Logf("with %d bytes of padding: %.300s", padding, a)
	}
	t.Fatal("the broker takes neither")
	return false
}

// letters waits until the dead letters are exactly those named in want, each as
// service, cause and id of its event, and answers with their ids.
func (f *flow) letters(t *testing.T, want map[string]string) map[string]string {
	t.Helper()
	system.Eventually(t, "exactly the poison is among the dead letters", func() (bool, string) {
		all := f.DeadLetters(t, nil)
		for _, l := range all {
			name := l.Service + " " + l.Cause + " " + l.Event.ID
			if _, ok := want[name]; !ok {
				t.Fatalf("nobody sent this poison: %+v", l)
			}
			want[name] = l.LetterID
		}
		return len(all) == len(want), fmt.Sprintf("%+v", all)
	})
	return want
}

// timeline waits until console shows these events of an order, all in one trace.
func (f *flow) timeline(t *testing.T, orderID, want string) {
	t.Helper()
	system.Eventually(t, "the timeline of "+orderID+" is whole", func() (bool, string) {
		var all []string
		traces := map[string]bool{}
		for _, m := range f.Moments(t, orderID) {
			if strings.HasPrefix(m.ID, "poison-") {
				continue
			}
			all = append(all, m.Source+" "+m.Type)
			traces[m.TraceID] = true
		}
		got := strings.Join(all, ", ")
		return got == want && len(traces) == 1 && !traces[""], fmt.Sprintf("%s in traces %v", got, traces)
	})
}
