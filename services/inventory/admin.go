package inventory

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/problem"
	"orderflow/services/inventory/internal/stock"
)

// maxAuditPages bounds the pages of ledgers that one audit request reads, and
// maxAudited the products that it looks at. What is left is for the next request.
const (
	maxAuditPages = 128
	maxAudited    = 100
	maxReplayed   = 1000 // orders of one replay
	maxReplayBody = 1 << 20
)

// errBroker: the broker did not take what is replayed.
var errBroker = errors.New("the broker does not take events")

// replayAnswers publishes once more what was answered about orders, made again from
// the records: the same ids, times and data; the trace is that of the request.
// Whoever knows them already does nothing.
func (s *server) replayAnswers(c *gin.Context) error {
	var r struct {
		OrderIDs []string `json:"orderIds"`
		Topic    string   `json:"topic"`
	}
	if _, err := problem.ReadJSON(c, maxReplayBody, &r); err != nil {
		return err
	}
	if len(r.OrderIDs) < 1 || len(r.OrderIDs) > maxReplayed {
		return problem.Invalid("orderIds must name from 1 to %d orders.", maxReplayed)
	}
	for i, id := range r.OrderIDs {
		if err := events.CheckID(id); err != nil {
			return fmt.Errorf("orderIds[%d]: %w", i, err)
		}
	}
	if r.Topic == "" {
		r.Topic = events.TopicInventory
	}
	if r.Topic != events.TopicInventory && r.Topic != events.TopicReplay {
		return problem.Invalid("topic must be %s or %s.", events.TopicInventory, events.TopicReplay)
	}
	orders, published := []string{}, 0
	for ids := range slices.Chunk(r.OrderIDs, maxAsked) {
		records, err := s.inventory.Reservations(c.Request.Context(), ids)
		if err != nil {
			return err
		}
		var facts []stock.Fact
		for _, record := range records {
			orders = append(orders, record.OrderID)
			facts = append(facts, record.Answers()...)
		}
		if err := s.publishTo(c.Request.Context(), r.Topic, facts); err != nil {
			return fmt.Errorf("%w: %w", errBroker, err)
		}
		published += len(facts)
	}
	s.log.InfoContext(c.Request.Context(), "events replayed", "topic", r.Topic, "orders", len(orders), "events", published)
	c.JSON(http.StatusOK, gin.H{"topic": r.Topic, "orderIds": orders, "events": published})
	return nil
}

// finding is what the audit of one product came to.
type finding struct {
	ProductID string       `json:"productId"`
	OK        bool         `json:"ok"`
	Stored    stock.Counts `json:"stored"` // what the product counts
	Ledger    stock.Counts `json:"ledger"` // what its movements add up to
	Wrong     []string     `json:"wrong,omitempty"`
}

// auditCursor is where an audit goes on: with product ID, of whose ledger Ledger
// is added up already, and then, if it is one of all products, with those before
// position End of their list.
type auditCursor struct {
	All    bool         `json:"all,omitempty"`
	End    int          `json:"end,omitempty"`
	ID     string       `json:"id,omitempty"`
	Ledger stock.Counts `json:"ledger,omitzero"`
	Wrong  []string     `json:"wrong,omitempty"`
}

// auditStock adds up the ledgers and says where they differ from the counts.
func (s *server) auditStock(c *gin.Context) error {
	query, err := queryOf(c, "productId", "cursor")
	if err != nil {
		return err
	}
	at := auditCursor{All: true, End: math.MaxInt}
	if query.Has("productId") {
		at = auditCursor{ID: query.Get("productId")}
		if err := events.CheckID(at.ID); err != nil {
			return fmt.Errorf("productId: %w", err)
		}
	}
	if query.Has("cursor") {
		asked := at
		if at, err = readAuditCursor(query.Get("cursor")); err != nil || at.All != asked.All || !at.All && at.ID != asked.ID {
			return problem.Invalid("cursor is none that this audit has given; leave it out to begin anew.")
		}
	}
	findings, next, err := s.inventory.Audit(c.Request.Context(), at)
	if err != nil {
		return err
	}
	answer := gin.H{"products": findings}
	if next != nil {
		b, err := json.Marshal(next)
		if err != nil {
			return err
		}
		answer["nextCursor"] = base64.RawURLEncoding.EncodeToString(b)
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

func readAuditCursor(s string) (at auditCursor, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return at, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&at); err != nil {
		return at, err
	}
	if at.End < 0 || at.Ledger.Movements < 0 || at.ID != "" && events.CheckID(at.ID) != nil {
		return at, fmt.Errorf("no place in an audit: %+v", at)
	}
	return at, nil
}

// Audit audits products from at on, as many as one request may, and answers where
// to go on, nil at the end. Its error wraps errNoProduct if the one product that
// it was asked for does not exist.
func (inv *inventory) Audit(ctx context.Context, at auditCursor) (findings []finding, next *auditCursor, err error) {
	findings = []finding{}
	for budget := maxAuditPages; budget > 0 && len(findings) < maxAudited; {
		if at.ID == "" {
			if at.End, at.ID, err = inv.listedBefore(ctx, at.End); err != nil {
				return nil, nil, err
			}
			if at.ID == "" {
				return findings, nil, nil
			}
		}
		f, done, err := inv.audit(ctx, &at, &budget)
		if err != nil {
			return nil, nil, err
		}
		if !done {
			break
		}
		findings = append(findings, f)
		if at = (auditCursor{All: at.All, End: at.End}); at.End == 0 {
			return findings, nil, nil
		}
	}
	return findings, &at, nil
}

// listedBefore is the last product that stands in the list before position end,
// and its position; no id if there is none.
func (inv *inventory) listedBefore(ctx context.Context, end int) (position int, id string, err error) {
	for end > 0 {
		products, next, err := inv.List(ctx, end, 1)
		if err != nil {
			return 0, "", err
		}
		if len(products) > 0 {
			return next, products[0].ID, nil
		}
		end = next
	}
	return 0, "", nil
}

// audit goes on with the audit of product at.ID. A document holds both the counts
// and the end of the ledger, so they are of one moment however many requests the
// pages before take; those never change.
func (inv *inventory) audit(ctx context.Context, at *auditCursor, budget *int) (f finding, done bool, err error) {
	products, err := inv.Products(ctx, at.ID)
	if err != nil {
		return finding{}, false, err
	}
	p, ok := products[at.ID]
	if !ok {
		return finding{}, false, fmt.Errorf("audit of %s: %w", at.ID, errNoProduct)
	}
	pages := ledgerPages(at.ID)
	begin, end := at.Ledger.Movements, p.Ledger.Len(pages)
	stop := min(end, begin+*budget*pages.Size)
	movements, err := aggregate.Newest(ctx, inv.store, p.Ledger, pages, stop, max(0, stop-begin))
	if err != nil {
		return finding{}, false, err
	}
	*budget -= 1 + len(movements)/pages.Size
	slices.Reverse(movements)
	counts, wrong := at.Ledger.Rebuild(movements)
	at.Ledger, at.Wrong = counts, firstFew(append(at.Wrong, wrong...))
	if stop < end {
		return finding{}, false, nil
	}
	wrong = append(at.Wrong, p.Audit(counts)...)
	return finding{ProductID: p.ID, OK: len(wrong) == 0, Stored: p.Counts(), Ledger: counts, Wrong: wrong}, true, nil
}

// firstFew bounds what is said about one product: the first differences explain
// those after them.
func firstFew(wrong []string) []string { return wrong[:min(len(wrong), 20)] }
