package pubsub

import (
	"container/list"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"orderflow/events"
	"orderflow/internal/aggregate"
)

const (
	// maxAttempts is how often an event whose handler fails for a reason of its
	// own is tried before it is given up.
	maxAttempts = 5
	// maxSuspects bounds the events whose attempts are counted at the same time.
	// They are the few that fail of themselves; retries come to the same process.
	maxSuspects = 1024
)

// causeOf is why no retry of err will help, or "" where one may: err is then of
// the moment, or may be.
func causeOf(err error) string {
	switch {
	case errors.Is(err, events.ErrUnknownVersion):
		return events.CauseVersion
	case errors.Is(err, ErrPoison):
		return events.CauseContradiction
	case errors.Is(err, events.ErrInvalid):
		return events.CauseUndecodable
	}
	return ""
}

// suspect says whether err looks like the event's own or the service's fault,
// which the next attempt will run into again, but may be neither.
func suspect(err error) bool {
	return errors.Is(err, ErrSuspect) || errors.Is(err, aggregate.ErrFault)
}

// failures are the attempts that an event has had.
type failures struct {
	key      string
	attempts int
	first    time.Time
}

// suspects counts the attempts at events that fail of themselves, those that
// failed last if they are too many.
type suspects struct {
	mu     sync.Mutex
	byKey  map[string]*list.Element
	recent list.List // of *failures, the latest in front
}

// failed counts one more attempt.
func (s *suspects) failed(key string, at time.Time) failures {
	s.mu.Lock()
	defer s.mu.Unlock()
	el, ok := s.byKey[key]
	if !ok {
		if s.byKey == nil {
			s.byKey = map[string]*list.Element{}
		}
		el = s.recent.PushFront(&failures{key: key, first: at})
		s.byKey[key] = el
		if s.recent.Len() > maxSuspects {
			oldest := s.recent.Back()
			delete(s.byKey, oldest.Value.(*failures).key)
			s.recent.Remove(oldest)
		}
	}
	f := el.Value.(*failures)
	f.attempts++
	s.recent.MoveToFront(el)
	return *f
}

// forget ends the count: the event is handled, or given up.
func (s *suspects) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el, ok := s.byKey[key]; ok {
		delete(s.byKey, key)
		s.recent.Remove(el)
	}
}

// letter is the dead letter about body, of which e is what could be read.
func letter(service, topic string, body []byte, e events.Event, cause string, reason string, f failures, now time.Time) events.DeadLetter {
	d := events.DeadLetter{
		LetterID: LetterID(service, topic, body, e),
		Service:  service,
		Topic:    topic,
		Cause:    cause,
		Reason:   reason,
		Event: events.EventName{
			ID:      cut(e.ID, events.MaxEventName),
			Type:    cut(e.Type, events.MaxEventName),
			Subject: cut(e.Subject, events.MaxEventName),
		},
		Redrives:     max(0, e.Redrives),
		Attempts:     f.attempts,
		FirstFailure: f.first.UTC(),
		LastFailure:  now.UTC(),
		Original:     body,
	}
	if len(body) > events.MaxOriginal {
		d.Original, d.Truncated = body[:events.MaxOriginal], true
	}
	return d
}

// LetterID is the same for the same event at the same service, also where the
// event was sent again. Bytes that have no id are told apart by what they are.
func LetterID(service, topic string, body []byte, e events.Event) string {
	if strings.HasPrefix(e.LetterID, service+"-") && events.CheckID(e.LetterID) == nil {
		return e.LetterID
	}
	what := []byte(e.Origin())
	if len(what) == 0 {
		what = body
	}
	sum := sha256.Sum256(append([]byte(topic+"\x00"), what...))
	return service + "-" + hex.EncodeToString(sum[:16])
}

// glimpse is what can be read of bytes that are no event of the contract.
func glimpse(body []byte) events.Event {
	var attributes map[string]json.RawMessage
	if json.Unmarshal(body, &attributes) != nil {
		return events.Event{}
	}
	text := func(name string) (s string) {
		_ = json.Unmarshal(attributes[name], &s) // whatever is no string is left empty
		return s
	}
	return events.Event{ID: text("id"), Type: text("type"), Subject: text("subject"), Redrive: events.Redrive{RedriveOf: text("redriveof"), LetterID: text("letterid")}}
}

// address is what looks like an e-mail address, with whatever clings to it.
var address = regexp.MustCompile(`[^\s"'<>(),;]*@[^\s"'<>(),;]*`)

// Reason is err for people and for logs: decoders quote what they could not
// read, which in a poison event may be anything, so addresses are taken out.
func Reason(err error) string {
	s := strings.ToValidUTF8(err.Error(), "\uFFFD")
	return cut(address.ReplaceAllString(s, "…@…"), events.MaxReason)
}

// shown is an attribute of an event as logs may show it.
func shown(s string) string { return cut(address.ReplaceAllString(s, "…@…"), events.MaxEventName) }

// cut is s, or its first n characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n])
}
