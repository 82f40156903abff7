package inventory

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/problem"
	"orderflow/internal/pubsub"
	"orderflow/services/inventory/internal/stock"
)

const (
	maxBody      = 64 << 10
	defaultLimit = 50
	maxLimit     = 100
	maxAsked     = 100 // ids of one request
)

type server struct {
	inventory *inventory
	publisher *pubsub.Publisher
	dead      *pubsub.DeadLetters
	log       *slog.Logger
	now       func() time.Time
}

// statuses is the only place where an error becomes an HTTP status.
var statuses = problem.Table{
	{errNoProduct, func(error) *problem.Problem {
		return problem.New(http.StatusNotFound, "no-such-product", "There is no such product", "No product has this id; PUT /products/{id} makes it.")
	}},
	{stock.ErrInvalid, func(err error) *problem.Problem { return problem.Invalid("%v.", err) }},
	{events.ErrInvalid, func(err error) *problem.Problem { return problem.Invalid("%v.", err) }},
	{stock.ErrOtherReceipt, func(err error) *problem.Problem {
		return problem.New(http.StatusUnprocessableEntity, "idempotency-key-reused", "The idempotency key is taken",
			"%v; use a new Idempotency-Key for a new receipt.", err)
	}},
	{stock.ErrTooMuch, func(err error) *problem.Problem {
		return problem.New(http.StatusUnprocessableEntity, "too-many-units", "So much can't be counted", "%v.", err)
	}},
	{stock.ErrBusy, func(err error) *problem.Problem { return problem.Unavailable("%v.", err) }},
	{errBroker, func(error) *problem.Problem {
		return problem.Unavailable("The broker does not take events. Some may be published; the same request may be sent again.")
	}},
	{aggregate.ErrNotCommitted, func(error) *problem.Problem {
		return problem.Unavailable("The state store does not answer in time. Whether the request took effect is not known: repeat it, a receipt with its Idempotency-Key.")
	}},
	{aggregate.ErrNotLoaded, func(error) *problem.Problem { return problem.Unavailable("The state store does not answer.") }},
	{aggregate.ErrClosed, func(error) *problem.Problem { return problem.Unavailable("The service is ending.") }},
}

// productBody is a product as clients see it.
type productBody struct {
	ID                string       `json:"id"`
	Name              string       `json:"name"`
	Price             events.Money `json:"price"`
	LowStockThreshold int64        `json:"lowStockThreshold"`
	Received          int64        `json:"received"`
	Available         int64        `json:"available"`
	Reserved          int64        `json:"reserved"`
	Shipped           int64        `json:"shipped"`
	Version           int          `json:"version"`
}

func bodyOf(p stock.Product) productBody {
	return productBody{
		ID: p.ID, Name: p.Name, Price: p.Price, LowStockThreshold: p.LowStockThreshold,
		Received: p.Received, Available: p.Available, Reserved: p.Reserved, Shipped: p.Shipped,
		Version: p.Version,
	}
}

func (s *server) describeProduct(c *gin.Context) error {
	id, err := productID(c)
	if err != nil {
		return err
	}
	var r struct {
		Name  string `json:"name"`
		Price struct {
			Amount   *int64 `json:"amount"` // 0 is a price; left out is a mistake
			Currency string `json:"currency"`
		} `json:"price"`
		LowStockThreshold int64 `json:"lowStockThreshold"`
	}
	if _, err := problem.ReadJSON(c, maxBody, &r); err != nil {
		return err
	}
	if r.Price.Amount == nil {
		return problem.Invalid("price.amount is missing.")
	}
	details := stock.Details{
		Name:              r.Name,
		Price:             events.Money{Amount: *r.Price.Amount, Currency: r.Price.Currency},
		LowStockThreshold: r.LowStockThreshold,
	}
	if err := details.Validate(); err != nil {
		return err
	}
	ctx := c.Request.Context()
	p, created, facts, err := s.inventory.Describe(ctx, id, details, s.now().UTC())
	if err != nil {
		return err
	}
	if err := s.publish(ctx, facts); err != nil {
		// The price is changed all the same, and the same request tells of it again.
		s.log.WarnContext(ctx, "price not published", "product_id", id, "error", err)
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		c.Header("Location", "/products/"+id)
	}
	c.JSON(status, bodyOf(p))
	return nil
}

func (s *server) receiveProduct(c *gin.Context) error {
	id, err := productID(c)
	if err != nil {
		return err
	}
	receiptID, err := problem.IdempotencyKey(c.Request.Header)
	if err != nil {
		return err
	}
	if receiptID == "" {
		// Not for the client but for the committer, which may decide again over
		// what it has written.
		receiptID = rand.Text()
	}
	var r struct {
		Quantity int64 `json:"quantity"`
	}
	if _, err := problem.ReadJSON(c, maxBody, &r); err != nil {
		return err
	}
	p, again, err := s.inventory.Receive(c.Request.Context(), id, receiptID, r.Quantity, s.now().UTC())
	if err != nil {
		return err
	}
	status := http.StatusCreated
	if again {
		status = http.StatusOK
	}
	c.JSON(status, bodyOf(p))
	return nil
}

func (s *server) showProduct(c *gin.Context) error {
	id, err := productID(c)
	if err != nil {
		return err
	}
	products, err := s.inventory.Products(c.Request.Context(), id)
	if err != nil {
		return err
	}
	p, ok := products[id]
	if !ok {
		return errNoProduct
	}
	c.JSON(http.StatusOK, bodyOf(p.Product))
	return nil
}

func (s *server) listProducts(c *gin.Context) error {
	query, err := queryOf(c, "limit", "cursor", "ids")
	if err != nil {
		return err
	}
	if query.Has("ids") {
		return s.listAsked(c, query)
	}
	end, limit, err := window(query, "products")
	if err != nil {
		return err
	}
	products, next, err := s.inventory.List(c.Request.Context(), end, limit)
	if err != nil {
		return err
	}
	bodies := make([]productBody, len(products))
	for i, p := range products {
		bodies[i] = bodyOf(p)
	}
	c.JSON(http.StatusOK, listing("products", bodies, "products", next))
	return nil
}

// listAsked answers with the products that were asked for by their ids, those
// that do not exist left out.
func (s *server) listAsked(c *gin.Context, query url.Values) error {
	ids := strings.Split(query.Get("ids"), ",")
	if len(ids) > maxAsked {
		return problem.Invalid("ids names %d products; ask for at most %d at a time.", len(ids), maxAsked)
	}
	if query.Has("cursor") {
		return problem.Invalid("cursor does not go with ids, which are answered all at once.")
	}
	for _, id := range ids {
		if err := events.CheckID(id); err != nil {
			return problem.Invalid("ids must be product ids with commas between: %v.", err)
		}
	}
	products, err := s.inventory.Products(c.Request.Context(), ids...)
	if err != nil {
		return err
	}
	bodies := make([]productBody, 0, len(ids))
	for _, id := range ids {
		if p, ok := products[id]; ok {
			bodies = append(bodies, bodyOf(p.Product))
			delete(products, id) // asked for twice, answered once
		}
	}
	c.JSON(http.StatusOK, listing("products", bodies, "products", 0))
	return nil
}

func (s *server) showLedger(c *gin.Context) error {
	id, err := productID(c)
	if err != nil {
		return err
	}
	query, err := queryOf(c, "limit", "cursor")
	if err != nil {
		return err
	}
	end, limit, err := window(query, "ledger of "+id)
	if err != nil {
		return err
	}
	movements, next, err := s.inventory.Ledger(c.Request.Context(), id, end, limit)
	if err != nil {
		return err
	}
	if movements == nil {
		movements = []stock.Movement{}
	}
	c.JSON(http.StatusOK, listing("movements", movements, "ledger of "+id, next))
	return nil
}

func productID(c *gin.Context) (string, error) {
	id := c.Param("id")
	return id, events.CheckID(id)
}

// queryOf reads the query, which must have no other parameters than names, and
// each once.
func queryOf(c *gin.Context, names ...string) (url.Values, error) {
	query, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return nil, problem.Invalid("The query can't be read: %v.", err)
	}
	for name, values := range query {
		if !slices.Contains(names, name) {
			return nil, problem.Invalid("There is no query parameter %q; there are %s.", name, strings.Join(names, ", "))
		}
		if len(values) > 1 {
			return nil, problem.Invalid("The query parameter %s stands there %d times; send it once.", name, len(values))
		}
	}
	return query, nil
}

// window is the part of the list that the query asks for: at most limit entries
// before position end.
func window(query url.Values, list string) (end, limit int, err error) {
	end, limit = math.MaxInt, defaultLimit
	if query.Has("limit") {
		limit, err = strconv.Atoi(query.Get("limit"))
		if err != nil || limit < 1 || limit > maxLimit {
			return 0, 0, problem.Invalid("limit must be a number from 1 to %d.", maxLimit)
		}
	}
	if query.Has("cursor") {
		end, err = readCursor(query.Get("cursor"), list)
	}
	return end, limit, err
}

// cursor is a place in the list that it was made for.
type cursor struct {
	List string `json:"list"`
	End  int    `json:"end"`
}

func readCursor(s, list string) (end int, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	var cur cursor
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		err = d.Decode(&cur)
	}
	if err != nil || cur.List != list || cur.End < 1 {
		return 0, problem.Invalid("cursor is none that this list has given; leave it out to begin anew.")
	}
	return cur.End, nil
}

// listing is the answer with a part of a list, and where it goes on if it does.
func listing(name string, entries any, list string, next int) gin.H {
	answer := gin.H{name: entries}
	if next > 0 {
		b, err := json.Marshal(cursor{List: list, End: next})
		if err != nil {
			panic(err) // a string and a number: can't be
		}
		answer["nextCursor"] = base64.RawURLEncoding.EncodeToString(b)
	}
	return answer
}

// reservationBody is what became of an order's stock, as others see it.
type reservationBody struct {
	OrderID    string            `json:"orderId"`
	Status     stock.Status      `json:"status"`
	Items      []events.Item     `json:"items"`
	Shortages  []events.Shortage `json:"shortages,omitempty"`
	GivingBack bool              `json:"givingBack,omitempty"`
}

// listReservations answers with what became of orders here.
func (s *server) listReservations(c *gin.Context) error {
	ids := c.QueryArray("orderId")
	if len(ids) < 1 || len(ids) > maxAsked {
		return problem.Invalid("Give the parameter orderId from 1 to %d times.", maxAsked)
	}
	for _, id := range ids {
		if err := events.CheckID(id); err != nil {
			return problem.Invalid("orderId: %v.", err)
		}
	}
	found, err := s.inventory.Reservations(c.Request.Context(), ids)
	if err != nil {
		return err
	}
	bodies := make([]reservationBody, len(found))
	for i, r := range found {
		bodies[i] = reservationBody{OrderID: r.OrderID, Status: r.Status, Items: r.Items, Shortages: r.Shortages, GivingBack: r.GivingBack}
	}
	c.JSON(http.StatusOK, gin.H{"reservations": bodies})
	return nil
}
