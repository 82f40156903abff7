package order

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/problem"
)

const (
	maxReplayIDs    = 1000 // orders that a replay can name
	maxReplayOrders = 512  // orders that one replay request looks at
	// replayRate is how many events a process replays in a second, in all requests
	// together: a part of what a sidecar carries beside its work.
	replayRate = 500
	// entrySlack is how far the sequence of the index may differ from that of its
	// times: an order is timed before it waits for its commit (10 s at most), by
	// the clock of its replica.
	entrySlack = time.Minute
)

// errBroker: the broker did not take what is replayed.
var errBroker = errors.New("the broker does not take events")

// replay is a request to publish orders' events again, as they are.
type replay struct {
	From     *time.Time `json:"from,omitempty"` // orders placed from then on
	To       *time.Time `json:"to,omitempty"`   // and before then
	OrderIDs []string   `json:"orderIds,omitempty"`
	Topic    string     `json:"topic,omitempty"`
	Cursor   string     `json:"cursor,omitempty"`
}

func (r replay) validate() error {
	switch {
	case (r.From == nil) == (len(r.OrderIDs) == 0):
		return problem.Invalid("Give either from, and to if you like, or orderIds.")
	case r.To != nil && (r.From == nil || !r.From.Before(*r.To)):
		return problem.Invalid("to goes with an earlier from.")
	case len(r.OrderIDs) > maxReplayIDs:
		return problem.Invalid("orderIds names %d orders; name at most %d at a time.", len(r.OrderIDs), maxReplayIDs)
	case r.Topic != events.TopicOrders && r.Topic != events.TopicReplay:
		return problem.Invalid("topic must be %s or %s.", events.TopicOrders, events.TopicReplay)
	}
	for i, id := range r.OrderIDs {
		if err := events.CheckID(id); err != nil {
			return fmt.Errorf("orderIds[%d]: %w", i, err)
		}
	}
	return nil
}

// name is what a cursor of this request goes with.
func (r replay) name() string {
	r.Cursor = ""
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // times that were read from JSON, and strings: can't be
	}
	sum := sha256.Sum256(b)
	return "replay " + hex.EncodeToString(sum[:8])
}

// replayed is what a request has published.
type replayed struct {
	Topic      string   `json:"topic"`
	OrderIDs   []string `json:"orderIds"`          // those whose events were published
	Missing    []string `json:"missing,omitempty"` // those whose archive file is not here, and those that were named and do not exist
	Events     int      `json:"events"`
	NextCursor string   `json:"nextCursor,omitempty"`
}

// replayOrders publishes events again. Whoever knows them already does nothing,
// so it does no harm to do it twice.
func (s *Service) replayOrders(c *gin.Context) error {
	var r replay
	if _, err := problem.ReadJSON(c, maxBody, &r); err != nil {
		return err
	}
	if r.Topic == "" {
		r.Topic = events.TopicOrders
	}
	if err := r.validate(); err != nil {
		return err
	}
	begin := -1
	if r.Cursor != "" {
		var err error
		if begin, err = readCursor(r.Cursor, r.name()); err != nil {
			return err
		}
	}
	done, next, err := s.replay(c.Request.Context(), r, begin)
	if err != nil {
		return err
	}
	if next > 0 {
		done.NextCursor = newCursor(r.name(), next)
	}
	s.log.InfoContext(c.Request.Context(), "events replayed", "topic", r.Topic, "orders", len(done.OrderIDs), "events", done.Events)
	c.JSON(http.StatusOK, done)
	return nil
}

// replay publishes what r asks for from position begin on (negative: from its
// beginning), as much as one request may, and answers the position to go on from,
// 0 at the end.
func (s *Service) replay(ctx context.Context, r replay, begin int) (done replayed, next int, err error) {
	done = replayed{Topic: r.Topic, OrderIDs: []string{}}
	pick := s.picked
	if r.From != nil {
		if pick, begin, err = s.placedWithin(ctx, r, begin); err != nil {
			return done, 0, err
		}
	}
	begin = max(0, begin)
	for position := begin; position < begin+maxReplayOrders; {
		select {
		case <-s.draining:
			if position > begin {
				return done, position, nil
			}
			return done, 0, problem.Unavailable("The service is ending.")
		default:
		}
		chosen, after, err := pick(ctx, r, position)
		if err != nil {
			return done, 0, err
		}
		if err := s.publishAgain(ctx, chosen, &done); err != nil {
			return done, 0, err
		}
		if position = after; position == 0 {
			return done, 0, nil
		}
		next = position
	}
	return done, next, nil
}

// chosen are orders to replay; those without a time were named.
type chosen []entry

// picker answers some orders from position on, and the position after them, 0 if
// there are no more.
type picker func(ctx context.Context, r replay, position int) (chosen, int, error)

// picked picks from those that are named.
func (s *Service) picked(_ context.Context, r replay, position int) (chosen, int, error) {
	if position >= len(r.OrderIDs) {
		return nil, 0, nil
	}
	var some chosen
	end := min(len(r.OrderIDs), position+pageSize)
	for _, id := range r.OrderIDs[position:end] {
		some = append(some, entry{ID: id})
	}
	if end == len(r.OrderIDs) {
		end = 0
	}
	return some, end, nil
}

// placedWithin answers a picker from the index, as it is now, and where the first
// order can be that was placed since r.From: found by halving, for the index is
// nearly in the sequence of its times.
func (s *Service) placedWithin(ctx context.Context, r replay, begin int) (picker, int, error) {
	log, err := s.orders.index(ctx, allOrders)
	if err != nil {
		return nil, 0, err
	}
	pages := pagesOf(allOrders)
	if begin < 0 {
		n := sort.Search(log.Pages, func(n int) bool {
			first, e := aggregate.Newest(ctx, s.orders.store, log, pages, n*pages.Size+1, 1)
			if e != nil {
				err = e
				return true
			}
			return !first[0].At.Before(r.From.Add(-entrySlack))
		})
		if err != nil {
			return nil, 0, err
		}
		begin = max(0, n-1) * pages.Size
	}
	return func(ctx context.Context, r replay, position int) (chosen, int, error) {
		end := min(log.Len(pages), position+pageSize)
		entries, err := aggregate.Newest(ctx, s.orders.store, log, pages, end, end-position)
		if err != nil {
			return nil, 0, err
		}
		if end >= log.Len(pages) {
			end = 0
		}
		var some chosen
		for _, e := range slices.Backward(entries) {
			if r.To != nil && e.At.After(r.To.Add(entrySlack)) {
				return some, 0, nil
			}
			if !e.At.Before(*r.From) && (r.To == nil || e.At.Before(*r.To)) {
				some = append(some, e)
			}
		}
		return some, end, nil
	}, begin, nil
}

// publishAgain publishes the events of the orders and adds them to done.
func (s *Service) publishAgain(ctx context.Context, some chosen, done *replayed) error {
	ids := make([]string, len(some))
	for i, e := range some {
		ids[i] = e.ID
	}
	histories, away, err := s.orders.Histories(ctx, ids)
	if err != nil {
		return err
	}
	var all []events.Event
	for _, e := range some {
		history, ok := histories[e.ID]
		if _, gone := away[e.ID]; gone || !ok && e.At.IsZero() {
			done.Missing = append(done.Missing, e.ID)
		}
		if !ok || !e.At.IsZero() && !history[0].Time.Equal(e.At) {
			continue // the entry stands for nothing
		}
		done.OrderIDs = append(done.OrderIDs, e.ID)
		all = append(all, history...)
	}
	for piece := range slices.Chunk(all, pageSize) {
		if err := s.pace.wait(ctx, len(piece)); err != nil {
			return err
		}
		if err := s.outbox.publisher.PublishTo(ctx, done.Topic, piece...); err != nil {
			return fmt.Errorf("%w: %w", errBroker, err)
		}
		done.Events += len(piece)
	}
	return nil
}

// pace spaces out what is done by many, so that together they do not more than a
// rate.
type pace struct {
	perSecond int

	mu   sync.Mutex
	free time.Time // when the next may begin
}

// wait returns when n more may begin, or with the error of ctx.
func (p *pace) wait(ctx context.Context, n int) error {
	p.mu.Lock()
	now := time.Now()
	begin := p.free
	if begin.Before(now) {
		begin = now
	}
	p.free = begin.Add(time.Duration(n) * time.Second / time.Duration(p.perSecond))
	p.mu.Unlock()
	timer := time.NewTimer(begin.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
