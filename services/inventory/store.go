package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/services/inventory/internal/stock"
)

// State keys:
//
//	product-{id}           the product with its counts, what is held for whom, and the newest of its ledger
//	ledger-{id}-{n}        page n of the product's ledger
//	reservation-{orderId}  what became of an order here
//	products               the newest of the list of all products' ids
//	products-{n}           page n of that list
const indexKey = "products"

func productKey(id string) string          { return "product-" + id }
func reservationKey(orderID string) string { return "reservation-" + orderID }
func ledgerPages(id string) aggregate.Pages {
	return aggregate.Pages{Prefix: "ledger-" + id + "-", Size: 32}
}

// indexPages are larger than a batch of commands, so that what a batch has put
// into the index is still in its tail when the batch is decided again.
var indexPages = aggregate.Pages{Prefix: "products-", Size: 256}

// errNoProduct: the product does not exist.
var errNoProduct = errors.New("no such product")

type (
	// product is the document of a product.
	product struct {
		stock.Product
		// Position is the product's place in the index. A creation that came to
		// nothing may have left the id in other places too.
		Position int                           `json:"position"`
		Ledger   aggregate.Log[stock.Movement] `json:"ledger"`
	}
	index = aggregate.Log[string]
)

// settlement is a decision about an order.
type settlement func(stock.Order, time.Time) (stock.Decision, error)

// inventory is the products and reservations in the state store.
type inventory struct {
	store     *aggregate.Store
	committer *aggregate.Committer
}

// Describe creates the product or changes its details.
//
// The id is in the index before the product is there, so no product is ever
// unlisted; the index shows an id without a product to nobody.
func (inv *inventory) Describe(ctx context.Context, id string, d stock.Details, at time.Time) (p stock.Product, created bool, facts []stock.Fact, err error) {
	key := productKey(id)
	err = inv.committer.Do(ctx, []string{key, indexKey}, func(tx *aggregate.Tx) error {
		doc, err := aggregate.Get[product](tx, key)
		if err != nil {
			return err
		}
		if created = doc == nil; created {
			position, err := enlist(tx, id)
			if err != nil {
				return err
			}
			doc = &product{Product: stock.Product{ID: id}, Position: position}
		}
		facts = doc.Describe(d, at)
		tx.Put(key, doc)
		p = doc.Product
		return nil
	})
	return p, created, facts, err
}

// enlist gives the id a place in the index: the one it has, if a creation just
// before came to nothing.
func enlist(tx *aggregate.Tx, id string) (position int, err error) {
	ids, err := aggregate.Get[index](tx, indexKey)
	if err != nil {
		return 0, err
	}
	if ids == nil {
		ids = &index{}
	}
	if i := slices.Index(ids.Tail, id); i >= 0 {
		return ids.Pages*indexPages.Size + i, nil
	}
	ids.Append(tx, indexPages, id)
	tx.PutBefore(indexKey, ids)
	return ids.Len(indexPages) - 1, nil
}

// Receive counts a receipt in; again says that it was counted before. Its error
// wraps errNoProduct or is one of stock's.
func (inv *inventory) Receive(ctx context.Context, id, receiptID string, quantity int64, at time.Time) (p stock.Product, again bool, err error) {
	key := productKey(id)
	err = inv.committer.Do(ctx, []string{key}, func(tx *aggregate.Tx) error {
		doc, err := aggregate.Get[product](tx, key)
		if err != nil {
			return err
		}
		if doc == nil {
			return fmt.Errorf("receipt of %s: %w", id, errNoProduct)
		}
		moves, err := doc.Receive(receiptID, quantity, at)
		if err != nil {
			return err
		}
		again = len(moves) == 0
		for _, m := range moves {
			doc.put(tx, m)
		}
		p = doc.Product
		return nil
	})
	return p, again, err
}

// Settle decides about an order and writes the record and the products in the
// sequence that the decision asks for. Once something is given back the record says
// so.
func (inv *inventory) Settle(ctx context.Context, orderID string, items []events.Item, decide settlement, at time.Time) (stock.Decision, error) {
	d, givingBack, err := inv.settle(ctx, orderID, items, decide, at)
	if err == nil && givingBack {
		_, _, err = inv.settle(ctx, orderID, items, stock.Order.GivenBack, at)
	}
	return d, err
}

// settle decides once, and says whether what is written says that something is being
// given back.
func (inv *inventory) settle(ctx context.Context, orderID string, items []events.Item, decide settlement, at time.Time) (d stock.Decision, givingBack bool, err error) {
	recordKey := reservationKey(orderID)
	keys := []string{recordKey}
	for _, it := range items {
		keys = append(keys, productKey(it.ID))
	}
	err = inv.committer.Do(ctx, keys, func(tx *aggregate.Tx) error {
		record, err := aggregate.Get[stock.Reservation](tx, recordKey)
		if err != nil {
			return err
		}
		docs := make(map[string]*product, len(items))
		o := stock.Order{ID: orderID, Items: items, Record: record, Products: make(map[string]*stock.Product, len(items))}
		for _, it := range items {
			doc, err := aggregate.Get[product](tx, productKey(it.ID))
			if err != nil {
				return err
			}
			if doc != nil {
				docs[it.ID], o.Products[it.ID] = doc, &doc.Product
			}
		}
		if d, err = decide(o, at); err != nil {
			return err
		}
		givingBack = o.GivingBack(d)
		for _, m := range d.Moves {
			docs[m.Product.ID].put(tx, m)
		}
		switch {
		case d.Record == nil:
		case d.RecordFirst:
			tx.PutBefore(recordKey, d.Record)
		default:
			tx.PutAfter(recordKey, d.Record)
		}
		return nil
	})
	return d, givingBack, err
}

// put writes the product that m has moved, and m into its ledger.
func (p *product) put(tx *aggregate.Tx, m stock.Move) {
	p.Ledger.Append(tx, ledgerPages(p.ID), m.Movement)
	tx.Put(productKey(p.ID), p)
}

// Products are the products of those ids that exist.
func (inv *inventory) Products(ctx context.Context, ids ...string) (map[string]product, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = productKey(id)
	}
	docs, err := inv.store.Load(ctx, keys...)
	if err != nil {
		return nil, err
	}
	products := make(map[string]product, len(ids))
	for i, id := range ids {
		p, err := aggregate.Value[product](docs[keys[i]])
		if err != nil {
			return nil, err
		}
		if p != nil {
			products[id] = *p
		}
	}
	return products, nil
}

// Reservations are the records of those orders that have one, in the sequence of
// the ids.
func (inv *inventory) Reservations(ctx context.Context, orderIDs []string) ([]stock.Reservation, error) {
	keys := make([]string, len(orderIDs))
	for i, id := range orderIDs {
		keys[i] = reservationKey(id)
	}
	docs, err := inv.store.Load(ctx, keys...)
	if err != nil {
		return nil, err
	}
	found := []stock.Reservation{}
	for _, key := range keys {
		r, err := aggregate.Value[stock.Reservation](docs[key])
		if err != nil {
			return nil, err
		}
		if r != nil {
			found = append(found, *r)
		}
	}
	return found, nil
}

// List is at most limit of the products that stand in the index before position
// end, the newest first, and the position from which the list goes on, 0 at its
// end.
func (inv *inventory) List(ctx context.Context, end, limit int) (products []stock.Product, next int, err error) {
	docs, err := inv.store.Load(ctx, indexKey)
	if err != nil {
		return nil, 0, err
	}
	ids, err := aggregate.Value[index](docs[indexKey])
	if err != nil || ids == nil {
		return nil, 0, err
	}
	end = min(end, ids.Len(indexPages))
	page, err := aggregate.Newest(ctx, inv.store, *ids, indexPages, end, limit)
	if err != nil {
		return nil, 0, err
	}
	listed, err := inv.Products(ctx, page...)
	if err != nil {
		return nil, 0, err
	}
	for i, id := range page {
		if p, ok := listed[id]; ok && p.Position == end-1-i {
			products = append(products, p.Product)
		}
	}
	return products, end - len(page), nil
}

// Ledger is at most limit of the product's movements before position end, the
// newest first, and the position from which the ledger goes on, 0 at its end.
// Its error wraps errNoProduct.
func (inv *inventory) Ledger(ctx context.Context, id string, end, limit int) (movements []stock.Movement, next int, err error) {
	products, err := inv.Products(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	p, ok := products[id]
	if !ok {
		return nil, 0, fmt.Errorf("ledger of %s: %w", id, errNoProduct)
	}
	end = min(end, p.Ledger.Len(ledgerPages(id)))
	movements, err = aggregate.Newest(ctx, inv.store, p.Ledger, ledgerPages(id), end, limit)
	return movements, end - len(movements), err
}
