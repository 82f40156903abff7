package order

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"orderflow/events"
	"orderflow/internal/apitest"
	"orderflow/internal/daprtest"
	"orderflow/internal/problem"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
	"orderflow/services/order/internal/order"
)

const token = "app-token"

// bench is one order service on a stand-in for its sidecar, with an inventory
// that knows the products of catalogue.
type bench struct {
	*daprtest.Sidecar
	tb        testing.TB
	service   *Service
	url       string
	routes    []string
	doc       *apitest.Doc
	catalogue sync.Map // product id → price
	asked     atomic.Int32
}

func start(tb testing.TB, mode daprtest.Mode) *bench { return startAt(tb, mode, time.Now) }

func startAt(tb testing.TB, mode daprtest.Mode, now func() time.Time) *bench {
	tb.Helper()
	sidecar, client := daprtest.Start(tb, mode)
	b := &bench{Sidecar: sidecar, tb: tb, doc: apitest.Load(tb, "openapi.yaml")}
	b.catalogue.Store("teapot", price{Price: events.Money{Amount: 1500, Currency: "EUR"}, Version: 1})
	b.catalogue.Store("cup", price{Price: events.Money{Amount: 250, Currency: "EUR"}, Version: 1})
	b.catalogue.Store("mug-us", price{Price: events.Money{Amount: 300, Currency: "USD"}, Version: 1})
	sidecar.Invoke(b.invoke)
	p := process.New(source, slog.New(slog.DiscardHandler), client, "http://127.0.0.1:1", token)
	b.service = New(p, Config{Timeout: time.Hour, SweepAfter: time.Hour, SweepEvery: time.Hour, ArchiveDir: tb.TempDir(), Now: now})
	server := httptest.NewServer(p.Handler())
	b.url, b.routes = server.URL, p.Routes()
	tb.Cleanup(func() {
		server.Close()
		if err := p.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return b
}

// invoke is inventory: GET products?ids=…
func (b *bench) invoke(appID, method string) ([]byte, error) {
	b.asked.Add(1)
	u, err := url.Parse(method)
	if err != nil || appID != "inventory" || u.Path != "products" {
		return nil, status.Errorf(codes.NotFound, "%s %s", appID, method)
	}
	products := []map[string]any{}
	for _, id := range strings.Split(u.Query().Get("ids"), ",") {
		if p, ok := b.catalogue.Load(id); ok {
			products = append(products, map[string]any{"id": id, "price": p.(price).Price, "version": p.(price).Version})
		}
	}
	return json.Marshal(map[string]any{"products": products})
}

func (b *bench) send(method, path, body string, header ...string) apitest.Response {
	b.tb.Helper()
	a := apitest.Send(b.tb, method, b.url+path, body, header...)
	if a.Status != http.StatusNotFound && a.Status != http.StatusMethodNotAllowed { // of no operation
		b.doc.CheckResponse(b.tb, method, path, a.Status, a.Body)
	}
	return a
}

func (b *bench) order(a apitest.Response) order.Order {
	b.tb.Helper()
	var o order.Order
	if err := json.Unmarshal(a.Body, &o); err != nil || o.OrderID == "" {
		b.tb.Fatalf("%d %s: %v", a.Status, a.Body, err)
	}
	return o
}

const basket = `{"customerId":"ada","email":"ada@example.com","items":[{"id":"teapot","quantity":2},{"id":"cup","quantity":1}]}`

func (b *bench) place(header ...string) order.Order {
	b.tb.Helper()
	a := b.send("POST", "/orders", basket, header...)
	if a.Status != http.StatusAccepted {
		b.tb.Fatalf("placing: %d %s", a.Status, a.Body)
	}
	return b.order(a)
}

// deliver hands p to the service as its sidecar does, and answers the verdict.
func (b *bench) deliver(p events.Payload) string {
	b.tb.Helper()
	e, err := events.New("inventory", 1, time.Now(), p)
	if err != nil {
		b.tb.Fatal(err)
	}
	body, err := json.Marshal(e)
	if err != nil {
		b.tb.Fatal(err)
	}
	return b.deliverBytes(body)
}

func (b *bench) deliverBytes(body []byte) string {
	b.tb.Helper()
	return b.send("POST", pubsub.Path(events.TopicInventory), string(body), "Content-Type", events.ContentType, "dapr-api-token", token).Verdict(b.tb)
}

// eventually waits until check is nil.
func (b *bench) eventually(check func() error) {
	b.tb.Helper()
	deadline := time.After(5 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			b.tb.Fatal(err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// publishes waits until exactly the events of these ids were published, each at
// least once.
func (b *bench) publishes(ids ...string) {
	b.tb.Helper()
	b.eventually(func() error {
		seen := map[string]bool{}
		for _, e := range b.Published() {
			seen[e.ID] = true
		}
		for _, id := range ids {
			if !seen[id] {
				return fmt.Errorf("%s was not published; published were %v", id, seen)
			}
		}
		if len(seen) != len(ids) {
			return fmt.Errorf("published were %v, want %v", seen, ids)
		}
		return nil
	})
}

func reservation(o order.Order) events.Reservation {
	return events.Reservation{OrderID: o.OrderID, Items: o.Quantities()}
}

// inBothModes runs test on either kind of state store.
func inBothModes(t *testing.T, test func(*testing.T, *bench)) {
	for name, mode := range map[string]daprtest.Mode{"redis-like": daprtest.RedisLike, "sql-like": daprtest.SQLLike} {
		t.Run(name, func(t *testing.T) { test(t, start(t, mode)) })
	}
}

func TestAnOrderIsPlacedAndCompleted(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		a := b.send("POST", "/orders", basket)
		o := b.order(a)
		if a.Status != http.StatusAccepted || a.Header.Get("Location") != "/orders/"+o.OrderID {
			t.Errorf("answered %d, Location %q", a.Status, a.Header.Get("Location"))
		}
		if o.Status != order.Pending || o.Total != (events.Money{Amount: 3250, Currency: "EUR"}) {
			t.Errorf("placed as %+v", o)
		}
		b.publishes(o.OrderID + ":1:ORDER_CREATED")

		if v := b.deliver(events.InventoryReserved{Reservation: reservation(o)}); v != "SUCCESS" {
			t.Fatalf("verdict %s", v)
		}
		b.publishes(o.OrderID+":1:ORDER_CREATED", o.OrderID+":2:ORDER_COMPLETED")
		got := b.order(b.send("GET", "/orders/"+o.OrderID, ""))
		if got.Status != order.Completed || got.Version != 2 {
			t.Errorf("is %s, version %d", got.Status, got.Version)
		}
		var history struct{ Events []events.Event }
		if err := json.Unmarshal(b.send("GET", "/orders/"+o.OrderID+"/events", "").Body, &history); err != nil {
			t.Fatal(err)
		}
		if folded, err := order.Fold(history.Events); err != nil || folded.Status != got.Status || folded.Version != got.Version {
			t.Errorf("the history folds to %+v, %v", folded, err)
		}
	})
}

func TestAnswersOfInventory(t *testing.T) {
	short := []events.Shortage{{ID: "cup", Requested: 1}}
	tests := []struct {
		name   string
		answer func(order.Order) []events.Payload
		want   order.Status
		reason string
		ids    []string // published beyond the creation, without the order's id
	}{
		{"a rejection cancels",
			func(o order.Order) []events.Payload {
				return []events.Payload{events.InventoryRejected{OrderID: o.OrderID, Shortages: short}}
			}, order.Cancelled, "REJECTED", []string{":2:ORDER_CANCELLED"}},
		{"a redelivered reservation completes once",
			func(o order.Order) []events.Payload {
				r := events.InventoryReserved{Reservation: reservation(o)}
				return []events.Payload{r, r, r}
			}, order.Completed, "", []string{":2:ORDER_COMPLETED"}},
		{"a redelivered rejection cancels once",
			func(o order.Order) []events.Payload {
				r := events.InventoryRejected{OrderID: o.OrderID, Shortages: short}
				return []events.Payload{r, r}
			}, order.Cancelled, "REJECTED", []string{":2:ORDER_CANCELLED"}},
		{"what inventory gives back is no news to the order",
			func(o order.Order) []events.Payload {
				return []events.Payload{events.InventoryReleased{Reservation: reservation(o)}}
			}, order.Pending, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBothModes(t, func(t *testing.T, b *bench) {
				o := b.place()
				for _, p := range tt.answer(o) {
					if v := b.deliver(p); v != "SUCCESS" {
						t.Fatalf("%T: verdict %s", p, v)
					}
				}
				got := b.order(b.send("GET", "/orders/"+o.OrderID, ""))
				if got.Status != tt.want || got.Reason != tt.reason {
					t.Errorf("is %s %s, want %s %s", got.Status, got.Reason, tt.want, tt.reason)
				}
				ids := []string{o.OrderID + ":1:ORDER_CREATED"}
				for _, id := range tt.ids {
					ids = append(ids, o.OrderID+id)
				}
				b.publishes(ids...)
			})
		})
	}
}

// A reservation that comes after the cancel does not complete the order; it has
// the cancel told again, so that inventory gives the stock back.
func TestACompletionNeverFollowsACancel(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		o := b.place()
		if a := b.send("POST", "/orders/"+o.OrderID+"/cancel", ""); a.Status != http.StatusOK || b.order(a).Reason != "CUSTOMER" {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		b.publishes(o.OrderID+":1:ORDER_CREATED", o.OrderID+":2:ORDER_CANCELLED")
		before := len(b.Published())
		if v := b.deliver(events.InventoryReserved{Reservation: reservation(o)}); v != "SUCCESS" {
			t.Fatalf("verdict %s", v)
		}
		told := b.Published()[before:]
		if len(told) != 1 || told[0].ID != o.OrderID+":2:ORDER_CANCELLED" {
			t.Errorf("told %v, want the cancel again", told)
		}
		if a := b.send("POST", "/orders/"+o.OrderID+"/cancel", ""); a.Status != http.StatusOK {
			t.Errorf("cancelling again: %d %s", a.Status, a.Body)
		}
	})
}

func TestACompletedOrderIsNotCancelled(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	o := b.place()
	b.deliver(events.InventoryReserved{Reservation: reservation(o)})
	if a := b.send("POST", "/orders/"+o.OrderID+"/cancel", ""); a.Status != http.StatusConflict {
		t.Errorf("answered %d %s", a.Status, a.Body)
	}
}

func TestPoison(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	o := b.place()
	b.deliver(events.InventoryReserved{Reservation: reservation(o)})
	b.publishes(o.OrderID+":1:ORDER_CREATED", o.OrderID+":2:ORDER_COMPLETED")
	ghost := events.Reservation{OrderID: "ghost", Items: o.Quantities()}
	for name, p := range map[string]events.Payload{
		"an order that does not exist":      events.InventoryReserved{Reservation: ghost},
		"a rejection of a completed order":  events.InventoryRejected{OrderID: o.OrderID, Shortages: []events.Shortage{{ID: "cup", Requested: 1}}},
		"a rejection of nobody's the order": events.InventoryRejected{OrderID: "ghost", Shortages: []events.Shortage{{ID: "cup", Requested: 1}}},
	} {
		if v := b.deliver(p); v != "SUCCESS" {
			t.Errorf("%s: verdict %s, want SUCCESS", name, v)
		}
		b.gaveUp(events.CauseContradiction, p.EventSubject())
	}
	if v := b.deliverBytes([]byte(`{"specversion":"1.0","id":"1","source":"x","type":"INVENTORY_RESERVED","data":{"orderId":7}}`)); v != "SUCCESS" {
		t.Errorf("undecodable: verdict %s, want SUCCESS", v)
	}
	b.gaveUp(events.CauseUndecodable, "")
}

// gaveUp wants a dead letter to be what was published last.
func (b *bench) gaveUp(cause, subject string) {
	b.tb.Helper()
	all := b.Published()
	p, err := events.Decode(all[len(all)-1])
	if l, ok := p.(events.DeadLetter); err != nil || !ok || l.Cause != cause || l.Event.Subject != subject || l.Service != source {
		b.tb.Errorf("published %+v (%v), want a dead letter about %q because of %s", p, err, subject, cause)
	}
}

// What can't be stored or published now comes again.
func TestTransientTroubleIsRetried(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	o := b.place()
	b.publishes(o.OrderID + ":1:ORDER_CREATED")
	b.Fail(func(call string) error {
		if call == "PublishEvent" {
			return status.Error(codes.Unavailable, "the broker is down")
		}
		return nil
	})
	if v := b.deliver(events.InventoryReserved{Reservation: reservation(o)}); v != "RETRY" {
		t.Errorf("broker down: verdict %s, want RETRY", v)
	}
	b.Fail(nil)
	if v := b.deliver(events.InventoryReserved{Reservation: reservation(o)}); v != "SUCCESS" {
		t.Errorf("broker back: verdict %s, want SUCCESS", v)
	}
	b.publishes(o.OrderID+":1:ORDER_CREATED", o.OrderID+":2:ORDER_COMPLETED")
}

func TestEventsNeedTheToken(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	for _, header := range [][]string{nil, {"dapr-api-token", "wrong"}} {
		a := b.send("POST", pubsub.Path(events.TopicInventory), "{}", header...)
		if a.Status != http.StatusUnauthorized || a.Header.Get("Content-Type") != problem.ContentType {
			t.Errorf("%v: %d %s", header, a.Status, a.Body)
		}
	}
}

func TestOneKeyIsOneOrder(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		const clients = 20
		answers := make([]apitest.Response, clients)
		var group sync.WaitGroup
		for i := range answers {
			group.Go(func() { answers[i] = b.send("POST", "/orders", basket, "Idempotency-Key", `"k-1"`) })
		}
		group.Wait()
		for _, a := range answers {
			if a.Status != answers[0].Status || !bytes.Equal(a.Body, answers[0].Body) {
				t.Errorf("answers differ: %d %s and %d %s", a.Status, a.Body, answers[0].Status, answers[0].Body)
			}
		}
		o := b.order(answers[0])
		b.publishes(o.OrderID + ":1:ORDER_CREATED")
		if list := b.list(t, "/orders"); len(list) != 1 {
			t.Errorf("%d orders, want 1", len(list))
		}
		// Whatever becomes of the order, the request is answered the same.
		b.deliver(events.InventoryReserved{Reservation: reservation(o)})
		if a := b.send("POST", "/orders", " "+basket, "Idempotency-Key", "k-1"); !bytes.Equal(a.Body, answers[0].Body) {
			t.Errorf("later answer %s, want %s", a.Body, answers[0].Body)
		}
		keys := b.Keys()
		if a := b.send("POST", "/orders", strings.Replace(basket, "2", "3", 1), "Idempotency-Key", "k-1"); a.Status != http.StatusUnprocessableEntity {
			t.Errorf("another body: %d %s", a.Status, a.Body)
		}
		if b.Keys() != keys {
			t.Error("the refused request left state")
		}
	})
}

func (b *bench) list(t *testing.T, path string) []order.Order {
	t.Helper()
	var list struct {
		Orders     []order.Order `json:"orders"`
		NextCursor string        `json:"nextCursor"`
	}
	a := b.send("GET", path, "")
	if err := json.Unmarshal(a.Body, &list); err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if list.NextCursor == "" {
		return list.Orders
	}
	u, err := url.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("cursor", list.NextCursor)
	return append(list.Orders, b.list(t, u.Path+"?"+q.Encode())...)
}

func TestListing(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	const n = 3*pageSize + 5 // into the pages behind the index
	var ids []string
	for i := range n {
		customer := "ada"
		if i%10 == 0 {
			customer = "bob"
		}
		o := b.order(b.send("POST", "/orders", strings.Replace(basket, "ada", customer, 1)))
		ids = append(ids, o.OrderID)
		if i%20 == 0 {
			b.send("POST", "/orders/"+o.OrderID+"/cancel", "")
		}
	}
	got := b.list(t, "/orders?limit=17")
	if len(got) != n {
		t.Fatalf("%d orders, want %d", len(got), n)
	}
	for i, o := range got {
		if o.OrderID != ids[n-1-i] {
			t.Fatalf("order %d is %s, want %s: the newest first, none twice", i, o.OrderID, ids[n-1-i])
		}
	}
	if got := b.list(t, "/orders?customerId=bob&limit=3"); len(got) != (n+9)/10 {
		t.Errorf("%d orders of bob, want %d", len(got), (n+9)/10)
	}
	if got := b.list(t, "/orders?status=CANCELLED&limit=2"); len(got) != (n+19)/20 {
		t.Errorf("%d cancelled orders, want %d", len(got), (n+19)/20)
	}
	if got := b.list(t, "/orders?customerId=nobody"); len(got) != 0 {
		t.Errorf("%d orders of nobody", len(got))
	}
}

func TestPrices(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	first := b.place()
	b.place()
	if n := b.asked.Load(); n != 1 {
		t.Errorf("inventory was asked %d times for two orders of the same products, want once", n)
	}
	b.catalogue.Store("teapot", price{Price: events.Money{Amount: 2000, Currency: "EUR"}, Version: 2})
	if o := b.place(); o.Total != first.Total {
		t.Errorf("total %v before the price was announced, want %v", o.Total, first.Total)
	}
	if v := b.deliver(events.PriceUpdated{ProductID: "teapot"}); v != "SUCCESS" {
		t.Fatalf("verdict %s", v)
	}
	if o := b.place(); o.Total.Amount != 4250 {
		t.Errorf("total %v after the price was announced, want 4250", o.Total)
	}
	if o := b.order(b.send("GET", "/orders/"+first.OrderID, "")); o.Total != first.Total {
		t.Errorf("the total of a placed order moved to %v", o.Total)
	}
	b.catalogue.Store("teapot", price{Price: events.Money{Amount: 1, Currency: "EUR"}, Version: 1})
	b.deliver(events.PriceUpdated{ProductID: "teapot"})
	if o := b.place(); o.Total.Amount != 4250 {
		t.Errorf("total %v: an older price took the place of a newer one", o.Total)
	}
}

// A price that nobody confirmed for a while is asked for again: the notice of a new
// one may have been lost. Without an answer the old one is good.
func TestOldPrices(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	var moved atomic.Int64
	b := startAt(t, daprtest.RedisLike, func() time.Time { return now.Add(time.Duration(moved.Load())) })
	first := b.place()
	b.catalogue.Store("teapot", price{Price: events.Money{Amount: 2000, Currency: "EUR"}, Version: 2})
	moved.Store(int64(priceKeeps))
	if o := b.place(); o.Total != first.Total {
		t.Errorf("total %v while the price is young, want %v", o.Total, first.Total)
	}
	moved.Add(int64(time.Second))
	b.Invoke(func(string, string) ([]byte, error) { return nil, status.Error(codes.Unavailable, "no inventory") })
	if o := b.place(); o.Total != first.Total {
		t.Errorf("total %v while inventory is down, want %v", o.Total, first.Total)
	}
	b.Invoke(b.invoke)
	if o := b.place(); o.Total.Amount != 4250 {
		t.Errorf("total %v with the price asked for again, want 4250", o.Total)
	}
}

func TestInventoryDown(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	b.Invoke(func(string, string) ([]byte, error) { return nil, status.Error(codes.Unavailable, "no inventory") })
	a := b.send("POST", "/orders", basket)
	if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.Header.Get("Content-Type") != problem.ContentType {
		t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
	}
	if v := b.deliver(events.PriceUpdated{ProductID: "teapot"}); v != "RETRY" {
		t.Errorf("verdict %s, want RETRY", v)
	}
}

func TestWait(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	got := make(chan apitest.Response)
	go func() { got <- b.send("POST", "/orders", basket, "Prefer", "wait=30", "Idempotency-Key", "waited") }()
	var o order.Order
	b.eventually(func() error {
		list := b.list(t, "/orders")
		if len(list) == 0 {
			return errors.New("no order yet")
		}
		o = list[0]
		return nil
	})
	b.deliver(events.InventoryReserved{Reservation: reservation(o)})
	a := <-got
	if a.Status != http.StatusCreated || a.Header.Get("Preference-Applied") != "wait=30" || b.order(a).Status != order.Completed {
		t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
	}
	a = b.send("POST", "/orders", basket, "Prefer", "wait=0")
	if a.Status != http.StatusAccepted || b.order(a).Status != order.Pending {
		t.Errorf("wait=0: %d %s", a.Status, a.Body)
	}
	if a = b.send("POST", "/orders", basket, "Prefer", "wait=soon"); a.Status != http.StatusAccepted || a.Header.Get("Preference-Applied") != "" {
		t.Errorf("a preference that can't be understood: %d %v", a.Status, a.Header)
	}
}

// An order is placed once even if the store fails after it has written.
func TestHalfWritten(t *testing.T) {
	for _, call := range []string{"after SaveState", "after ExecuteStateTransaction", "SaveState", "ExecuteStateTransaction"} {
		t.Run(call, func(t *testing.T) {
			inBothModes(t, func(t *testing.T, b *bench) {
				b.place() // the indexes exist from here on
				var failed atomic.Int32
				b.Fail(func(c string) error {
					if c == call && failed.Add(1) <= 2 {
						return status.Error(codes.Unavailable, "connection reset")
					}
					return nil
				})
				o := b.place()
				if failed.Load() == 0 {
					t.Fatal("nothing failed")
				}
				list := b.list(t, "/orders?customerId=ada")
				if len(list) != 2 || list[0].OrderID != o.OrderID || len(b.list(t, "/orders")) != 2 {
					t.Errorf("listed are %d orders, want 2", len(list))
				}
			})
		})
	}
}

func TestRoutesAreDescribed(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	b.doc.CheckRoutes(t, b.routes)
}

func TestBadInput(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	o := b.place()
	b.publishes(o.OrderID + ":1:ORDER_CREATED")
	with := func(old, new string) string { return strings.Replace(basket, old, new, 1) }
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf(`{"id":"p%d","quantity":1}`, i)
	}
	items := `[{"id":"teapot","quantity":2},{"id":"cup","quantity":1}]`
	tests := []struct {
		name, method, path, body string
		header                   []string
		status                   int
		says                     string
	}{
		{"malformed JSON", "POST", "/orders", `{"customerId":`, nil, 400, "JSON"},
		{"no body", "POST", "/orders", "", []string{"Content-Type", "application/json"}, 400, "JSON"},
		{"an array", "POST", "/orders", "[]", nil, 400, "JSON"},
		{"two values", "POST", "/orders", basket + basket, nil, 400, "after the object"},
		{"a number as customer", "POST", "/orders", with(`"ada"`, `7`), nil, 400, "customerId"},
		{"a string as quantity", "POST", "/orders", with(`2`, `"2"`), nil, 400, "quantity"},
		{"an unknown field", "POST", "/orders", with(`{`, `{"coupon":"x",`), nil, 400, "coupon"},
		{"an unknown field in an item", "POST", "/orders", with(`"quantity":2`, `"quantity":2,"price":1`), nil, 400, "price"},
		{"not UTF-8", "POST", "/orders", with(`ada`, "\xff"), nil, 400, "UTF-8"},
		{"another content type", "POST", "/orders", basket, []string{"Content-Type", "text/plain"}, 415, "application/json"},
		{"2 MiB", "POST", "/orders", with(`{`, "{"+strings.Repeat(" ", 2<<20)), nil, 413, "1048576 bytes"},
		{"no items", "POST", "/orders", with(items, `[]`), nil, 400, "items"},
		{"items missing", "POST", "/orders", with(`,"items":`+items, ``), nil, 400, "items"},
		{"1,000 items", "POST", "/orders", with(items, "["+strings.Join(many, ",")+"]"), nil, 400, "999"},
		{"quantity 0", "POST", "/orders", with(`"quantity":2`, `"quantity":0`), nil, 400, "quantity"},
		{"a negative quantity", "POST", "/orders", with(`"quantity":2`, `"quantity":-2`), nil, 400, "quantity"},
		{"an absurd quantity", "POST", "/orders", with(`"quantity":2`, `"quantity":10001`), nil, 400, "10000"},
		{"a quantity beyond int64", "POST", "/orders", with(`"quantity":2`, `"quantity":99999999999999999999`), nil, 400, "quantity"},
		{"half a teapot", "POST", "/orders", with(`"quantity":2`, `"quantity":0.5`), nil, 400, "quantity"},
		{"the same product twice", "POST", "/orders", with(`"cup"`, `"teapot"`), nil, 400, "teapot"},
		{"an empty product id", "POST", "/orders", with(`"cup"`, `""`), nil, 400, "id is empty"},
		{"a product id with ||", "POST", "/orders", with(`"cup"`, `"a||b"`), nil, 400, "items[1]"},
		{"a customer id with a path", "POST", "/orders", with(`"ada"`, `"../ada"`), nil, 400, "customerId"},
		{"a customer id of 129 characters", "POST", "/orders", with(`"ada"`, `"`+strings.Repeat("a", 129)+`"`), nil, 400, "128"},
		{"no e-mail", "POST", "/orders", with(`"ada@example.com"`, `""`), nil, 400, "email"},
		{"a bad e-mail", "POST", "/orders", with(`ada@example.com`, `ada`), nil, 400, "email"},
		{"an e-mail with a name", "POST", "/orders", with(`ada@example.com`, `Ada <ada@example.com>`), nil, 400, "email"},
		{"two e-mails", "POST", "/orders", with(`ada@example.com`, `ada@example.com, eve@example.com`), nil, 400, "email"},
		{"a header injected in the e-mail", "POST", "/orders", with(`ada@example.com`, `ada@example.com\r\nBcc: eve@example.com`), nil, 400, "email"},
		{"an unknown product", "POST", "/orders", with(`"cup"`, `"unicorn"`), nil, 422, "unicorn"},
		{"two currencies", "POST", "/orders", with(`"cup"`, `"mug-us"`), nil, 422, "currenc"},
		{"an empty idempotency key", "POST", "/orders", basket, []string{"Idempotency-Key", `""`}, 400, "Idempotency-Key"},
		{"an idempotency key of 256 characters", "POST", "/orders", basket, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, "Idempotency-Key"},
		{"an unknown order", "GET", "/orders/nobody", "", nil, 404, "id"},
		{"the history of an unknown order", "GET", "/orders/nobody/events", "", nil, 404, "id"},
		{"cancelling an unknown order", "POST", "/orders/nobody/cancel", "", nil, 404, "id"},
		{"an order id with ||", "GET", "/orders/a%7C%7Cb", "", nil, 400, "order id"},
		{"an order id that climbs", "GET", "/orders/..%2F..%2Fetc", "", nil, 400, "order id"},
		{"an order before it was there", "GET", "/orders/" + o.OrderID + "?asOf=2001-01-01T00:00:00Z", "", nil, 404, "at the time"},
		{"an order at a version that it has not", "GET", "/orders/" + o.OrderID + "?asOf=2", "", nil, 404, "version"},
		{"an order at version 0", "GET", "/orders/" + o.OrderID + "?asOf=0", "", nil, 400, "asOf"},
		{"an order at no time", "GET", "/orders/" + o.OrderID + "?asOf=yesterday", "", nil, 400, "asOf"},
		{"an order at two times", "GET", "/orders/" + o.OrderID + "?asOf=1&asOf=2", "", nil, 400, "asOf"},
		{"an order with another parameter", "GET", "/orders/" + o.OrderID + "?asof=1", "", nil, 400, "asOf"},
		{"an order id with a null", "GET", "/orders/a%00", "", nil, 400, "order id"},
		{"a path beside the routes", "GET", "/orders/x/../../events", "", nil, 404, "path"},
		{"a method that a route has not", "DELETE", "/orders", "", nil, 405, "GET"},
		{"a cursor that is none", "GET", "/orders?cursor=!!", "", nil, 400, "cursor"},
		{"a cursor that is not JSON", "GET", "/orders?cursor=AAAA", "", nil, 400, "cursor"},
		{"a cursor of another listing", "GET", "/orders?customerId=bob&cursor=" + newCursor(allOrders, 1), "", nil, 400, "cursor"},
		{"a negative cursor", "GET", "/orders?cursor=" + newCursor(allOrders, -1), "", nil, 400, "cursor"},
		{"limit 0", "GET", "/orders?limit=0", "", nil, 400, "limit"},
		{"limit 101", "GET", "/orders?limit=101", "", nil, 400, "limit"},
		{"a limit that is no number", "GET", "/orders?limit=many", "", nil, 400, "limit"},
		{"an unknown status", "GET", "/orders?status=LOST", "", nil, 400, "status"},
		{"an unknown parameter", "GET", "/orders?customer=ada", "", nil, 400, "customer"},
		{"a customer with ||", "GET", "/orders?customerId=a%7C%7Cb", "", nil, 400, "customerId"},
	}
	b.send("POST", "/orders", with("cup", "mug-us")) // has the prices learned, which is state too
	keys, published := b.Keys(), len(b.Published())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := b.send(tt.method, tt.path, tt.body, tt.header...)
			if a.Status != tt.status || a.Header.Get("Content-Type") != problem.ContentType {
				t.Fatalf("answered %d %s %s, want %d", a.Status, a.Header.Get("Content-Type"), a.Body, tt.status)
			}
			var p problem.Problem
			if err := json.Unmarshal(a.Body, &p); err != nil || p.Status != tt.status || p.Type == "" || p.Title == "" {
				t.Errorf("%s is no problem: %v", a.Body, err)
			}
			if !strings.Contains(p.Detail, tt.says) {
				t.Errorf("detail %q does not say %q", p.Detail, tt.says)
			}
			if b.Keys() != keys || len(b.Published()) != published {
				t.Errorf("left %d keys and %d events, before %d and %d", b.Keys(), len(b.Published()), keys, published)
			}
		})
	}
}
