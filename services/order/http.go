package order

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/problem"
	"orderflow/services/order/internal/order"
)

const (
	maxBody      = 1 << 20
	maxWait      = 60 * time.Second
	pollInterval = 250 * time.Millisecond // for orders that end in another process
	defaultLimit = 50
	maxLimit     = 100
)

// statuses is the only place where an error becomes an HTTP status.
var statuses = problem.Table{
	{errNotFound, func(error) *problem.Problem {
		return problem.New(http.StatusNotFound, "no-such-order", "There is no such order", "No order has this id, or it had not come that far at the time or version asked for.")
	}},
	{errAway, func(err error) *problem.Problem {
		return problem.New(http.StatusGone, "archived", "The order is archived", "%v; put the file into ARCHIVE_DIR to see it.", err)
	}},
	{errArchiveFailed, func(error) *problem.Problem {
		return problem.Unavailable("The directory ARCHIVE_DIR can't be written to. Nothing is archived.")
	}},
	{errKeyReused, func(error) *problem.Problem {
		return problem.New(http.StatusUnprocessableEntity, "idempotency-key-reused", "The idempotency key is taken",
			"An earlier request with this Idempotency-Key had another body; use a new key for a new order.")
	}},
	{order.ErrCompleted, func(error) *problem.Problem {
		return problem.New(http.StatusConflict, "order-completed", "The order can't be cancelled any more", "It is completed.")
	}},
	{order.ErrCurrencies, func(err error) *problem.Problem {
		return problem.New(http.StatusUnprocessableEntity, "mixed-currencies", "The items are priced in different currencies",
			"An order has one currency; place one order for each: %v.", err)
	}},
	{events.ErrInvalid, func(err error) *problem.Problem { return problem.Invalid("%v.", err) }},
	{errInventory, func(error) *problem.Problem { return problem.Unavailable("Inventory can't be asked for a price.") }},
	{errBroker, func(error) *problem.Problem {
		return problem.Unavailable("The broker does not take events. Some may be published; the same request may be sent again.")
	}},
	{aggregate.ErrNotCommitted, func(error) *problem.Problem {
		return problem.Unavailable("The state store does not answer in time. Whether the request took effect is not known: repeat it with the same Idempotency-Key.")
	}},
	{aggregate.ErrNotLoaded, func(error) *problem.Problem { return problem.Unavailable("The state store does not answer.") }},
	{aggregate.ErrClosed, func(error) *problem.Problem { return problem.Unavailable("The service is ending.") }},
}

// placement is a request to place an order.
type placement struct {
	CustomerID string        `json:"customerId"`
	Email      string        `json:"email"`
	Items      []events.Item `json:"items"`

	id, fingerprint string
	since           time.Time // prices must have been learned since
}

func (r placement) validate() error {
	if err := events.CheckID(r.CustomerID); err != nil {
		return fmt.Errorf("customerId: %w", err)
	}
	if err := events.CheckEmail(r.Email); err != nil {
		return fmt.Errorf("email: %w", err)
	}
	return events.CheckItems(r.Items)
}

func (s *Service) placeOrder(c *gin.Context) error {
	var r placement
	if _, err := problem.ReadJSON(c, maxBody, &r); err != nil {
		return err
	}
	if err := r.validate(); err != nil {
		return err
	}
	key, err := problem.IdempotencyKey(c.Request.Header)
	if err != nil {
		return err
	}
	r.id, r.fingerprint = orderID(key), fingerprint(r)

	created, fresh, err := s.place(c.Request.Context(), r)
	if err != nil {
		return err
	}
	if fresh {
		s.outbox.publishSoon(c.Request.Context(), created)
	}
	o, err := order.Fold([]events.Event{created})
	if err != nil {
		return err
	}
	c.Header("Location", "/orders/"+o.OrderID)
	if d, ok := waitPreference(c.Request.Header); ok {
		c.Header("Preference-Applied", "wait="+strconv.Itoa(int(d/time.Second)))
		o = s.await(c.Request.Context(), o, d)
	}
	status := http.StatusAccepted
	if o.Status.Final() {
		status = http.StatusCreated
	}
	c.JSON(status, o)
	return nil
}

// await is the order once it has ended, or as it was last seen when the time is
// up or the service ends. The order is placed either way: that it can't be read
// for a moment is no failure of the request.
func (s *Service) await(ctx context.Context, o order.Order, most time.Duration) order.Order {
	ended, leave := s.orders.ended.wait(o.OrderID)
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		// Looked at after the place among the waiters is taken: an end in
		// between is not missed.
		if now, err := s.orders.Find(ctx, o.OrderID); err == nil {
			o = now
		}
		if o.Status.Final() {
			return o
		}
		select {
		case <-ended:
			ended = nil
		case <-poll.C:
		case <-ctx.Done():
			return o
		case <-s.draining:
			return o
		}
	}
}

func (s *Service) showOrder(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	part := whole
	if c.Request.URL.RawQuery != "" {
		if part, err = readAsOf(c.Request.URL.RawQuery); err != nil {
			return err
		}
	}
	history, err := s.orders.History(c.Request.Context(), id)
	if err != nil {
		return err
	}
	if history = part(history); len(history) == 0 {
		return fmt.Errorf("%w at that time: %s", errNotFound, id)
	}
	o, err := order.Fold(history)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, o)
	return nil
}

// part is the beginning of a history; none of it if the order was not there yet.
type part func(history []events.Event) []events.Event

func whole(history []events.Event) []events.Event { return history }

// readAsOf reads the query of an order as it was: at a version, which it must
// have reached, or at a time, which may be still to come.
func readAsOf(raw string) (part, error) {
	query, err := url.ParseQuery(raw)
	if err != nil || len(query) != 1 || len(query["asOf"]) != 1 {
		return nil, problem.Invalid("The only query parameter here is asOf, once.")
	}
	asOf := query.Get("asOf")
	if at, err := time.Parse(time.RFC3339Nano, asOf); err == nil {
		return func(history []events.Event) []events.Event {
			n := slices.IndexFunc(history, func(e events.Event) bool { return e.Time.After(at) })
			if n < 0 {
				return history
			}
			return history[:n]
		}, nil
	}
	version, err := strconv.Atoi(asOf)
	if err != nil || version < 1 {
		return nil, problem.Invalid("asOf must be a version, from 1 on, or an RFC 3339 time such as 2026-01-31T18:00:00Z (write + as %%2B).")
	}
	return func(history []events.Event) []events.Event {
		if version > len(history) {
			return nil
		}
		return history[:version]
	}, nil
}

func (s *Service) showEvents(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	history, err := s.orders.History(c.Request.Context(), id)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, gin.H{"events": history})
	return nil
}

func (s *Service) cancelOrder(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	o, last, err := s.orders.Change(c.Request.Context(), id, order.Order.Withdraw)
	if err != nil {
		return err
	}
	s.outbox.publishSoon(c.Request.Context(), last)
	c.JSON(http.StatusOK, o)
	return nil
}

func (s *Service) listOrders(c *gin.Context) error {
	query := c.Request.URL.Query()
	for name := range query {
		if !slices.Contains([]string{"limit", "cursor", "status", "customerId"}, name) {
			return problem.Invalid("There is no query parameter %q; there are limit, cursor, status and customerId.", name)
		}
	}
	limit := defaultLimit
	if q := query.Get("limit"); q != "" {
		var err error
		if limit, err = strconv.Atoi(q); err != nil || limit < 1 || limit > maxLimit {
			return problem.Invalid("limit must be a number from 1 to %d.", maxLimit)
		}
	}
	status := order.Status(query.Get("status"))
	if status != "" && !slices.Contains(order.Statuses, status) {
		return problem.Invalid("status must be one of %v.", order.Statuses)
	}
	name := allOrders
	if id := query.Get("customerId"); id != "" {
		if err := events.CheckID(id); err != nil {
			return fmt.Errorf("customerId: %w", err)
		}
		name = customerKey(id)
	}
	end := -1
	if q := query.Get("cursor"); q != "" {
		var err error
		if end, err = readCursor(q, name); err != nil {
			return err
		}
	}
	found, next, err := s.orders.List(c.Request.Context(), name, end, limit, func(o order.Order) bool {
		return status == "" || o.Status == status
	})
	if err != nil {
		return err
	}
	answer := gin.H{"orders": found}
	if next > 0 {
		answer["nextCursor"] = newCursor(name, next)
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// cursor is a place in a listing. It goes with the index that it was made for.
type cursor struct {
	Index string `json:"i"`
	End   int    `json:"e"`
}

func newCursor(index string, end int) string {
	b, err := json.Marshal(cursor{index, end})
	if err != nil {
		panic(err) // a string and a number: can't be
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func readCursor(s, index string) (int, error) {
	var cur cursor
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &cur)
	}
	if err != nil || cur.Index != index || cur.End < 1 {
		return 0, problem.Invalid("cursor is none that the same request has been given; leave it out to begin anew.")
	}
	return cur.End, nil
}

// pathID is the id in the path. One that no order can have is not looked up.
func pathID(c *gin.Context) (string, error) {
	id := c.Param("id")
	if err := events.CheckID(id); err != nil {
		return "", fmt.Errorf("order id: %w", err)
	}
	return id, nil
}

// orderNamespace makes order ids of idempotency keys (RFC 9562, version 5): the
// same key is the same order, in every process and for ever.
var orderNamespace = uuid.MustParse("5b0e2f9c-64b8-5d0a-9a43-6a8f3b1c7d21")

func orderID(key string) string {
	if key == "" {
		return uuid.Must(uuid.NewV7()).String()
	}
	return uuid.NewSHA1(orderNamespace, []byte(key)).String()
}

// fingerprint is equal for requests that ask for the same.
func fingerprint(r placement) string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers: can't be
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// waitPreference reads "wait" of the Prefer header (RFC 7240, section 4.3). What
// can't be understood is as if it were not there (section 2).
func waitPreference(h http.Header) (time.Duration, bool) {
	for _, preference := range strings.Split(strings.Join(h.Values("Prefer"), ","), ",") {
		name, value, _ := strings.Cut(preference, "=")
		if strings.EqualFold(strings.TrimSpace(name), "wait") {
			value, _, _ = strings.Cut(value, ";")
			n, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
			if err != nil || n < 0 {
				return 0, false
			}
			return time.Duration(min(n, int(maxWait/time.Second))) * time.Second, true
		}
	}
	return 0, false
}
