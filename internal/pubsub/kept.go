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
)

// State keys of a service's dead letters:
//
//	deadletters         which letters console has not confirmed yet
//	deadletter-{n}      place n, the letter that waits there, or one that did
const keptKey = "deadletters"

func placeKey(n int) string { return "deadletter-" + strconv.Itoa(n) }

const (
	// maxKept bounds the letters that wait for console's word. Beyond that the
	// broker's word has to do, so that a flood of poison stops nobody.
	maxKept = 256
	// maxConfirmed bounds the letters that console is asked about at once.
	maxConfirmed = 100
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
	committer *aggregate.Committer
	log       *slog.Logger
	now       func() time.Time
}

// NewDeadLetters are those of the service; publisher must publish to
// events.TopicDeadLetters. Start has them published until console has them.
func NewDeadLetters(service string, publisher *Publisher, client dapr.Client, store *aggregate.Store, committer *aggregate.Committer, log *slog.Logger) *DeadLetters {
	return &DeadLetters{service: service, publisher: publisher, client: client, store: store, committer: committer, log: log, now: time.Now}
}

// kept is the document of the letters that wait for console's word.
type kept struct {
	Letters []waiting `json:"letters"`
}

// waiting is a letter that waits.
type waiting struct {
	Place    int       `json:"place"`
	LetterID string    `json:"letterId"`
	Redrives int       `json:"redrives"`
	Told     time.Time `json:"told"`            // when it was last published
	Times    int       `json:"times,omitempty"` // how often again
}

func (w waiting) is(o waiting) bool { return w.LetterID == o.LetterID && w.Redrives == o.Redrives }

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
	if err := d.keep(ctx, l, e); err != nil {
		return err
	}
	return d.publisher.Publish(ctx, e)
}

func (d *DeadLetters) keep(ctx context.Context, l events.DeadLetter, e events.Event) error {
	w := waiting{LetterID: l.LetterID, Redrives: l.Redrives, Told: d.now().UTC()}
	full := false
	err := d.committer.Do(ctx, []string{keptKey}, func(tx *aggregate.Tx) error {
		list, err := aggregate.Get[kept](tx, keptKey)
		if err != nil {
			return err
		}
		if list == nil {
			list = &kept{}
		}
		if slices.ContainsFunc(list.Letters, w.is) {
			return nil
		}
		if full = len(list.Letters) >= maxKept; full {
			return nil
		}
		w.Place = list.free()
		list.Letters = append(list.Letters, w)
		tx.PutBefore(placeKey(w.Place), &e)
		tx.Put(keptKey, list)
		return nil
	})
	if full && err == nil {
		d.log.WarnContext(ctx, "dead letter rests on the broker's word: too many wait for console", "letter_id", l.LetterID)
	}
	return err
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

// Start has letters published until console has them, until the function that it
// answers is called.
func (d *DeadLetters) Start() (stop func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(confirmEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := d.confirm(ctx); err != nil && ctx.Err() == nil {
					d.log.WarnContext(ctx, "dead letters wait for console", "error", err)
				}
			}
		}
	}()
	return func(stopping context.Context) error {
		cancel()
		select {
		case <-ended:
			return nil
		case <-stopping.Done():
			return stopping.Err()
		}
	}
}

// confirm asks console about the letters that are due, forgets those that it has
// and publishes the others once more. Several replicas may do it at once: a letter
// that comes twice is one letter.
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
	for chunk := range slices.Chunk(due, maxConfirmed) {
		if err := d.confirmSome(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

func (d *DeadLetters) confirmSome(ctx context.Context, due []waiting) error {
	returned, failure := d.known(ctx, due)
	var again []waiting
	for _, w := range due {
		if r, known := returned[w.LetterID]; !known || r < w.Redrives {
			again = append(again, w)
		}
	}
	if len(again) > 0 {
		if err := d.publishAgain(ctx, again); err != nil {
			return errors.Join(failure, err)
		}
	}
	at := d.now().UTC()
	err := d.committer.Do(ctx, []string{keptKey}, func(tx *aggregate.Tx) error {
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
			case slices.ContainsFunc(due, w.is):
				continue
			}
			left = append(left, w)
		}
		list.Letters = left
		tx.Put(keptKey, list)
		return nil
	})
	return errors.Join(failure, err)
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

func (d *DeadLetters) publishAgain(ctx context.Context, letters []waiting) error {
	keys := make([]string, len(letters))
	for i, w := range letters {
		keys[i] = placeKey(w.Place)
	}
	docs, err := d.store.Load(ctx, keys...)
	if err != nil {
		return err
	}
	var evs []events.Event
	for i, w := range letters {
		e, err := aggregate.Value[events.Event](docs[keys[i]])
		if err != nil {
			return err
		}
		if e != nil && e.Subject == w.LetterID { // else the place is another's by now
			evs = append(evs, *e)
		}
	}
	return d.publisher.Publish(ctx, evs...)
}
