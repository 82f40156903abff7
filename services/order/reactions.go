package order

import (
	"context"
	"errors"
	"fmt"

	"orderflow/events"
	"orderflow/internal/pubsub"
	"orderflow/services/order/internal/order"
)

// onInventoryReserved completes the order. One that was cancelled meanwhile
// stays so, and inventory hears of it once more.
func (s *Service) onInventoryReserved(ctx context.Context, _ events.Event, p events.InventoryReserved) error {
	return s.conclude(ctx, p.OrderID, order.Order.Reserved)
}

// onInventoryRejected cancels the order.
func (s *Service) onInventoryRejected(ctx context.Context, _ events.Event, p events.InventoryRejected) error {
	return s.conclude(ctx, p.OrderID, func(o order.Order) (events.Payload, error) { return o.Rejected(p.Shortages) })
}

// conclude commits what decide makes of the order and publishes the event that
// ended it, also if it ended before: who sends an answer again may have missed it.
//
// An order is committed before anybody hears of it, so an answer to one that
// does not exist, or one that contradicts it, is not early but wrong.
func (s *Service) conclude(ctx context.Context, id string, decide func(order.Order) (events.Payload, error)) error {
	_, last, err := s.orders.Change(ctx, id, decide)
	if errors.Is(err, errNotFound) || errors.Is(err, order.ErrContradiction) {
		return fmt.Errorf("%w: %w", pubsub.ErrPoison, err)
	}
	if errors.Is(err, errAway) {
		s.log.WarnContext(ctx, "answer to an archived order passed over", "order_id", id, "error", err)
		return nil // it was settled before it was archived: nobody waits for its end
	}
	if err != nil {
		return err
	}
	return s.outbox.publish(ctx, last)
}

// onPriceUpdated brings the replica of the product's price up to date. The
// event carries none, so it does not matter how old it is.
func (s *Service) onPriceUpdated(ctx context.Context, _ events.Event, p events.PriceUpdated) error {
	prices, err := s.others.prices(ctx, []string{p.ProductID})
	if err != nil {
		return err
	}
	if len(prices) == 0 {
		s.log.WarnContext(ctx, "price of an unknown product updated", "product_id", p.ProductID)
		return nil
	}
	return s.orders.LearnPrices(ctx, prices)
}
