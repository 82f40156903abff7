package pubsub

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
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
	store := aggregate.NewStore(p.client, "statestore")
	committer := aggregate.NewCommitter(store)
	t.Cleanup(committer.Close)
	return NewDeadLetters("tester", p, p.client, store, committer, log)
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
