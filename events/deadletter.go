package events

import (
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

const TypeDeadLetter = "DEAD_LETTER"

// Causes of a DeadLetter.
const (
	CauseUndecodable   = "UNDECODABLE"   // the bytes are no CloudEvent, or its data violates its schema
	CauseVersion       = "VERSION"       // the version of its schema is not understood
	CauseContradiction = "CONTRADICTION" // it says what can't be true of what is on record
	CauseFailing       = "FAILING"       // its handler failed for a reason of its own, time and again
)

// Causes lists every cause of a dead letter.
var Causes = []string{CauseUndecodable, CauseVersion, CauseContradiction, CauseFailing}

// Limits of a dead letter. They keep it, in base64, under the 1 MiB that the
// smallest broker takes.
const (
	MaxOriginal  = 654_000 // bytes; what is longer is cut off, and can't be sent again as it is
	MaxReason    = 2000    // characters
	MaxEventName = 256     // characters of each part of an EventName
)

// DeadLetter is an event that a service can't handle, with what a person needs
// to find out why, and to have it handled after all.
type DeadLetter struct {
	// LetterID is the same whenever this service gives up on this event, also
	// after it was mended and sent again.
	LetterID string `json:"letterId"`
	Service  string `json:"service"` // that gave up
	Topic    string `json:"topic"`   // on which the event came
	Cause    string `json:"cause"`
	Reason   string `json:"reason"` // what the service says of it, for people; without personal data
	// Event is what could be read of the event.
	Event EventName `json:"event"`
	// Redrives is how often it had been sent again.
	Redrives int `json:"redrives"`
	// Attempts counts those of this time: 1 where the first showed that no other
	// would help.
	Attempts     int       `json:"attempts"`
	FirstFailure time.Time `json:"firstFailure"`
	LastFailure  time.Time `json:"lastFailure"`
	// Original is the event as it came, in base64.
	Original  []byte `json:"original"`
	Truncated bool   `json:"truncated,omitempty"` // Original is only its beginning
}

// EventName tells which event is meant. A part that could not be read is empty.
type EventName struct {
	ID      string `json:"id,omitempty"`
	Type    string `json:"type,omitempty"`
	Subject string `json:"subject,omitempty"`
}

func (DeadLetter) EventType() string      { return TypeDeadLetter }
func (DeadLetter) SchemaVersion() int     { return 1 }
func (d DeadLetter) EventSubject() string { return d.LetterID }

// Validate says in what way the letter violates the schema, if it does.
func (d DeadLetter) Validate() error {
	for _, id := range []struct{ field, value string }{{"letterId", d.LetterID}, {"service", d.Service}, {"topic", d.Topic}} {
		if err := CheckID(id.value); err != nil {
			return fmt.Errorf("%s: %w", id.field, err)
		}
	}
	for _, part := range []string{d.Event.ID, d.Event.Type, d.Event.Subject} {
		if utf8.RuneCountInString(part) > MaxEventName {
			return fmt.Errorf("%w: event: a part is longer than %d characters", ErrInvalid, MaxEventName)
		}
	}
	switch {
	case !slices.Contains(Causes, d.Cause):
		return fmt.Errorf("%w: cause is none of %v", ErrInvalid, Causes)
	case utf8.RuneCountInString(d.Reason) > MaxReason:
		return fmt.Errorf("%w: reason is longer than %d characters", ErrInvalid, MaxReason)
	case d.Redrives < 0 || d.Attempts < 1:
		return fmt.Errorf("%w: redrives must be 0 or more, attempts 1 or more", ErrInvalid)
	case d.FirstFailure.IsZero() || d.LastFailure.IsZero():
		return fmt.Errorf("%w: firstFailure and lastFailure must be times", ErrInvalid)
	case len(d.Original) > MaxOriginal:
		return fmt.Errorf("%w: original is longer than %d bytes", ErrInvalid, MaxOriginal)
	}
	return nil
}
