package pubsub

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/daprtest"
)

// deadLetters are those of the service "tester".
func deadLetters(t *testing.T, s *daprtest.Sidecar, p *Publisher, log *slog.Logger) *DeadLetters {
	t.Helper()
	d := NewDeadLetters("tester", p, p.client, aggregate.NewStore(p.client, "statestore"), log)
	t.Cleanup(d.Close)
	return d
}

// desk is dead letters on a clock of the test's, and the console that is asked
// about them.
type desk struct {
	*DeadLetters
	*daprtest.Sidecar
	tb    *testing.T
	clock time.Time
	has   map[string]int // what console has: how often each letter was redriven when it came
	asked []string
}

func newDesk(t *testing.T) *desk {
	sidecar, publisher := startPublisher(t, events.TopicDeadLetters)
	d := &desk{DeadLetters: deadLetters(t, sidecar, publisher, slog.New(slog.DiscardHandler)), Sidecar: sidecar, tb: t, clock: time.Now(), has: map[string]int{}}
	d.now = func() time.Time { return d.clock }
	sidecar.Invoke(func(app, method string) ([]byte, error) {
		path, query, _ := strings.Cut(method, "?")
		values, err := url.ParseQuery(query)
		if app != "console" || path != "deadletters" || err != nil {
			return nil, fmt.Errorf("%s was asked for %s", app, method)
		}
		type known struct {
			LetterID string `json:"letterId"`
			Returned int    `json:"returned"`
		}
		var answer struct {
			DeadLetters []known `json:"deadLetters"`
		}
		for _, id := range values["letterId"] {
			d.asked = append(d.asked, id)
			if returned, ok := d.has[id]; ok {
				answer.DeadLetters = append(answer.DeadLetters, known{id, returned})
			}
		}
		return json.Marshal(answer)
	})
	return d
}

func (d *desk) giveUp(what string, redrives int) {
	d.tb.Helper()
	l := letter("tester", events.TopicOrders, []byte(what), events.Event{Redrive: events.Redrive{Redrives: redrives}}, events.CauseUndecodable, "no", failures{attempts: 1, first: d.clock}, d.clock)
	if err := d.give(d.tb.Context(), l); err != nil {
		d.tb.Fatal(err)
	}
}

// later lets time pass and has the letters confirmed.
func (d *desk) later(after time.Duration) {
	d.tb.Helper()
	d.clock = d.clock.Add(after)
	if err := d.confirm(d.tb.Context()); err != nil {
		d.tb.Fatal(err)
	}
}

// waiting are the letters that console has not confirmed.
func (d *desk) waiting() int {
	d.tb.Helper()
	var list kept
	if err := json.Unmarshal(d.State(keptKey), &list); err != nil {
		d.tb.Fatal(err)
	}
	return len(list.Letters)
}

func TestLetterIsPublishedUntilConsoleHasIt(t *testing.T) {
	d := newDesk(t)
	d.giveUp("a", 0)
	d.giveUp("a", 0) // the event came again before it was acknowledged
	first := letters(t, d.Sidecar)
	if len(first) != 2 || d.waiting() != 1 {
		t.Fatalf("%d letters published, %d wait", len(first), d.waiting())
	}
	d.later(confirmAfter - time.Second)
	if len(d.asked) != 0 || len(d.Published()) != 2 {
		t.Errorf("console is asked for %v before it had the time, %d published", d.asked, len(d.Published()))
	}
	// The broker has lost it: it comes again, each time after twice the pause.
	for i, pause := range []time.Duration{time.Second, 2 * confirmAfter, 4 * confirmAfter} {
		d.later(pause - time.Millisecond)
		d.later(time.Millisecond)
		again := d.Published()
		if len(again) != 3+i || again[2+i].ID != again[0].ID || string(again[2+i].Data) != string(again[0].Data) {
			t.Fatalf("after %s: %d published, the last one %s", pause, len(again), again[len(again)-1].ID)
		}
	}
	d.has[first[0].LetterID] = 0
	d.later(time.Hour)
	if d.waiting() != 0 || len(d.Published()) != 5 {
		t.Errorf("%d wait for console, which has it; %d published", d.waiting(), len(d.Published()))
	}
	// Redriven and given up again, it is another letter under the same id.
	d.giveUp("a", 1)
	d.later(time.Minute)
	if d.waiting() != 1 || len(d.Published()) != 7 {
		t.Errorf("%d wait, %d published; console has only the letter before", d.waiting(), len(d.Published()))
	}
	d.has[first[0].LetterID] = 1
	d.later(time.Hour)
	if d.waiting() != 0 || len(d.Published()) != 7 {
		t.Errorf("%d wait, %d published", d.waiting(), len(d.Published()))
	}
}

func TestLettersThatWaitAreBounded(t *testing.T) {
	d := newDesk(t)
	const more = 10
	for i := range maxKept + more {
		d.giveUp(fmt.Sprint(i), 0)
	}
	keys := d.Keys()
	if d.waiting() != maxKept || len(d.Published()) != maxKept+more || keys != maxKept+1 {
		t.Fatalf("%d wait, %d published, %d keys", d.waiting(), len(d.Published()), keys)
	}
	for i, l := range letters(t, d.Sidecar) {
		if i%2 == 0 {
			d.has[l.LetterID] = 0
		}
	}
	d.later(time.Hour)
	if d.waiting() != maxKept/2 || len(d.Published()) != maxKept+more+maxKept/2 {
		t.Errorf("%d wait, %d published", d.waiting(), len(d.Published()))
	}
	// Places are used again.
	for i := range maxKept / 2 {
		d.giveUp(fmt.Sprintf("new %d", i), 0)
	}
	before := len(d.Published())
	d.later(time.Hour)
	again := map[string]bool{}
	for _, e := range d.Published()[before:] {
		again[e.ID] = true
	}
	if d.waiting() != maxKept || d.Keys() != keys || len(again) != maxKept {
		t.Errorf("%d wait, %d keys, %d published once more", d.waiting(), d.Keys(), len(again))
	}
}

// What console has is not kept here any longer: it may hold a customer's address.
func TestConfirmedLettersAreErased(t *testing.T) {
	d := newDesk(t)
	d.giveUp("the customer", 0)
	d.giveUp("another", 0)
	d.has[letters(t, d.Sidecar)[0].LetterID] = 0
	d.later(time.Minute)
	if first := string(d.State(placeKey(0))); first != "{}" || d.waiting() != 1 || !strings.Contains(string(d.State(placeKey(1))), "DEAD_LETTER") {
		t.Errorf("%d wait; of the confirmed one there is left: %s", d.waiting(), first)
	}
}

// A place belongs to a letter before it holds it; a letter that its place does not
// hold was never acknowledged, and comes again.
func TestLetterThatWasNotWrittenIsForgotten(t *testing.T) {
	d := newDesk(t)
	d.Fail(func(call string) error {
		if call == "save "+placeKey(0) {
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	})
	l := letter("tester", events.TopicOrders, []byte("a"), events.Event{}, events.CauseUndecodable, "no", failures{attempts: 1, first: d.clock}, d.clock)
	if err := d.give(t.Context(), l); !errors.Is(err, aggregate.ErrNotCommitted) || d.waiting() != 1 || len(d.Published()) != 0 {
		t.Fatalf("%v, %d wait, %d published", err, d.waiting(), len(d.Published()))
	}
	d.Fail(nil)
	d.giveUp("a", 0) // it comes again, in time
	d.later(time.Minute)
	if d.waiting() != 1 || len(d.Published()) != 2 {
		t.Errorf("%d wait, %d published", d.waiting(), len(d.Published()))
	}
	d.Fail(func(call string) error {
		if call == "save "+placeKey(1) {
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	})
	l.LetterID = "tester-other"
	if err := d.give(t.Context(), l); err == nil || d.waiting() != 2 {
		t.Fatalf("%v, %d wait", err, d.waiting())
	}
	d.Fail(nil)
	d.later(time.Minute)
	if d.waiting() != 1 {
		t.Errorf("%d wait, one of which is nowhere", d.waiting())
	}
}

// One that the broker never takes, being too large for it, say, holds none of the
// others back, and comes more and more rarely itself.
func TestLetterThatCannotBePublishedHoldsNobodyBack(t *testing.T) {
	d := newDesk(t)
	d.Fail(func(call string) error {
		if call == "PublishEvent" {
			return status.Error(codes.Internal, "too large")
		}
		return nil
	})
	d.giveUp("large", 0) // is kept, so its event need not come again
	d.Fail(nil)
	for i := range maxConfirmed {
		d.giveUp(fmt.Sprint(i), 0)
	}
	for _, l := range letters(t, d.Sidecar) {
		d.has[l.LetterID] = 0
	}
	d.Fail(func(call string) error {
		if call == "PublishEvent" {
			return status.Error(codes.Internal, "too large")
		}
		return nil
	})
	d.clock = d.clock.Add(time.Minute)
	if err := d.confirm(t.Context()); err == nil || d.waiting() != 1 {
		t.Errorf("%v, %d wait, want the large one", err, d.waiting())
	}
	d.clock = d.clock.Add(confirmAfter)
	if err := d.confirm(t.Context()); err != nil {
		t.Errorf("it is tried again at once: %v", err)
	}
}

// Two replicas give letters up at the same time: each has a place of its own.
func TestReplicasKeepTheirLettersApart(t *testing.T) {
	one := newDesk(t)
	two := deadLetters(t, one.Sidecar, one.publisher, slog.New(slog.DiscardHandler))
	var all sync.WaitGroup
	const each = 40
	for i := range each {
		for r, d := range []*DeadLetters{one.DeadLetters, two} {
			l := letter("tester", events.TopicOrders, fmt.Appendf(nil, "%d %d", r, i), events.Event{}, events.CauseUndecodable, "no", failures{attempts: 1, first: one.clock}, one.clock)
			all.Go(func() {
				if err := d.give(t.Context(), l); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	before := len(one.Published())
	one.later(time.Hour)
	again := map[string]bool{}
	for _, e := range one.Published()[before:] {
		again[e.ID] = true
	}
	if one.waiting() != 2*each || len(again) != 2*each {
		t.Errorf("%d wait, %d were published again, want %d", one.waiting(), len(again), 2*each)
	}
}

func TestTroubleKeepsLettersWaiting(t *testing.T) {
	d := newDesk(t)
	d.giveUp("a", 0)
	id := letters(t, d.Sidecar)[0].LetterID
	away := status.Error(codes.Unavailable, "away")
	d.clock = d.clock.Add(time.Hour)
	for _, call := range []string{"GetState", "PublishEvent"} {
		d.Fail(func(c string) error {
			if c == call {
				return away
			}
			return nil
		})
		if err := d.confirm(t.Context()); err == nil || d.waiting() != 1 {
			t.Errorf("%s away: %v, %d wait", call, err, d.waiting())
		}
	}
	// With console away all are published again; it may be the asking that fails.
	d.Fail(nil)
	published := len(d.Published())
	d.Sidecar.Invoke(func(string, string) ([]byte, error) { return nil, away })
	d.clock = d.clock.Add(time.Hour)
	if err := d.confirm(t.Context()); err == nil || len(d.Published()) != published+1 || d.waiting() != 1 {
		t.Errorf("console away: %v, %d published, %d wait", err, len(d.Published())-published, d.waiting())
	}
	// The state store is away: nothing is given up that is not kept.
	d.Fail(func(c string) error {
		if c == "GetState" {
			return away
		}
		return nil
	})
	l := letter("tester", events.TopicOrders, []byte("b"), events.Event{}, events.CauseUndecodable, "no", failures{attempts: 1, first: d.clock}, d.clock)
	if err := d.give(t.Context(), l); !errors.Is(err, aggregate.ErrNotCommitted) || len(d.Published()) != published+1 {
		t.Errorf("given up with the store away: %v; letter of %s", err, id)
	}
}
