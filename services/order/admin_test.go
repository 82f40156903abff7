package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/internal/apitest"
	"orderflow/internal/daprtest"
	"orderflow/services/order/internal/order"
)

// complete has inventory answer well for the order.
func (b *bench) complete(o order.Order) {
	b.tb.Helper()
	held := events.InventoryReserved{Reservation: events.Reservation{OrderID: o.OrderID, Items: o.Quantities()}}
	if v := b.deliver(held); v != "SUCCESS" {
		b.tb.Fatalf("verdict %s", v)
	}
}

func TestAnOrderAsItWas(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		placed := b.place()
		b.complete(placed)
		ended := b.order(b.send("GET", "/orders/"+placed.OrderID, ""))
		for _, tt := range []struct {
			name, asOf string
			status     order.Status
		}{
			{"version 1", "1", order.Pending},
			{"version 2", "2", order.Completed},
			{"the moment of placing", placed.CreatedAt.Format(time.RFC3339Nano), order.Pending},
			{"just before the end", ended.UpdatedAt.Add(-1).Format(time.RFC3339Nano), order.Pending},
			{"the end", ended.UpdatedAt.Format(time.RFC3339Nano), order.Completed},
			{"the end, in another zone", ended.UpdatedAt.In(time.FixedZone("", 7200)).Format(time.RFC3339Nano), order.Completed},
			{"what is to come", "2999-01-01T00:00:00Z", order.Completed},
		} {
			a := b.send("GET", "/orders/"+placed.OrderID+"?asOf="+url.QueryEscape(tt.asOf), "")
			if o := b.order(a); a.Status != http.StatusOK || o.Status != tt.status {
				t.Errorf("%s: %d %s, want %s", tt.name, a.Status, a.Body, tt.status)
			}
		}
	})
}

// admin sends a request as an operator does.
func (b *bench) admin(path, body string) apitest.Response {
	b.tb.Helper()
	return b.send("POST", path, body, "dapr-api-token", token)
}

// replays sends a request for a replay, again and again with the cursor, and
// answers all that was done and how many requests it took.
func (b *bench) replays(r replay) (all replayed, requests int) {
	b.tb.Helper()
	for {
		body, err := json.Marshal(r)
		if err != nil {
			b.tb.Fatal(err)
		}
		a := b.admin("/admin/replay", string(body))
		var part replayed
		if err := json.Unmarshal(a.Body, &part); err != nil || a.Status != http.StatusOK {
			b.tb.Fatalf("%d %s", a.Status, a.Body)
		}
		requests++
		all.OrderIDs, all.Missing = append(all.OrderIDs, part.OrderIDs...), append(all.Missing, part.Missing...)
		all.Events += part.Events
		if r.Cursor = part.NextCursor; r.Cursor == "" {
			return all, requests
		}
	}
}

func ids(evs []events.Event) []string {
	var ids []string
	for _, e := range evs {
		ids = append(ids, e.ID)
	}
	return ids
}

func TestNamedOrdersAreReplayed(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		ended, placed := b.place(), b.place()
		b.complete(ended)
		b.publishes(ended.OrderID+":1:ORDER_CREATED", ended.OrderID+":2:ORDER_COMPLETED", placed.OrderID+":1:ORDER_CREATED")
		var history struct{ Events []events.Event }
		if err := json.Unmarshal(b.send("GET", "/orders/"+ended.OrderID+"/events", "").Body, &history); err != nil {
			t.Fatal(err)
		}
		before, keys := len(b.Published()), b.Keys()

		done, _ := b.replays(replay{OrderIDs: []string{ended.OrderID, "nobody"}})
		if got := b.Published()[before:]; !reflect.DeepEqual(got, history.Events) {
			t.Errorf("published %v, want %v", got, history.Events)
		}
		if done.Events != 2 || !slices.Equal(done.OrderIDs, []string{ended.OrderID}) || !slices.Equal(done.Missing, []string{"nobody"}) {
			t.Errorf("%+v", done)
		}
		before = len(b.Published())
		b.replays(replay{OrderIDs: []string{ended.OrderID, placed.OrderID}, Topic: events.TopicReplay})
		if got, want := ids(b.Replayed()), append(ids(history.Events), placed.OrderID+":1:ORDER_CREATED"); !slices.Equal(got, want) {
			t.Errorf("on replay: %v, want %v", got, want)
		}
		if len(b.Published()) != before || b.Keys() != keys {
			t.Error("something else was told or written")
		}
	})
}

// Times are found in the index although the requests did not get into it in the
// sequence of their times.
func TestOrdersOfATimeAreReplayed(t *testing.T) {
	const orders = 530 // more than one request takes, of which the index keeps most in pages
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, mode := range map[string]daprtest.Mode{"redis-like": daprtest.RedisLike, "sql-like": daprtest.SQLLike} {
		t.Run(name, func(t *testing.T) {
			b := start(t, mode)
			b.service.pace.perSecond = 1e6
			at := func(i int) time.Time {
				if i%7 == 3 {
					i -= 10 // came late into the index
				}
				return noon.Add(time.Duration(i) * 5 * time.Second)
			}
			var now time.Time
			b.service.orders.now = func() time.Time { return now }
			if err := b.service.orders.LearnPrices(t.Context(), map[string]price{"cup": {Price: events.Money{Amount: 250, Currency: "EUR"}, Version: 1}}); err != nil {
				t.Fatal(err)
			}
			for i := range orders {
				now = at(i)
				r := placement{CustomerID: "ada", Email: "ada@example.com", Items: []events.Item{{ID: "cup", Quantity: 1}}, id: fmt.Sprintf("o-%d", i)}
				if _, _, err := b.service.orders.Place(context.Background(), r); err != nil {
					t.Fatal(err)
				}
			}
			// 187: the page after it begins with an order that came late.
			for _, tt := range []struct{ from, to int }{{0, 1}, {100, 103}, {187, 200}, {311, 450}, {500, 2000}, {-100, 2000}, {450, -1}, {2000, 2001}} {
				r := replay{From: new(time.Time), Topic: events.TopicReplay}
				*r.From = noon.Add(time.Duration(tt.from) * 5 * time.Second)
				if tt.to >= 0 {
					to := noon.Add(time.Duration(tt.to) * 5 * time.Second)
					r.To = &to
				}
				var want []string
				for i := range orders {
					if !at(i).Before(*r.From) && (r.To == nil || at(i).Before(*r.To)) {
						want = append(want, fmt.Sprintf("o-%d", i))
					}
				}
				before := len(b.Replayed())
				done, requests := b.replays(r)
				if !slices.Equal(done.OrderIDs, want) || len(b.Replayed())-before != len(want) {
					t.Errorf("from %d to %d: %d orders, want %d: %v", tt.from, tt.to, len(done.OrderIDs), len(want), done.OrderIDs)
				}
				if len(want) > maxReplayOrders && requests < 2 {
					t.Errorf("%d orders in %d request", len(want), requests)
				}
			}
		})
	}
}

func TestAReplayWithoutABroker(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	o := b.place()
	b.publishes(o.OrderID + ":1:ORDER_CREATED")
	b.Fail(func(call string) error {
		if strings.Contains(call, "Publish") {
			return errors.New("the broker is down")
		}
		return nil
	})
	if a := b.admin("/admin/replay", fmt.Sprintf(`{"orderIds":[%q]}`, o.OrderID)); a.Status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

func TestAReplayKeepsItsPace(t *testing.T) {
	p := &pace{perSecond: 1000}
	begin := time.Now()
	for range 5 {
		if err := p.wait(t.Context(), 20); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took < 80*time.Millisecond { // the last 20 may still run
		t.Errorf("80 at 1,000 a second took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestAdminBadInput(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	o := b.place()
	b.publishes(o.OrderID + ":1:ORDER_CREATED")
	keys, published := b.Keys(), len(b.Published())
	many := strings.Repeat(`"x",`, maxReplayIDs) + `"x"`
	for _, tt := range []struct {
		name, path, body string
		status           int
		says             string
	}{
		{"nothing", "/admin/replay", `{}`, 400, "from"},
		{"a time and names", "/admin/replay", `{"from":"2026-01-01T00:00:00Z","orderIds":["x"]}`, 400, "either"},
		{"an end without a beginning", "/admin/replay", `{"to":"2026-01-01T00:00:00Z","orderIds":["x"]}`, 400, "from"},
		{"an end before the beginning", "/admin/replay", `{"from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:00:00Z"}`, 400, "earlier"},
		{"no time", "/admin/replay", `{"from":"today"}`, 400, "today"},
		{"too many names", "/admin/replay", `{"orderIds":[` + many + `]}`, 400, "1000"},
		{"a name that none can have", "/admin/replay", `{"orderIds":["a||b"]}`, 400, "orderIds[0]"},
		{"a topic of others", "/admin/replay", `{"orderIds":["x"],"topic":"dead-letters"}`, 400, "topic"},
		{"a cursor of another request", "/admin/replay", `{"orderIds":["x"],"cursor":"` + newCursor("replay", 1) + `"}`, 400, "cursor"},
		{"no age", "/admin/archive", `{}`, 400, "olderThan"},
		{"an age that is none", "/admin/archive", `{"olderThan":"30 days"}`, 400, "olderThan"},
		{"no age at all", "/admin/archive", `{"olderThan":"0s"}`, 400, "olderThan"},
		{"a cursor of another age", "/admin/archive", `{"olderThan":"1h","cursor":"` + newCursor("archive 2h0m0s", 1) + `"}`, 400, "cursor"},
		{"an unknown field", "/admin/replay", `{"orderIds":["x"],"dryRun":true}`, 400, "dryRun"},
	} {
		if a := b.admin(tt.path, tt.body); a.Status != tt.status || !strings.Contains(string(a.Body), tt.says) {
			t.Errorf("%s: %d %s", tt.name, a.Status, a.Body)
		}
		if a := b.send("POST", tt.path, tt.body); a.Status != http.StatusUnauthorized {
			t.Errorf("%s, without a token: %d", tt.name, a.Status)
		}
	}
	if b.Keys() != keys || len(b.Published()) != published || len(b.Replayed()) != 0 {
		t.Errorf("%d keys, %d events and %d replayed, before %d and %d", b.Keys(), len(b.Published()), len(b.Replayed()), keys, published)
	}
}
