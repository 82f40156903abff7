package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	dapr "github.com/dapr/go-sdk/client"

	"orderflow/events"
)

// errInventory: inventory could not be asked.
var errInventory = errors.New("inventory does not answer")

// maxAsked is how many products inventory tells about in one answer.
const maxAsked = 100

// inventory is the inventory service, through service invocation.
type inventory struct{ client dapr.Client }

// prices asks for the prices of products. Those that inventory does not know are
// not in the answer. Its error wraps errInventory.
func (i inventory) prices(ctx context.Context, products []string) (map[string]price, error) {
	prices := make(map[string]price, len(products))
	for chunk := range slices.Chunk(products, maxAsked) {
		query := url.Values{"ids": {strings.Join(chunk, ",")}, "limit": {fmt.Sprint(maxAsked)}}
		body, err := i.client.InvokeMethod(ctx, "inventory", "products?"+query.Encode(), "get")
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errInventory, err)
		}
		var answer struct {
			Products []struct {
				ID      string       `json:"id"`
				Price   events.Money `json:"price"`
				Version int          `json:"version"`
			} `json:"products"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return nil, fmt.Errorf("%w: it answers something else: %w", errInventory, err)
		}
		for _, p := range answer.Products {
			prices[p.ID] = price{Price: p.Price, Version: p.Version}
		}
	}
	return prices, nil
}
