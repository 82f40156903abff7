package system

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"orderflow/events"
)

// WaitTimeout is how long a test waits for what must happen by itself. It is
// above the longest pause after which a lost delivery comes again (30 s).
const WaitTimeout = 45 * time.Second

// pollEvery is how often it looks.
const pollEvery = 10 * time.Millisecond

// tokenHeader carries the API token to a sidecar, and the app token to an event
// route.
const tokenHeader = "dapr-api-token"

var client = &http.Client{
	Timeout:   90 * time.Second, // above the longest that "Prefer: wait" makes a service wait
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second},
}

// Answer is what a server answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

func (a Answer) String() string { return fmt.Sprintf("%d %s", a.Status, bytes.TrimSpace(a.Body)) }

// Header is a header field of a request.
type Header struct{ name, value string }

// With is the header field name: value.
func With(name, value string) Header { return Header{name, value} }

// Send makes a request. A body that is not a []byte or nil is sent as JSON; the
// content type is application/json unless a header says otherwise. The path is
// sent as it is written. It may be called from any goroutine.
func Send(ctx context.Context, method, address string, body any, headers ...Header) (Answer, error) {
	content, ok := body.([]byte)
	if !ok && body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return Answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(content))
	if err != nil {
		return Answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		req.Header.Set(h.name, h.value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	content, err = io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", method, address, err)
	}
	return Answer{resp.StatusCode, resp.Header, content}, nil
}

// send is Send for a test's own goroutine: what is not an answer fails it.
func send(tb testing.TB, method, address string, body any, headers ...Header) Answer {
	tb.Helper()
	a, err := Send(tb.Context(), method, address, body, headers...)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// get reads what is at address into v.
func get(tb testing.TB, address string, v any) {
	tb.Helper()
	a := send(tb, http.MethodGet, address, nil)
	if a.Status != http.StatusOK {
		tb.Fatalf("GET %s: %s", address, a)
	}
	a.Read(tb, v)
}

// Read reads the body, which must be JSON, into v.
func (a Answer) Read(tb testing.TB, v any) {
	tb.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		tb.Fatalf("answer %s: %v", a, err)
	}
}

// Eventually waits until ok, or fails the test after WaitTimeout, saying what it
// waited for and what was there instead.
func Eventually(tb testing.TB, what string, ok func() (done bool, instead string)) {
	tb.Helper()
	timeout := time.After(WaitTimeout)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		done, instead := ok()
		if done {
			return
		}
		select {
		case <-poll.C:
		case <-timeout:
			tb.Fatalf("after %s, %s is still not so: %s", WaitTimeout, what, instead)
		}
	}
}

// Product is a product as inventory shows it.
type Product struct {
	ID                string       `json:"id"`
	Name              string       `json:"name"`
	Price             events.Money `json:"price"`
	LowStockThreshold int64        `json:"lowStockThreshold"`
	Received          int64        `json:"received"`
	Available         int64        `json:"available"`
	Reserved          int64        `json:"reserved"`
	Shipped           int64        `json:"shipped"`
}

// Check says how the counts contradict each other, if they do.
func (p Product) Check() error {
	if p.Received != p.Available+p.Reserved+p.Shipped || p.Available < 0 || p.Reserved < 0 || p.Shipped < 0 {
		return fmt.Errorf("product %s: received %d, but available %d + reserved %d + shipped %d", p.ID, p.Received, p.Available, p.Reserved, p.Shipped)
	}
	return nil
}

// Description is what PUT /products/{id} takes.
type Description struct {
	Name              string       `json:"name"`
	Price             events.Money `json:"price"`
	LowStockThreshold int64        `json:"lowStockThreshold"`
}

// Describe creates a product or changes it. It may be called from any goroutine.
func (s *System) Describe(ctx context.Context, id string, d Description) error {
	return accepted(Send(ctx, http.MethodPut, s.Inventory.URL+"/products/"+url.PathEscape(id), d))
}

// Receive counts units of a product in. It may be called from any goroutine.
func (s *System) Receive(ctx context.Context, id string, quantity int) error {
	return accepted(Send(ctx, http.MethodPost, s.Inventory.URL+"/products/"+url.PathEscape(id)+"/receipts", map[string]int{"quantity": quantity}))
}

func accepted(a Answer, err error) error {
	if err == nil && a.Status/100 != 2 {
		err = fmt.Errorf("refused: %s", a)
	}
	return err
}

// Stock creates a product at a price in cents (EUR) with so many units of it.
func (s *System) Stock(tb testing.TB, id string, cents int64, units int) {
	tb.Helper()
	err := s.Describe(tb.Context(), id, Description{Name: "Product " + id, Price: events.Money{Amount: cents, Currency: "EUR"}})
	if err != nil {
		tb.Fatalf("product %s: %v", id, err)
	}
	if units > 0 {
		if err := s.Receive(tb.Context(), id, units); err != nil {
			tb.Fatalf("receipt of %s: %v", id, err)
		}
	}
}

// Product is the product as it stands; its counts add up.
func (s *System) Product(tb testing.TB, id string) Product {
	tb.Helper()
	var p Product
	get(tb, s.Inventory.URL+"/products/"+url.PathEscape(id), &p)
	if err := p.Check(); err != nil {
		tb.Fatal(err)
	}
	return p
}

// Movement is an entry of a product's ledger.
type Movement struct {
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"` // received, reserved, released or shipped
	Quantity int64     `json:"quantity"`
	OrderID  string    `json:"orderId"`
}

// Ledger is the newest page of a product's movements, the newest first.
func (s *System) Ledger(tb testing.TB, id string) []Movement {
	tb.Helper()
	var page struct {
		Movements []Movement `json:"movements"`
	}
	get(tb, s.Inventory.URL+"/products/"+url.PathEscape(id)+"/ledger", &page)
	return page.Movements
}

// Placement is what POST /orders takes.
type Placement struct {
	CustomerID string        `json:"customerId"`
	Email      string        `json:"email"`
	Items      []events.Item `json:"items"`
}

// Statuses of an order.
const (
	Pending   = "PENDING"
	Completed = "COMPLETED"
	Cancelled = "CANCELLED"
)

// Order is an order as the order service shows it.
type Order struct {
	events.Order
	Status    string            `json:"status"`
	Reason    string            `json:"reason"`
	Shortages []events.Shortage `json:"shortages"`
	Version   int               `json:"version"`
	CreatedAt time.Time         `json:"createdAt"`
	UpdatedAt time.Time         `json:"updatedAt"`
}

// Final says whether the order has ended.
func (o Order) Final() bool { return o.Status == Completed || o.Status == Cancelled }

// Place places an order. It may be called from any goroutine.
func (s *System) Place(ctx context.Context, p Placement, headers ...Header) (Order, Answer, error) {
	a, err := Send(ctx, http.MethodPost, s.Order.URL+"/orders", p, headers...)
	if err != nil {
		return Order{}, a, err
	}
	if a.Status/100 != 2 {
		return Order{}, a, fmt.Errorf("order refused: %s", a)
	}
	var o Order
	if err := json.Unmarshal(a.Body, &o); err != nil {
		return Order{}, a, fmt.Errorf("answer %s: %w", a, err)
	}
	return o, a, nil
}

// MustPlace is Place for an order that must be taken.
func (s *System) MustPlace(tb testing.TB, p Placement, headers ...Header) Order {
	tb.Helper()
	o, _, err := s.Place(tb.Context(), p, headers...)
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

// PlaceSurely places an order, once: as long as nobody answers it asks again under
// the same Idempotency-Key. It gives up when the order is refused, or with ctx. It
// may be called from any goroutine.
func (s *System) PlaceSurely(ctx context.Context, key string, p Placement) (Order, error) {
	for {
		once, cancel := context.WithTimeout(ctx, attemptTimeout)
		o, a, err := s.Place(once, p, With("Idempotency-Key", `"`+key+`"`))
		cancel()
		if err == nil || a.Status/100 == 4 && a.Status != http.StatusTooManyRequests {
			return o, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return Order{}, fmt.Errorf("order %s was not accepted: %w", key, errors.Join(ctx.Err(), err))
		}
	}
}

// attemptTimeout bounds one request of those that are made again and again.
const attemptTimeout = 3 * time.Second

// Cancel takes an order back. It may be called from any goroutine.
func (s *System) Cancel(ctx context.Context, id string) (Answer, error) {
	return Send(ctx, http.MethodPost, s.Order.URL+"/orders/"+url.PathEscape(id)+"/cancel", nil)
}

// Find is the order as it stands.
func (s *System) Find(tb testing.TB, id string) Order {
	tb.Helper()
	var o Order
	get(tb, s.Order.URL+"/orders/"+url.PathEscape(id), &o)
	return o
}

// Ended waits until the order has ended.
func (s *System) Ended(tb testing.TB, id string) Order {
	tb.Helper()
	var o Order
	defer func() {
		if !o.Final() {
			tb.Log(s.Timeline(tb, id))
		}
	}()
	Eventually(tb, "order "+id+" ended", func() (bool, string) {
		o = s.Find(tb, id)
		return o.Final(), "it is " + o.Status
	})
	return o
}

// Events are the order's own events, the oldest first.
func (s *System) Events(tb testing.TB, id string) []events.Event {
	tb.Helper()
	var history struct {
		Events []events.Event `json:"events"`
	}
	get(tb, s.Order.URL+"/orders/"+url.PathEscape(id)+"/events", &history)
	return history.Events
}

// List is one page of GET /orders, whose parameters are query, and the cursor of
// the next one, empty on the last.
func (s *System) List(tb testing.TB, query url.Values) (orders []Order, next string) {
	tb.Helper()
	var page struct {
		Orders     []Order `json:"orders"`
		NextCursor string  `json:"nextCursor"`
	}
	get(tb, s.Order.URL+"/orders?"+query.Encode(), &page)
	return page.Orders, page.NextCursor
}

// ListAll is all pages of it.
func (s *System) ListAll(tb testing.TB, query url.Values) []Order {
	tb.Helper()
	all := []Order{}
	for {
		page, next := s.List(tb, query)
		all = append(all, page...)
		if next == "" {
			return all
		}
		query.Set("cursor", next)
	}
}

// Notification is what the notification service remembers of an e-mail.
type Notification struct {
	OrderID   string    `json:"orderId"`
	Kind      string    `json:"kind"`   // COMPLETED or CANCELLED
	Status    string    `json:"status"` // PENDING, SENT or FAILED
	MessageID string    `json:"messageId"`
	SentAt    time.Time `json:"sentAt"`
}

// Notifications are those of an order.
func (s *System) Notifications(tb testing.TB, orderID string) []Notification {
	tb.Helper()
	var page struct {
		Notifications []Notification `json:"notifications"`
	}
	get(tb, s.Notification.URL+"/notifications?orderId="+url.QueryEscape(orderID), &page)
	return page.Notifications
}

// Untold are those of the orders whose customers were not told yet how they ended.
// It may be called from any goroutine.
func (s *System) Untold(ctx context.Context, ids []string) (untold []string, err error) {
	for chunk := range slices.Chunk(ids, maxAsked) {
		a, err := Send(ctx, http.MethodGet, s.Notification.URL+"/notifications?"+url.Values{"orderId": chunk}.Encode(), nil)
		if err := accepted(a, err); err != nil {
			return ids, err
		}
		var page struct {
			Notifications []Notification `json:"notifications"`
		}
		if err := json.Unmarshal(a.Body, &page); err != nil {
			return ids, err
		}
		told := map[string]bool{}
		for _, n := range page.Notifications {
			told[n.OrderID] = n.Status == "SENT"
		}
		for _, id := range chunk {
			if !told[id] {
				untold = append(untold, id)
			}
		}
	}
	return untold, nil
}

// maxAsked is how many orders a service tells about in one answer.
const maxAsked = 100

// Notified waits until the order's one e-mail is sent.
func (s *System) Notified(tb testing.TB, orderID string) Notification {
	tb.Helper()
	var found []Notification
	Eventually(tb, "order "+orderID+" has one notification, SENT", func() (bool, string) {
		found = s.Notifications(tb, orderID)
		return len(found) == 1 && found[0].Status == "SENT", fmt.Sprintf("%+v", found)
	})
	return found[0]
}

// Deliver gives an event to a service's route for a topic as its sidecar would,
// and returns the verdict: SUCCESS or RETRY.
func (s *System) Deliver(tb testing.TB, to Service, topic string, e events.Event) string {
	tb.Helper()
	a := send(tb, http.MethodPost, to.URL+"/events/"+topic, e,
		With("Content-Type", events.ContentType), With(tokenHeader, s.AppToken))
	if a.Status != http.StatusOK {
		tb.Fatalf("event %s to %s: %s", e.ID, to.ID, a)
	}
	var verdict struct {
		Status string `json:"status"`
	}
	a.Read(tb, &verdict)
	return verdict.Status
}

// Publish publishes an event through the sidecar of a service that may.
func (s *System) Publish(tb testing.TB, from Service, e events.Event) {
	tb.Helper()
	a := send(tb, http.MethodPost, from.Sidecar+"/v1.0/publish/"+e.Topic()+"/"+e.Topic(), e,
		With("Content-Type", events.ContentType), s.SidecarToken())
	if a.Status/100 != 2 {
		tb.Fatalf("publish %s through the sidecar of %s: %s", e.ID, from.ID, a)
	}
}

// SidecarToken is the header that a sidecar wants.
func (s *System) SidecarToken() Header { return With(tokenHeader, s.APIToken) }

// Timeline tells what is known of an order, for the message of a test that fails.
func (s *System) Timeline(tb testing.TB, id string) string {
	tb.Helper()
	history := s.Events(tb, id)
	var b strings.Builder
	fmt.Fprintf(&b, "order %s", id)
	for _, e := range history {
		fmt.Fprintf(&b, "\n  +%-8s %s", e.Time.Sub(history[0].Time).Round(time.Millisecond), e.Type)
	}
	for _, n := range s.Notifications(tb, id) {
		fmt.Fprintf(&b, "\n  notification %s %s %s", n.Kind, n.Status, n.MessageID)
	}
	return b.String()
}
