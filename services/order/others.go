package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	dapr "github.com/dapr/go-sdk/client"

	"orderflow/events"
	"orderflow/services/order/internal/order"
)

// errInventory: inventory could not be asked for prices.
var errInventory = errors.New("inventory does not answer")

// effectsTimeout is how long the sweep waits for others: one that hangs is not to
// keep the orders that need nothing of it.
const effectsTimeout = 2 * time.Second

// maxAsked is how many products or orders a service tells about in one answer.
const maxAsked = 100

// others are the other services, through service invocation.
type others struct{ client dapr.Client }

// get asks a service and reads its answer into v.
func (o others) get(ctx context.Context, service, path string, query url.Values, v any) error {
	body, err := o.client.InvokeMethod(ctx, service, path+"?"+query.Encode(), "get")
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", service, path, err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%s answers something else than %s: %w", service, path, err)
	}
	return nil
}

// prices asks inventory for the prices of products. Those that it does not know
// are not in the answer. Its error wraps errInventory.
func (o others) prices(ctx context.Context, products []string) (map[string]price, error) {
	prices := make(map[string]price, len(products))
	for chunk := range slices.Chunk(products, maxAsked) {
		var answer struct {
			Products []struct {
				ID      string       `json:"id"`
				Price   events.Money `json:"price"`
				Version int          `json:"version"`
			} `json:"products"`
		}
		query := url.Values{"ids": {strings.Join(chunk, ",")}, "limit": {strconv.Itoa(maxAsked)}}
		if err := o.get(ctx, "inventory", "products", query, &answer); err != nil {
			return nil, fmt.Errorf("%w: %w", errInventory, err)
		}
		for _, p := range answer.Products {
			prices[p.ID] = price{Price: p.Price, Version: p.Version}
		}
	}
	return prices, nil
}

// effects asks inventory and notification what they have on record about
// orders, at most maxAsked. One that neither has heard of is not in the answer. If
// only notification can't be asked, what inventory says is answered with the error.
func (o others) effects(ctx context.Context, ids []string) (map[string]order.Effects, error) {
	ctx, cancel := context.WithTimeout(ctx, effectsTimeout)
	defer cancel()
	query := url.Values{"orderId": ids}
	var held struct {
		Reservations []struct {
			OrderID    string `json:"orderId"`
			Status     string `json:"status"`
			GivingBack bool   `json:"givingBack"`
		} `json:"reservations"`
	}
	if err := o.get(ctx, "inventory", "reservations", query, &held); err != nil {
		return nil, err
	}
	effects := make(map[string]order.Effects, len(ids))
	for _, r := range held.Reservations {
		effects[r.OrderID] = order.Effects{Stock: r.Status != "RESERVED" && !r.GivingBack}
	}
	var told struct {
		Notifications []struct {
			OrderID string `json:"orderId"`
			Status  string `json:"status"`
		} `json:"notifications"`
	}
	if err := o.get(ctx, "notification", "notifications", query, &told); err != nil {
		return effects, err
	}
	for _, n := range told.Notifications {
		e := effects[n.OrderID]
		e.Notified = n.Status != "PENDING"
		effects[n.OrderID] = e
	}
	return effects, nil
}
