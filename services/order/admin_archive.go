package order

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"orderflow/internal/aggregate"
	"orderflow/internal/problem"
	"orderflow/services/order/internal/order"
)

// archiveKey is the state key of how far the index is archived.
const archiveKey = "archive"

// Bounds of one request to archive, and so of a file.
const (
	maxArchived     = 512
	maxArchiveBytes = 32 << 20
)

// archiveMark is the position in the index before which nothing is left to
// archive, so that the next run does not begin with the first order ever.
type archiveMark struct {
	Position int `json:"position"`
}

// archiveOrders moves orders that ended long ago, and whose end had its effects,
// into a file.
func (s *Service) archiveOrders(c *gin.Context) error {
	var r struct {
		OlderThan string `json:"olderThan"`
		Cursor    string `json:"cursor"`
	}
	if _, err := problem.ReadJSON(c, maxBody, &r); err != nil {
		return err
	}
	age, err := time.ParseDuration(r.OlderThan)
	if err != nil || age <= 0 {
		return problem.Invalid("olderThan must be a positive duration such as 720h.")
	}
	name, begin := "archive "+age.String(), -1
	if r.Cursor != "" {
		if begin, err = readCursor(r.Cursor, name); err != nil {
			return err
		}
	}
	if s.orders.archive.dir == "" {
		return problem.New(http.StatusConflict, "no-archive", "There is no archive",
			"Start the service with ARCHIVE_DIR, a directory that all its replicas share.")
	}
	a, err := s.archive(c.Request.Context(), s.orders.now().Add(-age), begin)
	if err != nil {
		return err
	}
	answer := gin.H{"archived": len(a.orders), "left": a.left}
	if a.file != "" {
		answer["file"] = a.file
	}
	if a.next > 0 {
		answer["nextCursor"] = newCursor(name, a.next)
	}
	s.log.InfoContext(c.Request.Context(), "orders archived", "orders", len(a.orders), "left", a.left, "file", a.file)
	c.JSON(http.StatusOK, answer)
	return nil
}

// archiving is one request's walk along the index.
type archiving struct {
	before time.Time // orders that ended before then
	orders []line
	size   int
	left   int    // old enough, but open or without effects on record
	mark   int    // nothing before it is left
	next   int    // where to go on, 0 at the end
	file   string // that was written
}

// archive archives from position begin of the index on (negative: from the mark),
// as much as one request may.
//
// A crash leaves the file without orders that point to it, or with some; they are
// in the store then, and archived again by the next request. An order that points
// to a file is in it: the file is on disk before.
func (s *Service) archive(ctx context.Context, before time.Time, begin int) (*archiving, error) {
	mark, err := s.archiveMark(ctx)
	if err != nil {
		return nil, err
	}
	if begin < 0 {
		begin = mark
	}
	a := &archiving{before: before, mark: begin}
	log, err := s.orders.index(ctx, allOrders)
	if err != nil {
		return nil, err
	}
	pages, position := pagesOf(allOrders), begin
	for position < log.Len(pages) && position < begin+maxExamined && len(a.orders) < maxArchived && a.size < maxArchiveBytes {
		end := min(log.Len(pages), position+pageSize)
		entries, err := aggregate.Newest(ctx, s.orders.store, log, pages, end, end-position)
		if err != nil {
			return nil, err
		}
		slices.Reverse(entries)
		done, err := s.collect(ctx, a, entries)
		if err != nil {
			return nil, err
		}
		if a.mark == position {
			a.mark += done
		}
		position = end
		if entries[len(entries)-1].At.After(before.Add(entrySlack)) {
			position = log.Len(pages) // all that follow are younger
		}
	}
	if position < log.Len(pages) {
		a.next = position
	}
	if err := s.putAway(ctx, a); err != nil {
		return nil, err
	}
	if begin > mark || a.mark <= mark {
		return a, nil
	}
	return a, s.orders.committer.Do(ctx, []string{archiveKey}, func(tx *aggregate.Tx) error {
		m, err := aggregate.Get[archiveMark](tx, archiveKey)
		if err != nil {
			return err
		}
		if m == nil || m.Position < a.mark {
			tx.Put(archiveKey, &archiveMark{a.mark})
		}
		return nil
	})
}

func (s *Service) archiveMark(ctx context.Context) (int, error) {
	docs, err := s.orders.store.Load(ctx, archiveKey)
	if err != nil || docs[archiveKey].ETag == "" {
		return 0, err
	}
	var m archiveMark
	if err := json.Unmarshal(docs[archiveKey].Value, &m); err != nil {
		return 0, fmt.Errorf("%s can't be read: %w", archiveKey, err)
	}
	return m.Position, nil
}

// collect adds the orders of these entries that are to be archived to a, and
// answers how many of the entries, from the first on, leave nothing to archive.
func (s *Service) collect(ctx context.Context, a *archiving, entries []entry) (done int, err error) {
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = orderKey(e.ID)
	}
	docs, err := s.orders.store.Load(ctx, keys...)
	if err != nil {
		return 0, err
	}
	ended := make(map[string]line, len(entries))
	open := make(map[string]bool, len(entries))
	for i, e := range entries {
		doc := docs[keys[i]]
		if doc.ETag == "" {
			open[e.ID] = s.orders.now().Sub(e.At) < voidAfter
			continue
		}
		l := line{OrderID: e.ID}
		if err := json.Unmarshal(doc.Value, &l.document); err != nil {
			return 0, fmt.Errorf("order %s can't be read: %w", e.ID, err)
		}
		if l.Archived != nil {
			continue
		}
		o, err := order.Fold(l.Events)
		if err != nil {
			return 0, err
		}
		switch {
		case !o.CreatedAt.Equal(e.At): // the entry stands for nothing
		case o.Status.Final() && o.UpdatedAt.Before(a.before):
			ended[e.ID] = l
			a.size += len(doc.Value)
		default:
			open[e.ID] = true
			if e.At.Before(a.before) {
				a.left++
			}
		}
	}
	return s.settled(ctx, a, entries, ended, open)
}

// settled adds those of the orders that have ended to a whose end has its effects
// on record: the sweep has no more business with them.
func (s *Service) settled(ctx context.Context, a *archiving, entries []entry, ended map[string]line, open map[string]bool) (done int, err error) {
	var ids []string
	for _, e := range entries {
		if _, ok := ended[e.ID]; ok && !slices.Contains(ids, e.ID) {
			ids = append(ids, e.ID)
		}
	}
	effects := map[string]order.Effects{}
	if len(ids) > 0 {
		if effects, err = s.sweeper.effects(ctx, ids); err != nil {
			return 0, problem.Unavailable("Inventory or notification can't be asked what became of the orders.")
		}
	}
	for _, id := range ids {
		if effects[id] != (order.Effects{Stock: true, Notified: true}) {
			open[id] = true
			a.left++
			continue
		}
		a.orders = append(a.orders, ended[id])
	}
	if done = slices.IndexFunc(entries, func(e entry) bool { return open[e.ID] }); done < 0 {
		done = len(entries)
	}
	return done, nil
}

// putAway writes the file and then has each order point to it.
func (s *Service) putAway(ctx context.Context, a *archiving) error {
	if len(a.orders) == 0 {
		return nil
	}
	places, err := s.orders.archive.write(a.orders)
	if err != nil {
		return err
	}
	a.file = places[0].File
	for begin := 0; begin < len(a.orders); begin += pageSize {
		end := min(len(a.orders), begin+pageSize)
		if err := s.orders.pointTo(ctx, a.orders[begin:end], places[begin:end]); err != nil {
			return err
		}
	}
	return nil
}
