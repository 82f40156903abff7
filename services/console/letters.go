package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"orderflow/events"
	"orderflow/internal/aggregate"
)

var (
	errNotFound  = errors.New("not found")
	errDiscarded = errors.New("the letter is discarded")
)

// Statuses of a letter. OPEN waits for somebody; REDRIVEN was sent again, and is
// OPEN once more if it comes back.
const (
	statusOpen      = "OPEN"
	statusRedriven  = "REDRIVEN"
	statusDiscarded = "DISCARDED"
)

var allStatuses = []string{statusOpen, statusRedriven, statusDiscarded}

// Entries of a letter's audit trail.
const (
	auditArrived   = "ARRIVED"
	auditReturned  = "RETURNED"
	auditRedriven  = "REDRIVEN"
	auditDiscarded = "DISCARDED"
)

// maxAudit bounds the audit trail of one letter; the oldest entries are left out,
// but for the first.
const maxAudit = 50

// letter is what is kept of a dead letter; the event's bytes lie beside it.
type letter struct {
	LetterID     string           `json:"letterId"`
	Status       string           `json:"status"`
	Service      string           `json:"service"` // that gave up
	Topic        string           `json:"topic,omitempty"`
	Cause        string           `json:"cause"`
	Reason       string           `json:"reason"`
	Event        events.EventName `json:"event"`
	Attempts     int              `json:"attempts"` // of all times together
	Redrives     int              `json:"redrives"` // how often it was sent again
	Returned     int              `json:"returned"` // the redrive that came back last; 0 is the event as it was first sent
	FirstFailure time.Time        `json:"firstFailure"`
	LastFailure  time.Time        `json:"lastFailure"`
	ReceivedAt   time.Time        `json:"receivedAt"`
	Truncated    bool             `json:"truncated"` // what is kept of the event is only its beginning
	Audit        []audit          `json:"audit"`
	AuditLeftOut int              `json:"auditLeftOut"`
}

// audit says who did what to a letter.
type audit struct {
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	What   string    `json:"what"`
	Note   string    `json:"note,omitempty"`
	Number int       `json:"number,omitempty"` // of the redrive
	Mended bool      `json:"mended,omitempty"`
}

// note adds to the audit trail, unless the entry is there already, which is where
// a commit was made twice.
func (l *letter) note(a audit) {
	if slices.Contains(l.Audit, a) {
		return
	}
	l.Audit = append(l.Audit, a)
	if len(l.Audit) > maxAudit {
		l.Audit = slices.Delete(l.Audit, 1, 2)
		l.AuditLeftOut++
	}
}

// original is an event as it came.
type original struct {
	Bytes []byte `json:"bytes"`
}

type (
	indexed struct {
		ID string `json:"id"`
	}
	index = aggregate.Log[indexed]
)

const indexKey = "letters"

var pages = aggregate.Pages{Prefix: "letters-", Size: 100}

func letterKey(id string) string { return "letter-" + id }

// originalKey is another one for each time that the event came, so that none is
// overwritten.
func originalKey(id string, redrives int) string {
	return "original-" + strconv.Itoa(redrives) + "-" + id
}

// letters are the dead letters, each a key of its own, and a list of all.
type letters struct {
	store     *aggregate.Store
	committer *aggregate.Committer
}

// arrived keeps a letter. One that is there already is opened again if it is
// about a later redrive; else it has come twice.
func (s *letters) arrived(ctx context.Context, d events.DeadLetter, at time.Time) error {
	return s.committer.Do(ctx, []string{indexKey, letterKey(d.LetterID), statsKey}, func(tx *aggregate.Tx) error {
		l, err := aggregate.Get[letter](tx, letterKey(d.LetterID))
		if err != nil {
			return err
		}
		counts, err := readStats(tx)
		if err != nil {
			return err
		}
		var before, what string
		switch {
		case l == nil:
			list, err := aggregate.Get[index](tx, indexKey)
			if err != nil {
				return err
			}
			if list == nil {
				list = &index{}
			}
			if !slices.Contains(list.Tail, indexed{d.LetterID}) {
				list.Append(tx, pages, indexed{d.LetterID})
				tx.PutBefore(indexKey, list)
			}
			l = &letter{LetterID: d.LetterID, Service: d.Service, Topic: d.Topic, FirstFailure: d.FirstFailure, ReceivedAt: at}
			what = auditArrived
		case d.Redrives > l.Returned:
			before, what = l.Status, auditReturned
		default:
			return nil
		}
		l.Status, l.Cause, l.Reason, l.Event, l.Truncated = statusOpen, d.Cause, d.Reason, d.Event, d.Truncated
		l.Attempts += d.Attempts
		l.LastFailure, l.Returned, l.Redrives = d.LastFailure, d.Redrives, max(l.Redrives, d.Redrives)
		l.note(audit{At: at, Who: d.Service, What: what, Number: d.Redrives})
		counts.moved(before, l.Status)
		tx.PutBefore(originalKey(d.LetterID, d.Redrives), &original{d.Original})
		tx.Put(letterKey(d.LetterID), l)
		tx.PutAfter(statsKey, counts)
		return nil
	})
}

// change notes a in the letter and gives it a status; refuse may stand against it.
func (s *letters) change(ctx context.Context, id string, a audit, status func(letter) (string, error)) (letter, error) {
	var changed letter
	err := s.committer.Do(ctx, []string{letterKey(id), statsKey}, func(tx *aggregate.Tx) error {
		l, err := aggregate.Get[letter](tx, letterKey(id))
		if err != nil {
			return err
		}
		if l == nil {
			return errNotFound
		}
		counts, err := readStats(tx)
		if err != nil {
			return err
		}
		if slices.Contains(l.Audit, a) { // written by an earlier try of the same commit
			changed = *l
			return nil
		}
		next, err := status(*l)
		if err != nil {
			return err
		}
		if next != l.Status {
			counts.moved(l.Status, next)
			tx.PutAfter(statsKey, counts)
		}
		l.Status, l.Redrives = next, max(l.Redrives, a.Number)
		l.note(a)
		tx.Put(letterKey(id), l)
		changed = *l
		changed.Audit = slices.Clone(l.Audit)
		return nil
	})
	return changed, err
}

// redriven says that the letter's event was sent again. If it has come back
// already, the letter stays open.
func (s *letters) redriven(ctx context.Context, id string, a audit) (letter, error) {
	return s.change(ctx, id, a, func(l letter) (string, error) {
		if l.Returned >= a.Number {
			return l.Status, nil
		}
		return statusRedriven, nil
	})
}

// discard closes the letter; the event stays where it is. Doing it again changes
// nothing.
func (s *letters) discard(ctx context.Context, id string, a audit) (letter, error) {
	l, err := s.change(ctx, id, a, func(l letter) (string, error) {
		if l.Status == statusDiscarded {
			return "", errDiscarded
		}
		return statusDiscarded, nil
	})
	if errors.Is(err, errDiscarded) {
		return s.find(ctx, id)
	}
	return l, err
}

// find is a letter. Its error is errNotFound, or the store's.
func (s *letters) find(ctx context.Context, id string) (letter, error) {
	docs, err := s.store.Load(ctx, letterKey(id))
	if err != nil {
		return letter{}, err
	}
	return read[letter](docs[letterKey(id)])
}

// named are those of the letters that are here.
func (s *letters) named(ctx context.Context, ids []string) ([]letter, error) {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = letterKey(id)
	}
	docs, err := s.store.Load(ctx, keys...)
	if err != nil {
		return nil, err
	}
	found := []letter{}
	for _, key := range keys {
		l, err := aggregate.Value[letter](docs[key])
		if err != nil {
			return nil, err
		}
		if l != nil {
			found = append(found, *l)
		}
	}
	return found, nil
}

// original is the letter's event as it came last.
func (s *letters) original(ctx context.Context, l letter) ([]byte, error) {
	key := originalKey(l.LetterID, l.Returned)
	docs, err := s.store.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	o, err := read[original](docs[key])
	return o.Bytes, err
}

// maxExamined bounds the letters that one listing reads.
const maxExamined = 1000

// list reads letters, those that arrived last first, from position end on
// (counted from the oldest; negative is the newest), those that fit, at most
// limit. The position answered is where to go on; 0 means there are no more.
func (s *letters) list(ctx context.Context, end, limit int, fits func(letter) bool) ([]letter, int, error) {
	docs, err := s.store.Load(ctx, indexKey)
	if err != nil {
		return nil, 0, err
	}
	log, err := read[index](docs[indexKey])
	if err != nil && !errors.Is(err, errNotFound) {
		return nil, 0, err
	}
	if end < 0 || end > log.Len(pages) {
		end = log.Len(pages)
	}
	found := []letter{}
	for examined := 0; end > 0 && len(found) < limit && examined < maxExamined; {
		entries, err := aggregate.Newest(ctx, s.store, log, pages, end, min(pages.Size, maxExamined-examined))
		if err != nil {
			return nil, 0, err
		}
		keys := make([]string, len(entries))
		for i, e := range entries {
			keys[i] = letterKey(e.ID)
		}
		docs, err := s.store.Load(ctx, keys...)
		if err != nil {
			return nil, 0, err
		}
		for _, key := range keys {
			if len(found) == limit {
				break
			}
			end--
			examined++
			l, err := read[letter](docs[key])
			if errors.Is(err, errNotFound) {
				continue // its arrival did not get so far; it comes again
			}
			if err != nil {
				return nil, 0, err
			}
			if fits(l) {
				found = append(found, l)
			}
		}
	}
	return found, end, nil
}

func read[T any](doc aggregate.Document) (T, error) {
	v, err := aggregate.Value[T](doc)
	if err == nil && v == nil {
		err = errNotFound
	}
	if err != nil {
		var none T
		return none, err
	}
	return *v, nil
}

// errNotRedrivable: the event can't be sent as it came, or as it was mended.
var errNotRedrivable = errors.New("the event can't be sent again")

// again is the event of the letter's next redrive: mended, or, where that is nil,
// as it came.
func again(l letter, raw, mended []byte) (events.Event, error) {
	if mended == nil && l.Truncated {
		return events.Event{}, fmt.Errorf("%w as it came: only its beginning is kept; send {\"event\": …}", errNotRedrivable)
	}
	e, err := events.Parse(raw)
	origin := e.Origin()
	if mended != nil {
		e, err = events.Parse(mended)
		if err == nil {
			_, err = events.Decode(e)
		}
		if err != nil {
			return events.Event{}, fmt.Errorf("%w: the mended event: %w", errNotRedrivable, err)
		}
	}
	if err != nil {
		return events.Event{}, fmt.Errorf("%w as it came: %w; send {\"event\": …}", errNotRedrivable, err)
	}
	topic := e.Topic()
	if topic != events.TopicOrders && topic != events.TopicInventory || l.Topic != "" && topic != l.Topic {
		return events.Event{}, fmt.Errorf("%w: an event of type %q is not of the topic %q, from which the letter came", errNotRedrivable, e.Type, l.Topic)
	}
	if origin == "" {
		origin = e.Origin() // bytes without an id are now an event that has one
	}
	n := max(l.Redrives, l.Returned) + 1
	e.ID = origin + ":redrive:" + strconv.Itoa(n)
	e.Redrive = events.Redrive{RedriveOf: origin, Redrives: n, LetterID: l.LetterID}
	return e, nil
}
