package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dapr "github.com/dapr/go-sdk/client"

	"orderflow/events"
	"orderflow/internal/apitest"
	"orderflow/internal/daprtest"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
	"orderflow/services/inventory/internal/stock"
)

const token = "app-token"

// bench is inventory on a stand-in for its sidecar. Every answer that passes
// through it is held against openapi.yaml.
type bench struct {
	*daprtest.Sidecar
	tb   testing.TB
	doc  *apitest.Doc
	urls []string // of the replicas
	next atomic.Int64
}

// start starts so many replicas, which share the state store.
func start(tb testing.TB, mode daprtest.Mode, replicas int) *bench {
	tb.Helper()
	sidecar, client := daprtest.Start(tb, mode)
	b := &bench{Sidecar: sidecar, tb: tb, doc: apitest.Load(tb, "openapi.yaml")}
	for range replicas {
		p := service(tb, client)
		server := httptest.NewServer(p.Handler())
		b.urls = append(b.urls, server.URL)
		tb.Cleanup(func() {
			server.Close()
			if err := p.Close(context.Background()); err != nil {
				tb.Error(err)
			}
		})
	}
	return b
}

func service(tb testing.TB, client dapr.Client) *process.Process {
	tb.Helper()
	p := process.New(source, slog.New(slog.DiscardHandler), client, "http://127.0.0.1:1", token)
	if err := Setup(p, Config{Now: time.Now}); err != nil {
		tb.Fatal(err)
	}
	return p
}

// inBothModes runs test on either kind of state store.
func inBothModes(t *testing.T, replicas int, test func(*testing.T, *bench)) {
	for name, mode := range map[string]daprtest.Mode{"redis-like": daprtest.RedisLike, "sql-like": daprtest.SQLLike} {
		t.Run(name, func(t *testing.T) { test(t, start(t, mode, replicas)) })
	}
}

// send sends a request to one replica after the other.
func (b *bench) send(method, path, body string, header ...string) apitest.Response {
	b.tb.Helper()
	return apitest.Send(b.tb, method, b.urls[b.next.Add(1)%int64(len(b.urls))]+path, body, header...)
}

// call is send, for a request whose answer must be described.
func (b *bench) call(method, path, body string, header ...string) apitest.Response {
	b.tb.Helper()
	a := b.send(method, path, body, header...)
	b.doc.CheckResponse(b.tb, method, path, a.Status, a.Body)
	return a
}

func parse[T any](tb testing.TB, body []byte) T {
	tb.Helper()
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		tb.Fatalf("%v: %s", err, body)
	}
	return v
}

// product makes a product with so many units and threshold 2.
func (b *bench) product(id string, units int) {
	b.tb.Helper()
	body := fmt.Sprintf(`{"name":"The %s","price":{"amount":250,"currency":"EUR"},"lowStockThreshold":2}`, id)
	if a := b.call("PUT", "/products/"+id, body); a.Status != http.StatusCreated {
		b.tb.Fatalf("making %s: %d %s", id, a.Status, a.Body)
	}
	if units == 0 {
		return
	}
	if a := b.call("POST", "/products/"+id+"/receipts", fmt.Sprintf(`{"quantity":%d}`, units)); a.Status != http.StatusCreated {
		b.tb.Fatalf("receiving %s: %d %s", id, a.Status, a.Body)
	}
}

// counts are a product's received, available, reserved and shipped.
func (b *bench) counts(id string) [4]int64 {
	b.tb.Helper()
	p := parse[productBody](b.tb, b.call("GET", "/products/"+id, "").Body)
	return [4]int64{p.Received, p.Available, p.Reserved, p.Shipped}
}

func (b *bench) wantCounts(id string, want [4]int64) {
	b.tb.Helper()
	if got := b.counts(id); got != want {
		b.tb.Errorf("%s: received, available, reserved, shipped are %v, want %v", id, got, want)
	}
}

// status is what became of the order here.
func (b *bench) status(orderID string) stock.Status {
	b.tb.Helper()
	text := b.State(reservationKey(orderID))
	if text == nil {
		return ""
	}
	return parse[stock.Reservation](b.tb, text).Status
}

// order is an order of one or more lines, "product:quantity".
func order(id string, lines ...string) events.Order {
	o := events.Order{OrderID: id, CustomerID: "ada", Email: "ada@example.com", Total: events.Money{Currency: "EUR"}}
	for _, l := range lines {
		product, quantity, _ := strings.Cut(l, ":")
		n, err := strconv.Atoi(quantity)
		if err != nil {
			panic(err)
		}
		o.Items = append(o.Items, events.Line{ID: product, Quantity: n, UnitPrice: events.Money{Amount: 250, Currency: "EUR"}})
		o.Total.Amount += 250 * int64(n)
	}
	return o
}

func created(o events.Order) events.Payload   { return events.OrderCreated{Order: o} }
func completed(o events.Order) events.Payload { return events.OrderCompleted{Order: o} }
func cancelled(o events.Order) events.Payload {
	return events.OrderCancelled{Order: o, Reason: events.ReasonCustomer}
}

// deliver hands p to the service as its sidecar does, and answers the verdict.
func (b *bench) deliver(p events.Payload) string {
	b.tb.Helper()
	e, err := events.New("order", 1, time.Now(), p)
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
	return b.call("POST", pubsub.Path(events.TopicOrders), string(body), "Content-Type", events.ContentType, "dapr-api-token", token).Verdict(b.tb)
}

// untilTaken delivers p until it is acknowledged, as a sidecar does.
func (b *bench) untilTaken(p events.Payload) {
	b.tb.Helper()
	for range 100 {
		if b.deliver(p) == "SUCCESS" {
			return
		}
	}
	b.tb.Errorf("%s of %s was never taken", p.EventType(), p.EventSubject())
}

// published are the ids of the events published since the first n.
func (b *bench) published(n int) string {
	var ids []string
	for _, e := range b.Published()[n:] {
		ids = append(ids, e.ID)
	}
	return strings.Join(ids, " ")
}

// audit checks a product as any test may leave it: the counts add up, the ledger
// adds up to them, and nothing is held but for the orders in live.
func (b *bench) audit(id string, live ...string) {
	b.tb.Helper()
	var sum [4]int64
	seq := 0
	movements := b.ledger(id, 7)
	slices.Reverse(movements)
	for _, m := range movements {
		if seq++; m.Seq != seq {
			b.tb.Fatalf("%s: after movement %d comes %d", id, seq-1, m.Seq)
		}
		switch m.Kind {
		case stock.KindReceived:
			sum[0], sum[1] = sum[0]+m.Quantity, sum[1]+m.Quantity
		case stock.KindReserved:
			sum[1], sum[2] = sum[1]-m.Quantity, sum[2]+m.Quantity
		case stock.KindReleased:
			sum[1], sum[2] = sum[1]+m.Quantity, sum[2]-m.Quantity
		case stock.KindShipped:
			sum[2], sum[3] = sum[2]-m.Quantity, sum[3]+m.Quantity
		}
	}
	got := b.counts(id)
	if got != sum || got[0] != got[1]+got[2]+got[3] || slices.Min(got[:]) < 0 {
		b.tb.Errorf("%s: the counts are %v, the ledger adds up to %v", id, got, sum)
	}
	for orderID := range parse[product](b.tb, b.State(productKey(id))).Live {
		if !slices.Contains(live, orderID) {
			b.tb.Errorf("%s is still held for %s, which is %q", id, orderID, b.status(orderID))
		}
	}
}

// ledger is the product's whole ledger, newest first, read in pages of so many.
func (b *bench) ledger(id string, size int) []stock.Movement {
	b.tb.Helper()
	var all []stock.Movement
	path := fmt.Sprintf("/products/%s/ledger?limit=%d", id, size)
	for cursor := ""; ; {
		page := parse[struct {
			Movements  []stock.Movement
			NextCursor string
		}](b.tb, b.call("GET", path+cursor, "").Body)
		if len(page.Movements) > size {
			b.tb.Fatalf("a page has %d movements, want at most %d", len(page.Movements), size)
		}
		all = append(all, page.Movements...)
		if page.NextCursor == "" {
			return all
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

func TestRoutesAreDescribed(t *testing.T) {
	_, client := daprtest.Start(t, daprtest.SQLLike)
	p := service(t, client)
	apitest.Load(t, "openapi.yaml").CheckRoutes(t, p.Routes())
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestAnOrdersLife(t *testing.T) {
	tests := []struct {
		name   string
		events []func(events.Order) events.Payload
		lines  []string // cup has 10 units, pot 1, ghost does not exist
		status stock.Status
		cup    [4]int64
		told   string
	}{
		{"reserved", list(created), []string{"cup:3", "pot:1"},
			stock.Reserved, [4]int64{10, 7, 3, 0}, "o:1:INVENTORY_RESERVED"},
		{"a line is short: none is held", list(created), []string{"cup:3", "pot:2"},
			stock.Rejected, [4]int64{10, 10, 0, 0}, "o:1:INVENTORY_REJECTED"},
		{"a product is unknown: none is held", list(created), []string{"cup:3", "ghost:1"},
			stock.Rejected, [4]int64{10, 10, 0, 0}, "o:1:INVENTORY_REJECTED"},
		{"shipped", list(created, completed), []string{"cup:3"},
			stock.Shipped, [4]int64{10, 7, 0, 3}, "o:1:INVENTORY_RESERVED"},
		{"given back", list(created, cancelled), []string{"cup:3"},
			stock.Released, [4]int64{10, 10, 0, 0}, "o:1:INVENTORY_RESERVED o:2:INVENTORY_RELEASED"},
		{"redelivered creation: the same answer", list(created, created, created), []string{"cup:3"},
			stock.Reserved, [4]int64{10, 7, 3, 0}, "o:1:INVENTORY_RESERVED o:1:INVENTORY_RESERVED o:1:INVENTORY_RESERVED"},
		{"redelivered creation of a rejected order", list(created, created), []string{"cup:11"},
			stock.Rejected, [4]int64{10, 10, 0, 0}, "o:1:INVENTORY_REJECTED o:1:INVENTORY_REJECTED"},
		{"redelivered completion", list(created, completed, completed), []string{"cup:3"},
			stock.Shipped, [4]int64{10, 7, 0, 3}, "o:1:INVENTORY_RESERVED"},
		{"creation redelivered after the completion", list(created, completed, created), []string{"cup:3"},
			stock.Shipped, [4]int64{10, 7, 0, 3}, "o:1:INVENTORY_RESERVED o:1:INVENTORY_RESERVED"},
		{"redelivered cancel", list(created, cancelled, cancelled), []string{"cup:3"},
			stock.Released, [4]int64{10, 10, 0, 0}, "o:1:INVENTORY_RESERVED o:2:INVENTORY_RELEASED o:2:INVENTORY_RELEASED"},
		{"creation redelivered after the cancel", list(created, cancelled, created), []string{"cup:3"},
			stock.Released, [4]int64{10, 10, 0, 0}, "o:1:INVENTORY_RESERVED o:2:INVENTORY_RELEASED o:2:INVENTORY_RELEASED"},
		{"the cancel comes first: nothing is held", list(cancelled, created), []string{"cup:3"},
			stock.Cancelled, [4]int64{10, 10, 0, 0}, ""},
		{"cancelled because rejected", list(created, cancelled), []string{"cup:11"},
			stock.Rejected, [4]int64{10, 10, 0, 0}, "o:1:INVENTORY_REJECTED"},
		{"cancelled though shipped: nothing happens", list(created, completed, cancelled), []string{"cup:3"},
			stock.Shipped, [4]int64{10, 7, 0, 3}, "o:1:INVENTORY_RESERVED"},
		{"stock gets low", list(created), []string{"cup:8"},
			stock.Reserved, [4]int64{10, 2, 8, 0}, "o:1:INVENTORY_RESERVED cup:3:STOCK_LOW"},
		{"stock gets low: the notice comes again with the creation", list(created, created), []string{"cup:8"},
			stock.Reserved, [4]int64{10, 2, 8, 0}, "o:1:INVENTORY_RESERVED cup:3:STOCK_LOW o:1:INVENTORY_RESERVED cup:3:STOCK_LOW"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBothModes(t, 1, func(t *testing.T, b *bench) {
				b.product("cup", 10)
				b.product("pot", 1)
				before := len(b.Published())
				o := order("o", tt.lines...)
				for _, event := range tt.events {
					if v := b.deliver(event(o)); v != "SUCCESS" {
						t.Fatalf("verdict %s", v)
					}
				}
				if got := b.status("o"); got != tt.status {
					t.Errorf("the order is %s, want %s", got, tt.status)
				}
				b.wantCounts("cup", tt.cup)
				if got := b.published(before); got != tt.told {
					t.Errorf("told %q, want %q", got, tt.told)
				}
				var live []string
				if tt.status == stock.Reserved {
					live = []string{"o"}
				}
				b.audit("cup", live...)
				b.audit("pot", live...)
			})
		})
	}
}

func list(events ...func(events.Order) events.Payload) []func(events.Order) events.Payload {
	return events
}

func TestARejectionNamesItsShortages(t *testing.T) {
	b := start(t, daprtest.RedisLike, 1)
	b.product("cup", 2)
	b.deliver(created(order("o", "cup:3", "ghost:1")))
	e := b.Published()[len(b.Published())-1]
	p, err := events.Decode(e)
	if err != nil {
		t.Fatal(err)
	}
	want := []events.Shortage{{ID: "cup", Requested: 3, Available: 2}, {ID: "ghost", Requested: 1}}
	if got := p.(events.InventoryRejected).Shortages; !slices.Equal(got, want) {
		t.Errorf("shortages %v, want %v", got, want)
	}
}

func TestManyOrdersOverTheLastUnits(t *testing.T) {
	inBothModes(t, 2, func(t *testing.T, b *bench) {
		b.product("cup", 10)
		together(50, func(i int) { b.untilTaken(created(order(fmt.Sprintf("o-%d", i), "cup:1"))) })
		b.wantCounts("cup", [4]int64{10, 0, 10, 0})
		reserved := map[string]bool{}
		rejected := map[string]bool{}
		low := map[string]bool{}
		for _, e := range b.Published() {
			switch e.Type {
			case events.TypeInventoryReserved:
				reserved[e.Subject] = true
			case events.TypeInventoryRejected:
				rejected[e.Subject] = true
			case events.TypeStockLow:
				low[e.ID] = true
			}
		}
		if len(reserved) != 10 || len(rejected) != 40 || len(low) != 1 {
			t.Errorf("%d were told reserved, %d rejected, %d notices of low stock; want 10, 40, 1", len(reserved), len(rejected), len(low))
		}
	})
}

// together calls f n times at once and waits for all.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// Two replicas get the creation and the cancel, or the creation twice and then
// the completion, of the same orders at the same time, while every third write
// is reported as failed though it was done.
func TestReplicasRaceOverTheSameOrders(t *testing.T) {
	inBothModes(t, 2, func(t *testing.T, b *bench) {
		b.product("cup", 60)
		b.product("pot", 150)
		var calls atomic.Int64
		b.Fail(func(call string) error {
			if strings.HasPrefix(call, "after ") && calls.Add(1)%3 == 0 {
				return errors.New("the answer is lost")
			}
			return nil
		})
		const n = 100
		o := func(i int) events.Order { return order(fmt.Sprintf("o-%d", i), "cup:2", "pot:1") }
		together(2*n, func(i int) {
			if i%2 == 0 {
				b.untilTaken(created(o(i / 2)))
			} else if i%4 == 1 {
				b.untilTaken(cancelled(o(i / 2)))
			} else {
				b.untilTaken(created(o(i / 2)))
			}
		})
		together(n, func(i int) {
			if b.status(o(i).OrderID) == stock.Reserved {
				b.untilTaken(completed(o(i)))
			}
		})
		b.Fail(nil)

		seen := map[stock.Status]int{}
		told := map[string]map[string]bool{}
		for _, e := range b.Published() {
			if told[e.Subject] == nil {
				told[e.Subject] = map[string]bool{}
			}
			told[e.Subject][e.Type] = true
		}
		for i := range n {
			status := b.status(o(i).OrderID)
			seen[status]++
			cancels := i%2 == 0
			want := []stock.Status{stock.Shipped, stock.Rejected}
			if cancels {
				want = []stock.Status{stock.Released, stock.Cancelled, stock.Rejected}
			}
			if !slices.Contains(want, status) {
				t.Errorf("%s is %q, want one of %v", o(i).OrderID, status, want)
			}
			types := told[o(i).OrderID]
			if types[events.TypeInventoryReserved] && types[events.TypeInventoryRejected] {
				t.Errorf("%s was told both", o(i).OrderID)
			}
		}
		t.Logf("%v", seen)
		shipped := int64(seen[stock.Shipped])
		b.wantCounts("cup", [4]int64{60, 60 - 2*shipped, 0, 2 * shipped})
		b.wantCounts("pot", [4]int64{150, 150 - shipped, 0, shipped})
		b.audit("cup")
		b.audit("pot")
	})
}

// One replica's creation has filled the products and is about to write its
// record, when another replica takes the redelivered creation, or the cancel.
func TestAHalfAppliedCreation(t *testing.T) {
	tests := []struct {
		name   string
		other  func(events.Order) events.Payload
		status stock.Status
		cup    [4]int64
		told   string
	}{
		{"and its redelivery", created, stock.Reserved, [4]int64{10, 7, 3, 0}, "o:1:INVENTORY_RESERVED o:1:INVENTORY_RESERVED"},
		{"and a cancel", cancelled, stock.Cancelled, [4]int64{10, 10, 0, 0}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBothModes(t, 2, func(t *testing.T, b *bench) {
				b.product("cup", 10)
				b.product("pot", 10)
				before := len(b.Published())
				o := order("o", "cup:3", "pot:1")
				reached, goOn := b.stopAt("save reservation-o")
				first := make(chan string)
				go func() { first <- b.replica(0).deliver(created(o)) }()
				<-reached
				b.wantCounts("cup", [4]int64{10, 7, 3, 0})
				if b.status("o") != "" {
					t.Fatalf("the order is %s already", b.status("o"))
				}
				if v := b.replica(1).deliver(tt.other(o)); v != "SUCCESS" {
					t.Errorf("verdict %s", v)
				}
				goOn()
				if v := <-first; v != "SUCCESS" {
					t.Errorf("the first one's verdict is %s", v)
				}
				if got := b.status("o"); got != tt.status {
					t.Errorf("the order is %s, want %s", got, tt.status)
				}
				b.wantCounts("cup", tt.cup)
				if got := b.published(before); got != tt.told {
					t.Errorf("told %q, want %q", got, tt.told)
				}
			})
		})
	}
}

// One replica has written that the order's stock is released and may be killed before
// it is. Until somebody has given it back, nobody is told that all is done.
func TestWhatIsBeingGivenBack(t *testing.T) {
	inBothModes(t, 2, func(t *testing.T, b *bench) {
		b.product("cup", 10)
		o := order("o", "cup:3")
		b.deliver(created(o))
		want := func(status stock.Status, givingBack bool) {
			t.Helper()
			got := parse[struct{ Reservations []reservationBody }](t, b.replica(1).call("GET", "/reservations?orderId=o", "").Body).Reservations
			if len(got) != 1 || got[0].Status != status || got[0].GivingBack != givingBack {
				t.Errorf("%+v, want %s, being given back: %t", got, status, givingBack)
			}
		}
		want(stock.Reserved, false)
		reached, goOn := b.stopAt("save product-cup")
		first := make(chan string)
		go func() { first <- b.replica(0).deliver(cancelled(o)) }()
		<-reached
		want(stock.Released, true)
		b.wantCounts("cup", [4]int64{10, 7, 3, 0})
		if v := b.replica(1).deliver(cancelled(o)); v != "SUCCESS" { // to whom it came again
			t.Errorf("verdict %s", v)
		}
		want(stock.Released, false)
		b.wantCounts("cup", [4]int64{10, 10, 0, 0})
		goOn()
		if v := <-first; v != "SUCCESS" {
			t.Errorf("the first one's verdict is %s", v)
		}
		want(stock.Released, false)
		b.wantCounts("cup", [4]int64{10, 10, 0, 0})
	})
}

// replica is the bench with no other replica than that one.
func (b *bench) replica(i int) *bench {
	return &bench{Sidecar: b.Sidecar, tb: b.tb, doc: b.doc, urls: b.urls[i : i+1]}
}

// stopAt has the first such call wait until goOn is called; reached is closed
// when it has come.
func (b *bench) stopAt(name string) (reached <-chan struct{}, goOn func()) {
	come, leave := make(chan struct{}), make(chan struct{})
	var stopped atomic.Bool
	b.Fail(func(call string) error {
		if call == name && stopped.CompareAndSwap(false, true) {
			close(come)
			<-leave
		}
		return nil
	})
	return come, func() { close(leave) }
}

func TestAnAnswerThatIsNotPublishedComesAgain(t *testing.T) {
	b := start(t, daprtest.RedisLike, 1)
	b.product("cup", 10)
	before := len(b.Published())
	b.Fail(func(call string) error {
		if strings.Contains(call, "Publish") {
			return errors.New("the broker is down")
		}
		return nil
	})
	o := order("o", "cup:8")
	if v := b.deliver(created(o)); v != "RETRY" {
		t.Fatalf("verdict %s, want RETRY", v)
	}
	b.Fail(nil)
	if v := b.deliver(created(o)); v != "SUCCESS" {
		t.Fatalf("verdict %s", v)
	}
	if got := b.published(before); got != "o:1:INVENTORY_RESERVED cup:3:STOCK_LOW" {
		t.Errorf("told %q", got)
	}
	b.wantCounts("cup", [4]int64{10, 2, 8, 0})
}
