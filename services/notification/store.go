package notification

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"orderflow/internal/aggregate"
)

// errStore: the state store could not be read.
var errStore = errors.New("state store can't be read")

// Kinds of notification.
const (
	kindCompleted = "COMPLETED"
	kindCancelled = "CANCELLED"
	kindStockLow  = "STOCK_LOW"
)

// A notification is PENDING until the mail server has taken its e-mail (SENT) or
// said that it never will (FAILED). An event whose record is PENDING sends the
// e-mail, again if need be; one whose record is not does nothing.
const (
	statusPending = "PENDING"
	statusSent    = "SENT"
	statusFailed  = "FAILED"
)

// record is the state of one notification. It holds no address: the event does,
// and brings it again as long as the record is PENDING.
type record struct {
	OrderID   string    `json:"orderId,omitempty"`
	ProductID string    `json:"productId,omitempty"`
	Kind      string    `json:"kind"`
	Status    string    `json:"status"`
	MessageID string    `json:"messageId"` // without the angle brackets
	CreatedAt time.Time `json:"createdAt"`
	SentAt    time.Time `json:"sentAt,omitzero"`
	SMTPCode  int       `json:"smtpCode,omitempty"` // the mail server's refusal, where FAILED
}

func orderKey(orderID, kind string) string { return "notification-" + orderID + "-" + kind }

// stockKey is another one for each event: stock that falls, rises and falls again
// is reported twice. It can't be an order's, which end in capitals.
func stockKey(productID, eventID string) string {
	sum := sha256.Sum256([]byte(eventID))
	return "notification-" + productID + "-" + kindStockLow + "-" + hex.EncodeToString(sum[:8])
}

// notifications are the records, one key each.
type notifications struct {
	store     *aggregate.Store
	committer *aggregate.Committer
	now       func() time.Time
}

// begin is the record of key; where there is none it is made, as r and PENDING.
func (n *notifications) begin(ctx context.Context, key string, r record) (record, error) {
	r.Status, r.CreatedAt = statusPending, n.now().UTC()
	var current record
	err := n.committer.Do(ctx, []string{key}, func(tx *aggregate.Tx) error {
		stored, err := aggregate.Get[record](tx, key)
		if err != nil {
			return err
		}
		if stored == nil {
			stored = &r
			tx.Put(key, stored)
		}
		current = *stored
		return nil
	})
	if err != nil {
		return record{}, fmt.Errorf("begin %s: %w", key, err)
	}
	return current, nil
}

// sent says that the mail server took the e-mail.
func (n *notifications) sent(ctx context.Context, key string) error {
	at := n.now().UTC()
	return n.end(ctx, key, func(r *record) { r.Status, r.SentAt = statusSent, at })
}

// failed says that the mail server refused the e-mail for good, with an SMTP code.
func (n *notifications) failed(ctx context.Context, key string, code int) error {
	return n.end(ctx, key, func(r *record) { r.Status, r.SMTPCode = statusFailed, code })
}

// end changes a record that is PENDING. One that is not belongs to a delivery of
// the same event that was faster. The end of ctx does not stop it: what happened
// to the e-mail has happened, and not to record it would send another.
func (n *notifications) end(ctx context.Context, key string, change func(*record)) error {
	err := n.committer.Do(context.WithoutCancel(ctx), []string{key}, func(tx *aggregate.Tx) error {
		r, err := aggregate.Get[record](tx, key)
		if err != nil {
			return err
		}
		if r == nil {
			return errors.New("the record is gone")
		}
		if r.Status == statusPending {
			change(r)
			tx.Put(key, r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("end %s: %w", key, err)
	}
	return nil
}

// ofOrders are the notifications of orders, of each kind that there is, in the
// sequence of the ids. Its error wraps errStore.
func (n *notifications) ofOrders(ctx context.Context, ids []string) ([]record, error) {
	var keys []string
	for _, id := range ids {
		keys = append(keys, orderKey(id, kindCompleted), orderKey(id, kindCancelled))
	}
	docs, err := n.store.Load(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStore, err)
	}
	found := []record{}
	for _, key := range keys {
		if docs[key].ETag == "" {
			continue
		}
		var r record
		if err := json.Unmarshal(docs[key].Value, &r); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errStore, key, err)
		}
		found = append(found, r)
	}
	return found, nil
}
