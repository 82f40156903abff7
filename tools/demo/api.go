package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// api is where the services and the mail sink are: their URLs.
type api struct{ order, inventory, notification, mail string }

type money struct {
	Amount   int64  `json:"amount"` // minor units
	Currency string `json:"currency"`
}

type product struct {
	ID                string `json:"id,omitempty"`
	Name              string `json:"name"`
	Price             money  `json:"price"`
	LowStockThreshold int    `json:"lowStockThreshold"`
	Available         int    `json:"available,omitempty"`
}

type item struct {
	ID       string `json:"id"`
	Quantity int    `json:"quantity"`
}

type placement struct {
	CustomerID string `json:"customerId"`
	Email      string `json:"email"`
	Items      []item `json:"items"`
}

type shortage struct {
	ID        string `json:"id"`
	Requested int    `json:"requested"`
	Available int    `json:"available"`
}

type order struct {
	OrderID   string     `json:"orderId"`
	Items     []item     `json:"items"`
	Total     money      `json:"total"`
	Status    string     `json:"status"`
	Reason    string     `json:"reason"`
	Shortages []shortage `json:"shortages"`
}

type event struct {
	Type   string    `json:"type"`
	Source string    `json:"source"`
	Time   time.Time `json:"time"`
}

type movement struct {
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`
	Quantity int       `json:"quantity"`
	OrderID  string    `json:"orderId"`
}

type notification struct {
	Status    string `json:"status"`
	MessageID string `json:"messageId"`
}

type message struct {
	ID      string    `json:"id"`
	Subject string    `json:"subject"`
	Time    time.Time `json:"time"`
}

// refused is an answer that is not a 2xx.
type refused struct {
	request string
	status  int
	body    string
}

func (r *refused) Error() string { return fmt.Sprintf("%s: %d %s", r.request, r.status, r.body) }

var client = &http.Client{Timeout: 30 * time.Second}

// call makes a request with body as JSON, if it is not nil, and reads the answer
// into answer, if that is not nil. Its error is a *refused if it is not a 2xx.
func call(ctx context.Context, method, address string, body, answer any, header ...string) error {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(content))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing answers at %s any more: was the system stopped? `make run` starts it", address)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if content, err = io.ReadAll(io.LimitReader(resp.Body, 4<<20)); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return &refused{method + " " + address, resp.StatusCode, string(bytes.TrimSpace(content))}
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(content, answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, address, err)
	}
	return nil
}

// stockUp creates the product, or changes it to be like p, and sees to it that
// at least so many units are available. It answers the product as it then is.
func (a *api) stockUp(ctx context.Context, p product, units int) (product, error) {
	address := a.inventory + "/products/" + url.PathEscape(p.ID)
	now := p
	p.ID = ""
	if err := call(ctx, http.MethodPut, address, p, &now); err != nil {
		return product{}, err
	}
	if missing := units - now.Available; missing > 0 {
		if err := call(ctx, http.MethodPost, address+"/receipts", map[string]int{"quantity": missing}, &now); err != nil {
			return product{}, err
		}
	}
	return now, nil
}

func (a *api) place(ctx context.Context, p placement, key string) (order, error) {
	var o order
	err := call(ctx, http.MethodPost, a.order+"/orders", p, &o, "Idempotency-Key", key)
	return o, err
}

// cancel answers whether the order was cancelled; false if it was completed
// before.
func (a *api) cancel(ctx context.Context, orderID string) (bool, error) {
	err := call(ctx, http.MethodPost, a.orderURL(orderID)+"/cancel", nil, nil)
	if r := (*refused)(nil); errors.As(err, &r) && r.status == http.StatusConflict {
		return false, nil
	}
	return err == nil, err
}

func (a *api) orderURL(id string) string { return a.order + "/orders/" + url.PathEscape(id) }

// trail is everything that is recorded about one order.
type trail struct {
	order         order
	events        []event
	movements     map[string][]movement // by product
	notifications []notification
	messages      []message
}

// follow reads the order's trail as far as it goes.
func (a *api) follow(ctx context.Context, orderID string) (trail, error) {
	t := trail{movements: map[string][]movement{}}
	var history struct{ Events []event }
	var told struct{ Notifications []notification }
	if err := errors.Join(
		call(ctx, http.MethodGet, a.orderURL(orderID), nil, &t.order),
		call(ctx, http.MethodGet, a.orderURL(orderID)+"/events", nil, &history),
		call(ctx, http.MethodGet, a.notification+"/notifications?orderId="+url.QueryEscape(orderID), nil, &told),
	); err != nil {
		return t, err
	}
	t.events, t.notifications = history.Events, told.Notifications
	for _, it := range t.order.Items {
		var ledger struct{ Movements []movement }
		if err := call(ctx, http.MethodGet, a.inventory+"/products/"+url.PathEscape(it.ID)+"/ledger?limit=100", nil, &ledger); err != nil {
			return t, err
		}
		for _, m := range ledger.Movements {
			if m.OrderID == orderID {
				t.movements[it.ID] = append(t.movements[it.ID], m)
			}
		}
	}
	for _, n := range t.notifications {
		var found []message
		if err := call(ctx, http.MethodGet, a.mail+"/messages?messageId="+url.QueryEscape(n.MessageID), nil, &found); err != nil {
			return t, err
		}
		t.messages = append(t.messages, found...)
	}
	return t, nil
}
