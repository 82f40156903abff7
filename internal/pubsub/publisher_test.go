package pubsub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/internal/daprtest"
)

// news is an event about a product, one without data.
func news(t testing.TB, product string, p func(string) events.Payload) events.Event {
	t.Helper()
	e, err := events.New("inventory", 1, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), p(product))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func priceUpdated(id string) events.Payload { return events.PriceUpdated{ProductID: id} }

func order(id string) events.Order {
	price := events.Money{Amount: 250, Currency: "EUR"}
	return events.Order{
		OrderID: id, CustomerID: "c-1", Email: "ada@example.com",
		Items: []events.Line{{ID: "p-1", Quantity: 2, UnitPrice: price}},
		Total: events.Money{Amount: 500, Currency: "EUR"},
	}
}

func orderCreated(id string) events.Payload { return events.OrderCreated{Order: order(id)} }

func startPublisher(t *testing.T, topics ...string) (*daprtest.Sidecar, *Publisher) {
	s, client := daprtest.Start(t, daprtest.RedisLike)
	p := NewPublisher(client, topics...)
	t.Cleanup(p.Close)
	return s, p
}

func wait[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// hold keeps publishes of one event from going on until release.
func hold(t *testing.T, s *daprtest.Sidecar) (reached <-chan string, release func()) {
	calls, open := make(chan string, 100), make(chan struct{})
	release = sync.OnceFunc(func() { close(open) })
	s.Fail(func(call string) error {
		calls <- call
		<-open
		return nil
	})
	t.Cleanup(release)
	return calls, release
}

// wantPublished wants each of the events once. That each came with its
// partition key, content type and topic is what the sidecar checks.
func wantPublished(t *testing.T, s *daprtest.Sidecar, want ...events.Event) {
	t.Helper()
	got := map[string]int{}
	for _, e := range s.Published() {
		got[e.ID+string(e.Data)]++
	}
	for _, e := range want {
		if n := got[e.ID+string(e.Data)]; n != 1 {
			t.Errorf("%s was published %d times", e.ID, n)
		}
	}
	if len(s.Published()) != len(want) {
		t.Errorf("%d events were published, want %d", len(s.Published()), len(want))
	}
}

func TestOneEventIsPublishedSingly(t *testing.T) {
	s, p := startPublisher(t, events.TopicOrders)
	e := news(t, "o-1", orderCreated)
	if err := p.Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	wantPublished(t, s, e)
	if single, bulk := s.Calls("PublishEvent"), s.Calls("BulkPublishEvent"); single != 1 || bulk != 0 {
		t.Errorf("%d single and %d bulk publishes, want 1 and 0", single, bulk)
	}
}

func TestNothingIsPublishedWithoutEvents(t *testing.T) {
	s, p := startPublisher(t, events.TopicOrders)
	if err := p.Publish(t.Context()); err != nil {
		t.Error(err)
	}
	wantPublished(t, s)
}

func TestEventsOfOneCallGoTogetherByTopic(t *testing.T) {
	s, p := startPublisher(t, events.TopicOrders, events.TopicInventory)
	var evs []events.Event
	for i := range maxBulk / 2 {
		evs = append(evs, news(t, fmt.Sprint("o-", i), orderCreated), news(t, fmt.Sprint("p-", i), priceUpdated))
	}
	if err := p.Publish(t.Context(), evs...); err != nil {
		t.Fatal(err)
	}
	wantPublished(t, s, evs...)
	if single, bulk := s.Calls("PublishEvent"), s.Calls("BulkPublishEvent"); single != 0 || bulk != 2 {
		t.Errorf("%d single and %d bulk publishes, want 0 and 2", single, bulk)
	}
}

func TestEventsThatWaitAreMerged(t *testing.T) {
	s, p := startPublisher(t, events.TopicInventory)
	const publishers, each = 50, 10
	var all []events.Event
	var wg sync.WaitGroup
	for i := range publishers {
		var mine []events.Event
		for j := range each {
			mine = append(mine, news(t, fmt.Sprintf("p-%d-%d", i, j), priceUpdated))
		}
		all = append(all, mine...)
		wg.Go(func() {
			for _, e := range mine {
				if err := p.Publish(t.Context(), e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantPublished(t, s, all...)
	calls := s.Calls("PublishEvent") + s.Calls("BulkPublishEvent")
	t.Logf("%d events took %d calls", len(all), calls)
	if calls > len(all)/4 {
		t.Errorf("%d events took %d calls: they were not merged", len(all), calls)
	}
}

func TestPublishesAreCutToWhatAMessageHolds(t *testing.T) {
	s, p := startPublisher(t, events.TopicOrders)
	var large, many []events.Event
	for i := range 5 {
		e := news(t, fmt.Sprint("large-", i), orderCreated)
		// An extension that nobody knows makes it 900 kB: five do not go into the
		// sidecar's 4 MiB.
		e.Data = []byte(strings.TrimSuffix(string(e.Data), "}") + `,"note":"` + strings.Repeat("x", 900_000) + `"}`)
		large = append(large, e)
	}
	if err := p.Publish(t.Context(), large...); err != nil {
		t.Fatal(err)
	}
	for i := range 2*maxBulk + 1 {
		many = append(many, news(t, fmt.Sprint("many-", i), orderCreated))
	}
	if err := p.Publish(t.Context(), many...); err != nil {
		t.Fatal(err)
	}
	wantPublished(t, s, append(large, many...)...)
	if single, bulk := s.Calls("PublishEvent"), s.Calls("BulkPublishEvent"); single != 1+1 || bulk != 2+2 {
		t.Errorf("%d single and %d bulk publishes, want 2 and 4", single, bulk)
	}
}

func TestSameEventTwiceInOnePublish(t *testing.T) {
	s, p := startPublisher(t, events.TopicInventory)
	e := news(t, "p-1", priceUpdated)
	if err := p.Publish(t.Context(), e, e); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Published()); n != 2 {
		t.Errorf("published %d times, want 2", n)
	}
}

func TestErrorOfABulkPublishIsEveryones(t *testing.T) {
	s, p := startPublisher(t, events.TopicInventory)
	reached, release := hold(t, s)
	answers := make(chan error, 10)
	publish := func(id string) {
		e := news(t, id, priceUpdated)
		go func() { answers <- p.Publish(t.Context(), e) }()
	}
	publish("p-1")
	wait(t, reached, "the first publish")
	s.Fail(func(call string) error {
		if call == "BulkPublishEvent" {
			return errors.New("the broker is away")
		}
		return nil
	})
	if err := p.Publish(t.Context(), events.Event{Type: events.TypePriceUpdated, ID: "bad", Subject: "p-1", Data: []byte("{")}); err == nil || !strings.Contains(err.Error(), "bad") {
		t.Errorf("an event that is not JSON: %v", err)
	}
	go func() { answers <- p.Publish(t.Context(), news(t, "p-2", priceUpdated), news(t, "p-3", priceUpdated)) }()
	release()
	failed := 0
	for range 2 {
		if err := wait(t, answers, "an answer"); err != nil {
			failed++
			if !strings.Contains(err.Error(), "the broker is away") || !strings.Contains(err.Error(), "p-2") {
				t.Errorf("%v, want the event and the reason", err)
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d publishes failed, want the one with two events", failed)
	}
	wantPublished(t, s, news(t, "p-1", priceUpdated))
}

func TestCallsGetSmallerWhileTheyFail(t *testing.T) {
	s, p := startPublisher(t, events.TopicInventory)
	var evs []events.Event
	for i := range 2 * maxBulk {
		evs = append(evs, news(t, fmt.Sprint("p-", i), priceUpdated))
	}
	publish := func(fail error) (calls int) {
		t.Helper()
		s.Fail(func(string) error { return fail })
		before := s.Calls("PublishEvent") + s.Calls("BulkPublishEvent")
		if err := p.Publish(t.Context(), evs...); (err == nil) != (fail == nil) {
			t.Fatal(err)
		}
		return s.Calls("PublishEvent") + s.Calls("BulkPublishEvent") - before
	}
	if calls := publish(nil); calls != 2 {
		t.Errorf("%d calls while all is well, want 2", calls)
	}
	// 32, 16, 8, 4, 2 and then one by one; from there on one more each time.
	if calls := publish(errors.New("not confirmed in time")); calls != 5+2 {
		t.Errorf("%d calls while they fail, want 7", calls)
	}
	if calls := publish(nil); calls != 11 { // 1 to 10, and the 9 that are left
		t.Errorf("%d calls after they failed, want 11", calls)
	}
	for range maxBulk {
		publish(nil)
	}
	if calls := publish(nil); calls != 2 {
		t.Errorf("%d calls when all has been well for long, want 2", calls)
	}
}

func TestEventOfAnotherServiceIsRefused(t *testing.T) {
	s, p := startPublisher(t, events.TopicInventory)
	ours := news(t, "p-1", priceUpdated)
	err := p.Publish(t.Context(), news(t, "o-1", orderCreated), ours)
	if err == nil || !strings.Contains(err.Error(), "ORDER_CREATED") {
		t.Errorf("%v, want an error that names the type", err)
	}
	wantPublished(t, s, ours)
}

func TestCancelledPublishReturns(t *testing.T) {
	s, p := startPublisher(t, events.TopicInventory)
	reached, release := hold(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	taken, waiting := make(chan error, 1), make(chan error, 1)
	first, second := news(t, "p-1", priceUpdated), news(t, "p-2", priceUpdated)
	go func() { taken <- p.Publish(ctx, first) }()
	wait(t, reached, "the first publish")
	go func() { waiting <- p.Publish(ctx, second) }()
	cancel()
	for _, answer := range []<-chan error{taken, waiting} {
		if err := wait(t, answer, "the cancelled publish"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	}
	release()
	p.Close()
	wantPublished(t, s, first) // what was taken is published all the same
}

func TestCloseWaitsForWhatWasTakenAndRefusesTheRest(t *testing.T) {
	s, p := startPublisher(t, events.TopicInventory)
	reached, release := hold(t, s)
	taken, waiting := make(chan error, 1), make(chan error, 1)
	first, second := news(t, "p-1", priceUpdated), news(t, "p-2", priceUpdated)
	go func() { taken <- p.Publish(t.Context(), first) }()
	wait(t, reached, "the first publish")
	go func() { waiting <- p.Publish(t.Context(), second) }()
	closed := make(chan bool, 1)
	go func() { p.Close(); closed <- true }()
	if err := wait(t, waiting, "the one that waits"); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	select {
	case <-closed:
		t.Error("Close returned before what was taken is published")
	default:
	}
	release()
	if err := wait(t, taken, "the one that was taken"); err != nil {
		t.Error(err)
	}
	wait(t, closed, "Close")
	wantPublished(t, s, first)
	if err := p.Publish(t.Context(), second); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}
