package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/daprtest"
)

// letters are the dead letters that were published, in order.
func letters(t *testing.T, s *daprtest.Sidecar) (all []events.DeadLetter) {
	t.Helper()
	for _, e := range s.Published() {
		p, err := events.Decode(e)
		if err != nil {
			t.Fatal(err)
		}
		l, ok := p.(events.DeadLetter)
		if !ok || e.Source != l.Service || e.ID != fmt.Sprintf("%s:%d:DEAD_LETTER", l.LetterID, l.Redrives+1) {
			t.Fatalf("%s of %s: %+v", e.ID, e.Source, p)
		}
		all = append(all, l)
	}
	return all
}

func TestWhatADeadLetterSays(t *testing.T) {
	created := news(t, "o-1", orderCreated)
	version2 := created
	version2.DataSchema = events.SchemaBase + "ORDER_CREATED/v2"
	for name, tt := range map[string]struct {
		body  string
		err   error // of the handler
		cause string
		event events.EventName
	}{
		"contradiction": {encode(t, created), ErrPoison, events.CauseContradiction, events.EventName{ID: "o-1:1:ORDER_CREATED", Type: "ORDER_CREATED", Subject: "o-1"}},
		"version":       {encode(t, version2), nil, events.CauseVersion, events.EventName{ID: "o-1:1:ORDER_CREATED", Type: "ORDER_CREATED", Subject: "o-1"}},
		"bytes":         {"\xff\xfe{", nil, events.CauseUndecodable, events.EventName{}},
		"no bytes":      {"", nil, events.CauseUndecodable, events.EventName{}},
		"no CloudEvent": {`{"id":"7","type":["x"],"subject":"` + strings.Repeat("ö", 300) + `"}`, nil, events.CauseUndecodable, events.EventName{ID: "7", Subject: strings.Repeat("ö", 256)}},
	} {
		t.Run(name, func(t *testing.T) {
			h, _, sidecar := subscriber(t, func(context.Context, events.Event) error { return tt.err })
			begin := time.Now()
			if v := deliver(t, h, events.TopicOrders, tt.body); v != "SUCCESS" {
				t.Fatal(v)
			}
			l := letters(t, sidecar)[0]
			if l.Service != "tester" || l.Topic != events.TopicOrders || l.Cause != tt.cause || l.Event != tt.event || l.Reason == "" {
				t.Errorf("%+v", l)
			}
			if l.Attempts != 1 || l.Redrives != 0 || l.Truncated || string(l.Original) != tt.body {
				t.Errorf("%+v", l)
			}
			if l.FirstFailure.Before(begin.Truncate(time.Microsecond)) || l.LastFailure.After(time.Now()) || l.LastFailure.Before(l.FirstFailure) {
				t.Errorf("failed from %s to %s", l.FirstFailure, l.LastFailure)
			}
		})
	}
}

func TestLongOriginalsAreCut(t *testing.T) {
	h, _, sidecar := subscriber(t, nil)
	whole, long := strings.Repeat("x", events.MaxOriginal), strings.Repeat("x", 5<<20)
	for _, body := range []string{whole, long} {
		if v := deliver(t, h, events.TopicOrders, body); v != "SUCCESS" {
			t.Fatal(v)
		}
	}
	got := letters(t, sidecar)
	if got[0].Truncated || string(got[0].Original) != whole {
		t.Errorf("%d bytes, cut off: %t", len(got[0].Original), got[0].Truncated)
	}
	if !got[1].Truncated || string(got[1].Original) != long[:events.MaxOriginal] {
		t.Errorf("%d bytes, cut off: %t", len(got[1].Original), got[1].Truncated)
	}
}

func TestEventThatFailsOfItselfIsGivenUpAfterSomeAttempts(t *testing.T) {
	for name, fail := range map[string]func() error{
		"panic":        func() error { panic("ouch") },
		"suspect":      func() error { return fmt.Errorf("no: %w", ErrSuspect) },
		"broken state": func() error { return fmt.Errorf("no: %w", aggregate.ErrFault) },
	} {
		t.Run(name, func(t *testing.T) {
			h, _, sidecar := subscriber(t, func(context.Context, events.Event) error { return fail() })
			body := encode(t, news(t, "o-1", orderCreated))
			for round := range 2 { // given up, it counts anew
				for i := 1; i <= maxAttempts; i++ {
					want := "RETRY"
					if i == maxAttempts {
						want = "SUCCESS"
					}
					if v := deliver(t, h, events.TopicOrders, body); v != want {
						t.Errorf("attempt %d: %s, want %s", i, v, want)
					}
				}
				got := letters(t, sidecar)
				if len(got) != round+1 || got[round].Attempts != maxAttempts || got[round].Cause != events.CauseFailing || !got[round].LastFailure.After(got[round].FirstFailure) {
					t.Fatalf("%+v", got)
				}
			}
		})
	}
}

// An outage of any length sends nothing to the dead letters, and does not count
// among the attempts either.
func TestTransientTroubleIsNeverGivenUp(t *testing.T) {
	errs := []error{errors.New("the broker is away"), aggregate.ErrNotCommitted, aggregate.ErrNotLoaded, context.DeadlineExceeded, status.Error(codes.Unavailable, "connection refused")}
	var err error
	h, _, sidecar := subscriber(t, func(context.Context, events.Event) error { return err })
	body := encode(t, news(t, "o-1", orderCreated))
	expect := func(want string) {
		t.Helper()
		if v := deliver(t, h, events.TopicOrders, body); v != want {
			t.Errorf("%v: %s, want %s", err, v, want)
		}
	}
	for range maxAttempts - 1 {
		err = ErrSuspect
		expect("RETRY")
		for _, err = range errs {
			expect("RETRY")
		}
	}
	err = nil
	expect("SUCCESS")
	err = ErrSuspect // handled in between: the count begins anew
	expect("RETRY")
	if len(sidecar.Published()) != 0 {
		t.Errorf("%+v", letters(t, sidecar))
	}
}

// The event is given up when its letter is in the store, or, where too many wait
// there, when the broker has it.
func TestEventIsKeptUntilItsLetterIs(t *testing.T) {
	h, log, sidecar := subscriber(t, nil)
	away := func(calls ...string) {
		sidecar.Fail(func(call string) error {
			if slices.Contains(calls, call) {
				return status.Error(codes.Unavailable, call+" is away")
			}
			return nil
		})
	}
	expect := func(want string, published int) {
		t.Helper()
		if v := deliver(t, h, events.TopicOrders, "{"); v != want || len(letters(t, sidecar)) != published {
			t.Errorf("%s with %d letters, want %s with %d", v, len(letters(t, sidecar)), want, published)
		}
	}
	away("GetState")
	expect("RETRY", 0)
	if !strings.Contains(log.String(), "GetState is away") {
		t.Errorf("the log does not say why: %s", log)
	}
	away("PublishEvent")
	for range 2 * maxAttempts {
		expect("SUCCESS", 0)
	}
	if !strings.Contains(log.String(), "PublishEvent is away") || !strings.Contains(string(sidecar.State(placeKey(0))), "DEAD_LETTER") {
		t.Errorf("the letter is not kept, or the log does not say why: %s", log)
	}
	away()
	expect("SUCCESS", 1)

	full := kept{Letters: make([]waiting, maxKept)}
	for i := range full.Letters {
		full.Letters[i] = waiting{Place: i, EventID: fmt.Sprint(i)}
	}
	document, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	sidecar.SetState(keptKey, string(document))
	away("PublishEvent")
	expect("RETRY", 1)
	away()
	expect("SUCCESS", 2)
}

// The letter is the event's and the service's, whatever became of the event since.
func TestLetterIDs(t *testing.T) {
	h, _, sidecar := subscriber(t, func(context.Context, events.Event) error { return ErrPoison })
	give := func(e events.Event) events.DeadLetter {
		t.Helper()
		before := len(sidecar.Published())
		if v := deliver(t, h, events.TopicOrders, encode(t, e)); v != "SUCCESS" {
			t.Fatal(v)
		}
		return letters(t, sidecar)[before]
	}
	e := news(t, "o-1", orderCreated)
	first := give(e)
	if again := give(e); again.LetterID != first.LetterID {
		t.Errorf("%s, the second time %s", first.LetterID, again.LetterID)
	}
	redriven := e
	redriven.ID, redriven.Redrive = e.ID+":redrive:2", events.Redrive{RedriveOf: e.ID, Redrives: 2}
	if again := give(redriven); again.LetterID != first.LetterID || again.Redrives != 2 {
		t.Errorf("sent again by another's letter: %s with %d redrives, want %s with 2", again.LetterID, again.Redrives, first.LetterID)
	}
	redriven.RedriveOf, redriven.LetterID = "something else", first.LetterID
	if again := give(redriven); again.LetterID != first.LetterID {
		t.Errorf("sent again by this letter: %s, want %s", again.LetterID, first.LetterID)
	}
	redriven.LetterID = "tester-../x"
	if other := give(redriven); other.LetterID == first.LetterID || events.CheckID(other.LetterID) != nil {
		t.Errorf("of an id that can't be: %s", other.LetterID)
	}
	if other := give(news(t, "o-2", orderCreated)); other.LetterID == first.LetterID {
		t.Error("another event has the same letter")
	}
	if id := LetterID("other", events.TopicOrders, nil, e); strings.TrimPrefix(id, "other-") != strings.TrimPrefix(first.LetterID, "tester-") || id == first.LetterID {
		t.Errorf("%s at another service, %s here", id, first.LetterID)
	}
	if LetterID("tester", events.TopicOrders, []byte("a"), events.Event{}) == LetterID("tester", events.TopicOrders, []byte("b"), events.Event{}) {
		t.Error("other bytes have the same letter")
	}
}

// A decoder quotes what it could not read, and a poison event may hold anything
// anywhere.
func TestReasonsAndLogsHoldNoAddress(t *testing.T) {
	const customer = "ada@example.com"
	h, log, sidecar := subscriber(t, func(_ context.Context, e events.Event) error { return fmt.Errorf("%w: to %s", ErrPoison, customer) })
	e := news(t, "o-1", orderCreated)
	whole := encode(t, e)
	e.DataSchema = customer
	for _, body := range []string{
		whole,
		encode(t, e),
		strings.Replace(whole, `"specversion":"1.0"`, `"specversion":"`+customer+`"`, 1),
		strings.Replace(whole, `"subject":"o-1"`, `"subject":"`+customer+`"`, 1),
		strings.Replace(whole, `"subject":"o-1"`, `"time":"`+customer+`","subject":"o-1"`, 1),
		strings.Replace(whole, `"source":"`, `"id":"`+customer+`","source":"`, 1),
	} {
		if v := deliver(t, h, events.TopicOrders, body); v != "SUCCESS" {
			t.Fatalf("%s: %s", body, v)
		}
	}
	for _, l := range letters(t, sidecar) {
		if strings.Contains(l.Reason, customer) {
			t.Errorf("the customer is in a reason: %s", l.Reason)
		}
	}
	if strings.Contains(log.String(), customer) {
		t.Errorf("the customer is in the log: %s", log)
	}
}

func TestSuspectsAreBounded(t *testing.T) {
	var s suspects
	now := time.Now()
	for i := range 3 * maxSuspects {
		s.failed(fmt.Sprint(i), now)
	}
	if s.recent.Len() != maxSuspects || len(s.byKey) != maxSuspects {
		t.Errorf("%d and %d are kept", s.recent.Len(), len(s.byKey))
	}
	if f := s.failed(fmt.Sprint(3*maxSuspects-1), now.Add(time.Second)); f.attempts != 2 || !f.first.Equal(now) {
		t.Errorf("%+v", f)
	}
	if f := s.failed("0", now); f.attempts != 1 {
		t.Errorf("the oldest is still known: %+v", f)
	}
}
