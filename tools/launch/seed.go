package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// products are what --seed creates, as the inventory's API takes them.
var products = []struct {
	id, definition, receipt string
}{
	{"espresso-beans", `{"name":"Espresso beans, 1 kg","price":{"amount":1890,"currency":"EUR"},"lowStockThreshold":10}`, `{"quantity":100}`},
	{"paper-filters", `{"name":"Paper filters, 100 pieces","price":{"amount":450,"currency":"EUR"},"lowStockThreshold":20}`, `{"quantity":500}`},
}

// seed creates the products if the inventory has none, so that the first order
// of a fresh data directory has something to order.
func (s *system) seed(ctx context.Context) error {
	i := indexOf(s.apps, "inventory")
	if i < 0 {
		return nil
	}
	base := s.apps[i].url() + "/products"
	content, err := call(ctx, http.MethodGet, base, "")
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	var page struct {
		Products []json.RawMessage `json:"products"`
	}
	if err := json.Unmarshal(content, &page); err != nil {
		return fmt.Errorf("seed: GET %s: %w", base, err)
	}
	if len(page.Products) > 0 {
		return nil
	}
	for _, p := range products {
		if _, err := call(ctx, http.MethodPut, base+"/"+p.id, p.definition); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
		if _, err := call(ctx, http.MethodPost, base+"/"+p.id+"/receipts", p.receipt); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
	}
	return nil
}

// call makes a request with a JSON body, or none, and returns the body of a 2xx.
func call(ctx context.Context, method, url, body string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewBufferString(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, response.Status, content)
	}
	return content, nil
}
