package notification

import (
	"context"
	"errors"
	"fmt"

	"orderflow/events"
)

// onOrderCompleted tells the customer that the order is complete.
func (s *server) onOrderCompleted(ctx context.Context, _ events.Event, p events.OrderCompleted) error {
	content, err := writeCompleted(p)
	if err != nil {
		return err
	}
	return s.notify(ctx, orderKey(p.OrderID, kindCompleted), record{OrderID: p.OrderID, Kind: kindCompleted}, p.Email, content)
}

// onOrderCancelled tells the customer that the order is cancelled, and why.
func (s *server) onOrderCancelled(ctx context.Context, _ events.Event, p events.OrderCancelled) error {
	content, err := writeCancelled(p)
	if err != nil {
		return err
	}
	return s.notify(ctx, orderKey(p.OrderID, kindCancelled), record{OrderID: p.OrderID, Kind: kindCancelled}, p.Email, content)
}

// onStockLow tells the shop that a product runs low. The event carries nothing
// but its id, so the e-mail says what inventory knows now.
func (s *server) onStockLow(ctx context.Context, e events.Event, p events.StockLow) error {
	product, err := s.inventory.product(ctx, p.ProductID)
	if errors.Is(err, errNoProduct) {
		// Products do not come back, so there is nothing left to wait for.
		s.log.WarnContext(ctx, "stock of an unknown product is low", "product_id", p.ProductID)
		return nil
	}
	if err != nil {
		return err
	}
	content, err := writeStockLow(p.ProductID, product)
	if err != nil {
		return err
	}
	return s.notify(ctx, stockKey(p.ProductID, e.Origin()), record{ProductID: p.ProductID, Kind: kindStockLow}, s.stockAlerts, content)
}

// notify sends an e-mail unless the record of key says that it was. An event that
// comes twice tends to come twice at once: who comes while the e-mail is being
// sent shares the outcome.
func (s *server) notify(ctx context.Context, key string, r record, to string, c content) error {
	_, err, _ := s.sending.Do(key, func() (any, error) { return nil, s.send(ctx, key, r, to, c) })
	return err
}

// send makes the record first, so that the e-mail's Message-ID and Date are the
// same in every attempt.
func (s *server) send(ctx context.Context, key string, r record, to string, c content) error {
	r.MessageID = messageID(key, s.from.Address)
	r, err := s.notifications.begin(ctx, key, r)
	if err != nil || r.Status != statusPending {
		return err
	}
	msg, err := envelope(s.from, to, key, r, c)
	if err != nil {
		return err
	}
	err = s.mailer.send(ctx, msg)
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		s.log.WarnContext(ctx, "e-mail refused", "notification", key, "smtp_code", refused.code, "smtp_status", refused.enhanced)
		return s.notifications.failed(ctx, key, refused.code)
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", key, err)
	}
	return s.notifications.sent(ctx, key)
}
