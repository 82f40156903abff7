package inventory

import (
	"context"
	"time"

	"orderflow/events"
	"orderflow/internal/pubsub"
	"orderflow/services/inventory/internal/stock"
)

// onOrderCreated holds all of the order's items or none, and says which.
func (s *server) onOrderCreated(ctx context.Context, _ events.Event, e events.OrderCreated) error {
	return s.settle(ctx, e.Order, stock.Order.Reserve)
}

// onOrderCompleted ships what is held for the order.
func (s *server) onOrderCompleted(ctx context.Context, _ events.Event, e events.OrderCompleted) error {
	return s.settle(ctx, e.Order, func(o stock.Order, at time.Time) (stock.Decision, error) { return o.Ship(at), nil })
}

// onOrderCancelled gives back what is held for the order; one whose creation has
// not come yet will get nothing.
func (s *server) onOrderCancelled(ctx context.Context, _ events.Event, e events.OrderCancelled) error {
	return s.settle(ctx, e.Order, stock.Order.Release)
}

// settle commits what decide makes of the order and tells what follows. If that
// can't be told, the event comes again, and with it the same facts.
func (s *server) settle(ctx context.Context, o events.Order, decide settlement) error {
	d, err := s.inventory.Settle(ctx, o.OrderID, o.Quantities(), decide, s.now().UTC())
	if err != nil {
		return err
	}
	if d.Oddity != "" {
		s.log.ErrorContext(ctx, d.Oddity, "order_id", o.OrderID)
	}
	return s.publish(ctx, d.Facts)
}

func (s *server) publish(ctx context.Context, facts []stock.Fact) error {
	return s.publishTo(ctx, events.TopicInventory, facts)
}

func (s *server) publishTo(ctx context.Context, topic string, facts []stock.Fact) error {
	evs := make([]events.Event, len(facts))
	for i, f := range facts {
		e, err := events.New(source, f.Version, f.At, f.Payload)
		if err != nil {
			return err
		}
		evs[i] = pubsub.Traced(ctx, e)
	}
	return s.publisher.PublishTo(ctx, topic, evs...)
}
