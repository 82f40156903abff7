package order

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/problem"
)

// priceKeeps is how long a price is taken on trust. PRICE_UPDATED tells of a new
// one at once, but a notice that was lost on its way is told by nobody again.
const priceKeeps = 5 * time.Minute

// price is what a unit costs, as of a version of the product.
type price struct {
	Price   events.Money `json:"price"`
	Version int          `json:"version"`
	Learned time.Time    `json:"learned"` // when inventory said so last
}

// lackedPrices says which prices the replica lacks, or has not heard of for long.
type lackedPrices struct{ missing, old []string }

func (l *lackedPrices) Error() string {
	return fmt.Sprintf("no price for %s, an old one for %s", strings.Join(l.missing, ", "), strings.Join(l.old, ", "))
}

// pricesOf are the prices of items, learned since. Its error is a *lackedPrices.
func pricesOf(tx *aggregate.Tx, items []events.Item, since time.Time) (map[string]events.Money, error) {
	prices := make(map[string]events.Money, len(items))
	var lacked lackedPrices
	for _, it := range items {
		p, err := aggregate.Get[price](tx, priceKey(it.ID))
		switch {
		case err != nil:
			return nil, err
		case p == nil:
			lacked.missing = append(lacked.missing, it.ID)
		case p.Learned.Before(since):
			lacked.old = append(lacked.old, it.ID)
		default:
			prices[it.ID] = p.Price
		}
	}
	if lacked.missing != nil || lacked.old != nil {
		return nil, &lacked
	}
	return prices, nil
}

// LearnPrices records prices in the replica. A price of an older version of the
// product than is recorded changes nothing.
func (s *orders) LearnPrices(ctx context.Context, learned map[string]price) error {
	now := s.now().UTC()
	keys := make([]string, 0, len(learned))
	for id := range learned {
		keys = append(keys, priceKey(id))
	}
	return s.committer.Do(ctx, keys, func(tx *aggregate.Tx) error {
		for id, p := range learned {
			known, err := aggregate.Get[price](tx, priceKey(id))
			if err != nil {
				return err
			}
			if known == nil || known.Version <= p.Version {
				p.Learned = now
				tx.Put(priceKey(id), &p)
			}
		}
		return nil
	})
}

// place is orders.Place. Prices that the replica lacks are asked of inventory; one
// that is old will do if inventory does not answer.
func (s *Service) place(ctx context.Context, r placement) (created events.Event, fresh bool, err error) {
	r.since = s.orders.now().Add(-priceKeeps)
	created, fresh, err = s.orders.Place(ctx, r)
	lacked := (*lackedPrices)(nil)
	if !errors.As(err, &lacked) {
		return created, fresh, err
	}
	r.since = time.Time{}
	prices, err := s.others.prices(ctx, append(lacked.missing, lacked.old...))
	if err != nil && lacked.missing == nil {
		s.log.WarnContext(ctx, "old prices are kept", "error", err)
		return s.orders.Place(ctx, r)
	}
	if err != nil {
		return events.Event{}, false, err
	}
	var unknown []string
	for _, id := range lacked.missing {
		if _, ok := prices[id]; !ok {
			unknown = append(unknown, id)
		}
	}
	if unknown != nil {
		p := problem.New(http.StatusUnprocessableEntity, "unknown-product", "A product does not exist",
			"Inventory has no product %s.", strings.Join(unknown, ", "))
		p.Products = unknown
		return events.Event{}, false, p
	}
	if err := s.orders.LearnPrices(ctx, prices); err != nil {
		return events.Event{}, false, err
	}
	return s.orders.Place(ctx, r)
}
