package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"time"

	dapr "github.com/dapr/go-sdk/client"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/process"
)

// State keys of a service's dead letters:
//
//	deadletters         which letters console has not confirmed yet, and in which places they lie
//	deadletter-{n}      place n: a letter, or nothing once console has it
const keptKey = "deadletters"

func placeKey(n int) string { return "deadletter-" + strconv.Itoa(n) }

const (
	// maxKept bounds the letters that wait for console's word. Beyond that the
	// broker's word has to do, so that a flood of poison stops nobody.
	maxKept = 256
	// maxConfirmed bounds the letters that are asked about, and held in memory, at
	// once: one may have most of a megabyte. Console takes up to a hundred ids.
	maxConfirmed = 16
	// confirmAfter is how long console has to take a letter before it is published
	// once more; the pause doubles each time, maxDoubled times.
	confirmAfter = 10 * time.Second
	maxDoubled   = 6
	confirmEvery = 5 * time.Second
	// confirmTimeout is how long console has to answer.
	confirmTimeout = 2 * time.Second
)

// DeadLetters are the events that a service gives up. Each is in the service's own
// state before it is published, and is published again, under the same id, until
// console has it: a broker may take a letter and lose it, as RabbitMQ does as long
// as nobody has ever subscribed to dead-letters.
type DeadLetters struct {
	service   string
	publisher *Publisher
	client    dapr.Client
	store     *aggregate.Store
	committer *aggregate.Committer // of its own: poison, which may be large, is not to hold up what is sound
	log       *slog.Logger
	now       func() time.Time
}

// NewDeadLetters are those of the service, with publisher, which must publish to
// events.TopicDeadLetters, and store. Close ends them.
func NewDeadLetters(service string, publisher *Publisher, client dapr.Client, store *aggregate.Store, log *slog.Logger) *DeadLetters {
	return &DeadLetters{service: service, publisher: publisher, client: client, store: store, committer: aggregate.NewCommitter(store), log: log, now: time.Now}
}

// Start has letters published until console has them, until the function that it
// answers is called.
func (d *DeadLetters) Start() (stop func(context.Context) error) {
	return process.Every(confirmEvery, func(ctx context.Context) {
		if err := d.confirm(ctx); err != nil && ctx.Err() == nil {
			d.log.WarnContext(ctx, "dead letters wait for console", "error", err)
		}
	})
}

// Close waits until the letters that were given are kept, and takes no more.
func (d *DeadLetters) Close() { d.committer.Close() }

// kept is the document of the letters that wait for console's word.
type kept struct {
	Letters []waiting `json:"letters"`
}

// waiting is a letter that waits.
type waiting struct {
	Place    int       `json:"place"`
	EventID  string    `json:"eventId"` // of the letter's own event
	LetterID string    `json:"letterId"`
	Redrives int       `json:"redrives"`
	Told     time.Time `json:"told"`            // when it was last published
	Times    int       `json:"times,omitempty"` // how often again
}

// place is the document of a place.
type place struct {
	Event *events.Event `json:"event,omitempty"`
}

func (w waiting) is(o waiting) bool { return w.EventID == o.EventID }

func (w waiting) due(now time.Time) bool {
	return now.Sub(w.Told) >= confirmAfter<<min(w.Times, maxDoubled)
}

// give keeps the letter and publishes it, in the trace of ctx. After an error the
// event that it is about must come again.
func (d *DeadLetters) give(ctx context.Context, l events.DeadLetter) error {
	e, err := events.New(d.service, l.Redrives+1, l.LastFailure, l)
	if err != nil {
		return err
	}
	e = Traced(ctx, e)
	isKept, err := d.keep(ctx, l, e)
	if err != nil {
		return err
	}
	err = d.publisher.Publish(ctx, e)
	if err != nil && isKept {
		d.log.WarnContext(ctx, "dead letter left to be published later", "letter_id", l.LetterID, "error", err)
		return nil
	}
	return err
}

// keep writes the letter into a place, which the list gives to it first: so no
// two replicas write into one. It answers false if too many wait already.
func (d *DeadLetters) keep(ctx context.Context, l events.DeadLetter, e events.Event) (isKept bool, err error) {
	w := waiting{EventID: e.ID, LetterID: l.LetterID, Redrives: l.Redrives, Told: d.now().UTC()}
	err = d.committer.Do(ctx, []string{keptKey}, func(tx *aggregate.Tx) error {
		list, err := aggregate.Get[kept](tx, keptKey)
		if err != nil {
			return err
		}
		if list == nil {
			list = &kept{}
		}
		i := slices.IndexFunc(list.Letters, w.is)
		if isKept = i >= 0 || len(list.Letters) < maxKept; !isKept {
			return nil
		}
		if i < 0 {
			i, w.Place = len(list.Letters), list.free()
			list.Letters = append(list.Letters, w)
			tx.Put(keptKey, list)
		}
		tx.PutAfter(placeKey(list.Letters[i].Place), &place{&e}) // also if an earlier try did not get so far
		return nil
	})
	if err == nil && !isKept {
		d.log.WarnContext(ctx, "dead letter rests on the broker's word: too many wait for console", "letter_id", l.LetterID)
	}
	return isKept, err
}

// free is the first place that no letter waits at.
func (k *kept) free() int {
	taken := map[int]bool{}
	for _, w := range k.Letters {
		taken[w.Place] = true
	}
	n := 0
	for taken[n] {
		n++
	}
	return n
}

// confirm asks console about the letters that are due, forgets those that it has
// and publishes the others once more. Several replicas may do it at once: a letter
// that comes twice is one letter. One that can't be published keeps none of the
// others waiting.
func (d *DeadLetters) confirm(ctx context.Context) error {
	docs, err := d.store.Load(ctx, keptKey)
	if err != nil {
		return err
	}
	list, err := aggregate.Value[kept](docs[keptKey])
	if err != nil || list == nil {
		return err
	}
	now := d.now()
	due := slices.DeleteFunc(list.Letters, func(w waiting) bool { return !w.due(now) })
	var errs []error
	for chunk := range slices.Chunk(due, maxConfirmed) {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, d.confirmSome(ctx, chunk))
	}
	return errors.Join(errs...)
}

func (d *DeadLetters) confirmSome(ctx context.Context, due []waiting) error {
	returned, failure := d.known(ctx, due)
	errs := []error{failure}
	var again, done []waiting
	for _, w := range due {
		if r, known := returned[w.LetterID]; known && r >= w.Redrives {
			done = append(done, w)
			continue
		}
		there, err := d.publishAgain(ctx, w)
		if errs = append(errs, err); err == nil && !there {
			// Whoever gave it did not come so far, and so its event was not acknowledged: it
			// comes again.
			done = append(done, w)
			continue
		}
		again = append(again, w)
	}
	return errors.Join(append(errs, d.note(ctx, again, done))...)
}

// note writes which letters were published again, or could not be, and forgets those
// that are done.
func (d *DeadLetters) note(ctx context.Context, again, done []waiting) error {
	at := d.now().UTC()
	keys := []string{keptKey}
	for _, w := range done {
		keys = append(keys, placeKey(w.Place))
	}
	return d.committer.Do(ctx, keys, func(tx *aggregate.Tx) error {
		list, err := aggregate.Get[kept](tx, keptKey)
		if err != nil || list == nil {
			return err
		}
		left := []waiting{}
		for _, w := range list.Letters {
			switch {
			case slices.ContainsFunc(again, w.is):
				if !w.Told.Equal(at) { // else it was counted by an earlier try of the same commit
					w.Told, w.Times = at, w.Times+1
				}
			case slices.ContainsFunc(done, w.is):
				// What it holds of a customer is not kept for longer than it must be.
				tx.PutAfter(placeKey(w.Place), &place{})
				continue
			}
			left = append(left, w)
		}
		list.Letters = left
		tx.Put(keptKey, list)
		return nil
	})
}

// known asks console for the letters, and answers how many redrives each has come
// back from. Letters that it does not know are not in the answer.
func (d *DeadLetters) known(ctx context.Context, letters []waiting) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	query := url.Values{}
	for _, w := range letters {
		query.Add("letterId", w.LetterID)
	}
	body, err := d.client.InvokeMethod(ctx, "console", "deadletters?"+query.Encode(), "get")
	if err != nil {
		return nil, fmt.Errorf("ask console for dead letters: %w", err)
	}
	var answer struct {
		DeadLetters []struct {
			LetterID string `json:"letterId"`
			Returned int    `json:"returned"`
		} `json:"deadLetters"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("console answers something else than dead letters: %w", err)
	}
	returned := make(map[string]int, len(letters))
	for _, l := range answer.DeadLetters {
		returned[l.LetterID] = l.Returned
	}
	return returned, nil
}

// publishAgain publishes the letter once more, and says whether its place holds it.
func (d *DeadLetters) publishAgain(ctx context.Context, w waiting) (there bool, err error) {
	key := placeKey(w.Place)
	docs, err := d.store.Load(ctx, key)
	if err != nil {
		return false, err
	}
	p, err := aggregate.Value[place](docs[key])
	if err != nil {
		return false, err
	}
	if p == nil || p.Event == nil || p.Event.ID != w.EventID {
		return false, nil
	}
	return true, d.publisher.Publish(ctx, *p.Event)
}
