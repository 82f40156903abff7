package inventory

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/internal/apitest"
	"orderflow/internal/daprtest"
	"orderflow/internal/problem"
)

func TestDescribeAProduct(t *testing.T) {
	inBothModes(t, 1, func(t *testing.T, b *bench) {
		const cup = `{"name":"Cup","price":{"amount":250,"currency":"EUR"},"lowStockThreshold":2}`
		steps := []struct {
			name, body string
			status     int
			version    int
			told       string
		}{
			{"made", cup, 201, 1, "cup:1:PRICE_UPDATED"},
			{"sent again: the same notice", cup, 200, 1, "cup:1:PRICE_UPDATED"},
			{"another name", strings.Replace(cup, "Cup", "Mug", 1), 200, 2, ""},
			{"another price", strings.Replace(cup, "250", "300", 1), 200, 3, "cup:3:PRICE_UPDATED"},
			{"no threshold is 0", `{"name":"Cup","price":{"amount":300,"currency":"EUR"}}`, 200, 4, ""},
		}
		for _, s := range steps {
			before := len(b.Published())
			a := b.call("PUT", "/products/cup", s.body)
			p := parse[productBody](t, a.Body)
			if a.Status != s.status || p.Version != s.version {
				t.Fatalf("%s: %d %s, want %d and version %d", s.name, a.Status, a.Body, s.status, s.version)
			}
			if s.status == http.StatusCreated && a.Header.Get("Location") != "/products/cup" {
				t.Errorf("Location is %q", a.Header.Get("Location"))
			}
			if got := b.published(before); got != s.told {
				t.Errorf("%s: told %q, want %q", s.name, got, s.told)
			}
		}
	})
}

// The price is changed although nobody could be told; the request sent again
// tells it.
func TestAPriceThatIsNotPublished(t *testing.T) {
	b := start(t, daprtest.RedisLike, 1)
	b.Fail(func(call string) error {
		if call == "PublishEvent" {
			return errors.New("the broker is down")
		}
		return nil
	})
	const body = `{"name":"Cup","price":{"amount":250,"currency":"EUR"}}`
	if a := b.call("PUT", "/products/cup", body); a.Status != http.StatusCreated {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	b.Fail(nil)
	if a := b.call("PUT", "/products/cup", body); a.Status != http.StatusOK || b.published(0) != "cup:1:PRICE_UPDATED" {
		t.Errorf("%d, told %q", a.Status, b.published(0))
	}
}

func TestReceipts(t *testing.T) {
	inBothModes(t, 2, func(t *testing.T, b *bench) {
		b.product("cup", 0)
		receive := func(quantity int, header ...string) int {
			return b.call("POST", "/products/cup/receipts", fmt.Sprintf(`{"quantity":%d}`, quantity), header...).Status
		}
		var counted atomic.Int64
		together(20, func(int) {
			if receive(5, "Idempotency-Key", `"delivery 1"`) == http.StatusCreated {
				counted.Add(1)
			}
		})
		if counted.Load() > 1 {
			t.Errorf("%d of 20 say that it was counted now", counted.Load())
		}
		b.wantCounts("cup", [4]int64{5, 5, 0, 0})
		if got := receive(5, "Idempotency-Key", "delivery 1"); got != http.StatusOK {
			t.Errorf("without quotes it is another key: %d", got)
		}
		if got := receive(6, "Idempotency-Key", "delivery 1"); got != http.StatusUnprocessableEntity {
			t.Errorf("the same key with another quantity: %d, want 422", got)
		}
		if a := b.call("POST", "/products/ghost/receipts", `{"quantity":1}`); a.Status != http.StatusNotFound {
			t.Errorf("receipt of nothing: %d", a.Status)
		}
		if m := b.ledger("cup", 10); len(m) != 1 || m[0].ReceiptID != "delivery 1" {
			t.Errorf("ledger %v", m)
		}

		// Without a key each request is a receipt of its own, but is not counted
		// twice because the answer of the store was lost.
		var calls atomic.Int64
		b.Fail(func(call string) error {
			if strings.HasPrefix(call, "after ") && calls.Add(1)%2 == 0 {
				return errors.New("the answer is lost")
			}
			return nil
		})
		together(100, func(int) {
			if got := receive(1); got != http.StatusCreated && got != http.StatusOK {
				t.Errorf("answered %d", got)
			}
		})
		b.Fail(nil)
		b.wantCounts("cup", [4]int64{105, 105, 0, 0})
		b.audit("cup")
	})
}

func TestListProducts(t *testing.T) {
	inBothModes(t, 2, func(t *testing.T, b *bench) {
		const n = 600 // the index has pages
		// Half of the writes are reported as failed though they were done.
		var calls atomic.Int64
		b.Fail(func(call string) error {
			if strings.HasPrefix(call, "after ") && calls.Add(1)%2 == 0 {
				return errors.New("the answer is lost")
			}
			return nil
		})
		together(n, func(i int) {
			id := fmt.Sprintf("p-%d", i)
			if a := b.call("PUT", "/products/"+id, `{"name":"`+id+`","price":{"amount":1,"currency":"EUR"}}`); a.Status/100 != 2 {
				t.Errorf("%d %s", a.Status, a.Body)
			}
		})
		b.Fail(nil)

		for _, limit := range []int{9, 100} {
			got := b.listed(limit)
			for id, times := range got {
				if times != 1 {
					t.Errorf("limit %d: %s is listed %d times", limit, id, times)
				}
			}
			if len(got) != n {
				t.Errorf("limit %d: %d products are listed, want %d", limit, len(got), n)
			}
		}
	})
}

// listed is how often each product is listed, on pages of so many.
func (b *bench) listed(limit int) map[string]int {
	b.tb.Helper()
	times := map[string]int{}
	for cursor := ""; ; {
		page := parse[productPage](b.tb, b.call("GET", fmt.Sprintf("/products?limit=%d%s", limit, cursor), "").Body)
		if len(page.Products) > limit {
			b.tb.Fatalf("limit %d: a page has %d products", limit, len(page.Products))
		}
		for _, p := range page.Products {
			times[p.ID]++
		}
		if page.NextCursor == "" {
			return times
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

type productPage struct {
	Products   []productBody
	NextCursor string
}

// One replica has put a new id into the index and is about to make the product,
// when another one makes the same product, and so many before it that the id has
// left the part of the index that is searched for it.
func TestAProductThatIsInTheIndexTwice(t *testing.T) {
	inBothModes(t, 2, func(t *testing.T, b *bench) {
		const body = `{"name":"Cup","price":{"amount":250,"currency":"EUR"}}`
		reached, goOn := b.stopAt("save product-cup")
		first := make(chan apitest.Response)
		go func() { first <- b.replica(0).call("PUT", "/products/cup", body) }()
		<-reached
		if !strings.Contains(string(b.State(indexKey)), `"cup"`) {
			t.Fatal("the id is not in the index: this test shows nothing")
		}
		if n := b.listed(100)["cup"]; n != 0 {
			t.Errorf("listed %d times before it is there", n)
		}
		together(2*indexPages.Size, func(i int) {
			id := fmt.Sprintf("p-%d", i)
			if a := b.replica(1).call("PUT", "/products/"+id, strings.Replace(body, "Cup", id, 1)); a.Status != http.StatusCreated {
				t.Errorf("making %s: %d %s", id, a.Status, a.Body)
			}
		})
		if strings.Contains(string(b.State(indexKey)), `"cup"`) {
			t.Fatal("the id is still in the tail of the index: this test shows nothing")
		}
		if a := b.replica(1).call("PUT", "/products/cup", body); a.Status != http.StatusCreated {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		goOn()
		if a := <-first; a.Status != http.StatusOK {
			t.Errorf("the first one answers %d %s, want 200", a.Status, a.Body)
		}
		if n := b.listed(100)["cup"]; n != 1 {
			t.Errorf("listed %d times once it is there", n)
		}
	})
}

// A store that does not answer is a problem that says to come again, and what
// could not be written is not there.
func TestTheStoreIsDown(t *testing.T) {
	b := start(t, daprtest.RedisLike, 1)
	b.product("cup", 5)
	b.Fail(func(call string) error {
		if strings.Contains(call, "State") {
			return errors.New("the store is down")
		}
		return nil
	})
	tests := []struct{ method, path, body, detail string }{
		{"POST", "/products/cup/receipts", `{"quantity":5}`, "repeat it"},
		{"GET", "/products", "", "does not answer"},
		{"GET", "/products/cup", "", "does not answer"},
		{"GET", "/products/cup/ledger", "", "does not answer"},
	}
	for _, tt := range tests {
		a := b.call(tt.method, tt.path, tt.body)
		p := parse[problem.Problem](t, a.Body)
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.Contains(p.Detail, tt.detail) {
			t.Errorf("%s %s answers %d %s, want 503 and when to come again", tt.method, tt.path, a.Status, a.Body)
		}
	}
	b.Fail(nil)
	b.wantCounts("cup", [4]int64{5, 5, 0, 0})
}

func TestReservations(t *testing.T) {
	b := start(t, daprtest.RedisLike, 1)
	b.product("cup", 1)
	b.deliver(created(order("o-1", "cup:1")))
	b.deliver(created(order("o-2", "cup:1")))
	b.deliver(cancelled(order("o-3", "cup:1")))
	b.deliver(completed(order("o-1", "cup:1")))
	got := parse[struct{ Reservations []reservationBody }](t, b.call("GET", "/reservations?orderId=o-3&orderId=o-2&orderId=o-1&orderId=nobody", "").Body)
	var statuses []string
	for _, r := range got.Reservations {
		statuses = append(statuses, fmt.Sprint(r.OrderID, " ", r.Status))
	}
	if want := "[o-3 CANCELLED o-2 REJECTED o-1 SHIPPED]"; fmt.Sprint(statuses) != want {
		t.Errorf("%v, want %s", statuses, want)
	}
	for path, want := range map[string]int{
		"/reservations":              http.StatusBadRequest,
		"/reservations?orderId=a||b": http.StatusBadRequest,
		"/reservations?" + strings.Repeat("orderId=a&", 101): http.StatusBadRequest,
		"/reservations?orderId=nobody":                       http.StatusOK,
	} {
		if a := b.call("GET", path, ""); a.Status != want {
			t.Errorf("%s: %d %s, want %d", path, a.Status, a.Body, want)
		}
	}
}

func TestListAskedProducts(t *testing.T) {
	b := start(t, daprtest.SQLLike, 1)
	b.product("cup", 3)
	b.product("pot", 0)
	page := parse[productPage](t, b.call("GET", "/products?ids=pot,ghost,cup,pot&limit=100", "").Body)
	var ids []string
	for _, p := range page.Products {
		ids = append(ids, p.ID)
	}
	if !slices.Equal(ids, []string{"pot", "cup"}) || page.NextCursor != "" {
		t.Errorf("answered %v, nextCursor %q", ids, page.NextCursor)
	}
	empty := b.call("GET", "/products?ids=ghost", "")
	if string(empty.Body) != `{"products":[]}` {
		t.Errorf("answered %s", empty.Body)
	}
}

func TestLedgerPages(t *testing.T) {
	inBothModes(t, 1, func(t *testing.T, b *bench) {
		b.product("cup", 1000)
		const n = 100
		together(n, func(i int) {
			o := order(fmt.Sprintf("o-%d", i), "cup:1")
			b.untilTaken(created(o))
			b.untilTaken(completed(o))
		})
		b.wantCounts("cup", [4]int64{1000, 900, 0, 100})
		for _, size := range []int{1, 31, 32, 33, 100} {
			if got := len(b.ledger("cup", size)); got != 1+2*n {
				t.Errorf("in pages of %d the ledger has %d movements, want %d", size, got, 1+2*n)
			}
		}
		b.audit("cup")
		if tail := parse[product](t, b.State(productKey("cup"))).Ledger.Tail; len(tail) >= 4*ledgerPages("cup").Size {
			t.Errorf("%d movements stand in the product's document", len(tail))
		}
	})
}

func TestBadRequests(t *testing.T) {
	cursor := func(list string, end int) string {
		text, err := json.Marshal(cursor{list, end})
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	product := func(old, new string) string {
		return strings.Replace(`{"name":"Cup","price":{"amount":250,"currency":"EUR"},"lowStockThreshold":2}`, old, new, 1)
	}
	many := strings.Repeat("x,", maxAsked) + "x"
	tests := []struct {
		name, method, path, body string
		header                   []string
		status                   int
		detail                   string // part of what the problem says
	}{
		{"malformed JSON", "PUT", "/products/new", `{"name":`, nil, 400, "JSON"},
		{"no JSON at all", "PUT", "/products/new", `name=Cup`, nil, 400, "JSON"},
		{"two values", "PUT", "/products/new", product("", "") + `{}`, nil, 400, "more after"},
		{"not UTF-8", "PUT", "/products/new", product("Cup", "C\xffp"), nil, 400, "UTF-8"},
		{"another media type", "PUT", "/products/new", product("", ""), []string{"Content-Type", "text/plain"}, 415, "application/json"},
		{"an unknown field", "PUT", "/products/new", product(`"name"`, `"colour":"red","name"`), nil, 400, "colour"},
		{"a name of another type", "PUT", "/products/new", product(`"Cup"`, `7`), nil, 400, "name"},
		{"no name", "PUT", "/products/new", product(`Cup`, ``), nil, 400, "name"},
		{"a name with a line break", "PUT", "/products/new", product(`Cup`, `Cup\r\nBcc: all@example.com`), nil, 400, "name"},
		{"an endless name", "PUT", "/products/new", product(`Cup`, strings.Repeat("x", 201)), nil, 400, "name"},
		{"no price", "PUT", "/products/new", `{"name":"Cup"}`, nil, 400, "price.amount"},
		{"no amount", "PUT", "/products/new", product(`"amount":250,`, ``), nil, 400, "price.amount"},
		{"a negative price", "PUT", "/products/new", product(`250`, `-1`), nil, 400, "price"},
		{"a price with a fraction", "PUT", "/products/new", product(`250`, `2.5`), nil, 400, "amount"},
		{"an absurd price", "PUT", "/products/new", product(`250`, `100000001`), nil, 400, "price"},
		{"a price beyond all numbers", "PUT", "/products/new", product(`250`, `1e99`), nil, 400, "amount"},
		{"no currency", "PUT", "/products/new", product(`EUR`, ``), nil, 400, "currency"},
		{"a currency in words", "PUT", "/products/new", product(`EUR`, `euro`), nil, 400, "currency"},
		{"a negative threshold", "PUT", "/products/new", product(`:2}`, `:-2}`), nil, 400, "lowStockThreshold"},
		{"2 MiB", "PUT", "/products/new", product(`Cup`, strings.Repeat("x", 2<<20)), nil, 413, "65536"},
		{"an id with a state store's separator", "PUT", "/products/" + url.PathEscape("a||b"), product("", ""), nil, 400, "id"},
		{"an id that climbs", "PUT", "/products/" + url.PathEscape("../cup"), product("", ""), nil, 400, "id"},
		{"an id that is a path", "PUT", "/products/" + url.PathEscape("cup/ledger"), product("", ""), nil, 400, "id"},
		{"an endless id", "PUT", "/products/" + strings.Repeat("x", 129), product("", ""), nil, 400, "id"},
		{"an id that begins with a dot", "GET", "/products/.cup", "", nil, 400, "id"},

		{"a receipt of 0", "POST", "/products/cup/receipts", `{"quantity":0}`, nil, 400, "quantity"},
		{"a receipt without a quantity", "POST", "/products/cup/receipts", `{}`, nil, 400, "quantity"},
		{"a negative receipt", "POST", "/products/cup/receipts", `{"quantity":-5}`, nil, 400, "quantity"},
		{"an absurd receipt", "POST", "/products/cup/receipts", `{"quantity":1000000000001}`, nil, 400, "quantity"},
		{"a receipt that makes the sum absurd", "POST", "/products/cup/receipts", `{"quantity":1000000000000}`, nil, 422, "at most"},
		{"a quantity as text", "POST", "/products/cup/receipts", `{"quantity":"5"}`, nil, 400, "quantity"},
		{"an empty key", "POST", "/products/cup/receipts", `{"quantity":5}`, []string{"Idempotency-Key", `""`}, 400, "Idempotency-Key"},
		{"an endless key", "POST", "/products/cup/receipts", `{"quantity":5}`, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, "Idempotency-Key"},
		{"a receipt of an unknown product", "POST", "/products/ghost/receipts", `{"quantity":5}`, nil, 404, "PUT"},

		{"an unknown product", "GET", "/products/ghost", "", nil, 404, "PUT"},
		{"the ledger of an unknown product", "GET", "/products/ghost/ledger", "", nil, 404, "PUT"},
		{"limit 0", "GET", "/products?limit=0", "", nil, 400, "limit"},
		{"limit 101", "GET", "/products?limit=101", "", nil, 400, "limit"},
		{"limit in words", "GET", "/products/cup/ledger?limit=all", "", nil, 400, "limit"},
		{"an unknown parameter", "GET", "/products?page=2", "", nil, 400, "page"},
		{"a parameter twice", "GET", "/products?limit=2&limit=3", "", nil, 400, "limit"},
		{"a query that can't be read", "GET", "/products?limit=%zz", "", nil, 400, "query"},
		{"a cursor that is none", "GET", "/products?cursor=abc", "", nil, 400, "cursor"},
		{"an empty cursor", "GET", "/products?cursor=", "", nil, 400, "cursor"},
		{"a cursor of another list", "GET", "/products?cursor=" + cursor("ledger of cup", 1), "", nil, 400, "cursor"},
		{"a cursor before the beginning", "GET", "/products/cup/ledger?cursor=" + cursor("ledger of cup", -1), "", nil, 400, "cursor"},
		{"no ids", "GET", "/products?ids=", "", nil, 400, "ids"},
		{"a bad id among ids", "GET", "/products?ids=cup,a%7C%7Cb", "", nil, 400, "ids"},
		{"101 ids", "GET", "/products?ids=" + many, "", nil, 400, "100"},
		{"ids and a cursor", "GET", "/products?ids=cup&cursor=" + cursor("products", 1), "", nil, 400, "cursor"},

		{"no route", "GET", "/stock", "", nil, 404, "route"},
		{"no method", "DELETE", "/products/cup", "", nil, 405, "GET"},
		{"no token", "POST", "/events/order-events", `{}`, nil, 401, "dapr-api-token"},
		{"a wrong token", "POST", "/events/order-events", `{}`, []string{"dapr-api-token", "x"}, 401, "dapr-api-token"},
	}
	b := start(t, daprtest.RedisLike, 1)
	b.product("cup", 5)
	keys, state, told := b.Keys(), string(b.State(productKey("cup"))), len(b.Published())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := b.send(tt.method, tt.path, tt.body, tt.header...)
			if tt.status != http.StatusMethodNotAllowed && tt.name != "no route" {
				path := tt.path
				if strings.HasPrefix(path, "/products/") {
					path = "/products/{id}" // an id may look like anything here
					for _, end := range []string{"/receipts", "/ledger"} {
						if p, _, _ := strings.Cut(tt.path, "?"); strings.HasSuffix(p, end) {
							path += end
						}
					}
				}
				b.doc.CheckResponse(t, tt.method, path, a.Status, a.Body)
			}
			p := parse[problem.Problem](t, a.Body)
			if a.Status != tt.status || p.Status != tt.status || a.Header.Get("Content-Type") != problem.ContentType {
				t.Errorf("answered %d %s %s, want a problem with %d", a.Status, a.Header.Get("Content-Type"), a.Body, tt.status)
			}
			if !strings.Contains(p.Detail, tt.detail) {
				t.Errorf("detail is %q, want it to speak of %q", p.Detail, tt.detail)
			}
			if b.Keys("deadletter") != keys || string(b.State(productKey("cup"))) != state {
				t.Errorf("state was changed")
			}
			if n := len(b.Published()); n != told {
				t.Errorf("told %s", b.published(told))
			}
		})
	}
}

func TestBadEvents(t *testing.T) {
	good, err := events.New("order", 1, time.Now(), created(order("o", "cup:3")))
	if err != nil {
		t.Fatal(err)
	}
	event := func(old, new string) string {
		text, err := json.Marshal(good)
		if err != nil {
			t.Fatal(err)
		}
		spoilt := strings.Replace(string(text), old, new, 1)
		if old != "" && spoilt == string(text) {
			t.Fatalf("%q is not in %s", old, text)
		}
		return spoilt
	}
	tests := []struct {
		name, body string
		poison     bool
	}{
		{"not JSON", `{`, true},
		{"not a CloudEvent", `{"orderId":"o"}`, true},
		{"an unknown version", event("/v1", "/v2"), true},
		{"quantity 0", event(`"quantity":3`, `"quantity":0`), true},
		{"a negative quantity", event(`"quantity":3`, `"quantity":-3`), true},
		{"an absurd quantity", event(`"quantity":3`, `"quantity":10001`), true},
		{"no items", event(`"items":[{"id":"cup","quantity":3,"unitPrice":{"amount":250,"currency":"EUR"}}]`, `"items":[]`), true},
		{"an item id with a state store's separator", event(`"id":"cup"`, `"id":"a||b"`), true},
		{"a subject of another order", event(`"subject":"o"`, `"subject":"p"`), true},
		{"an unknown type is of no interest", event(`"type":"ORDER_CREATED"`, `"type":"ORDER_ADMIRED"`), false},
		{"an event of this service is of no interest", event(`"type":"ORDER_CREATED"`, `"type":"STOCK_LOW"`), false},
	}
	b := start(t, daprtest.RedisLike, 1)
	b.product("cup", 5)
	keys, state, told := b.Keys(), string(b.State(productKey("cup"))), len(b.Published())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := b.deliverBytes([]byte(tt.body)); got != "SUCCESS" {
				t.Errorf("verdict %s, want SUCCESS", got)
			}
			if tt.poison {
				all := b.Published()
				p, err := events.Decode(all[len(all)-1])
				if l, ok := p.(events.DeadLetter); err != nil || !ok || l.Service != source || string(l.Original) != tt.body {
					t.Errorf("published %+v (%v), want a dead letter with the event", p, err)
				}
				told++
			}
			if b.Keys("deadletter") != keys || string(b.State(productKey("cup"))) != state || len(b.Published()) != told {
				t.Errorf("something was changed or told: %s", b.published(told))
			}
		})
	}
	// An unknown field is.
	if v := b.deliverBytes([]byte(event(`"orderId"`, `"gift":true,"orderId"`))); v != "SUCCESS" || b.status("o") != "RESERVED" {
		t.Errorf("with an unknown field: %s, the order is %q", v, b.status("o"))
	}
}
