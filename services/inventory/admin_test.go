package inventory

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	commonpb "github.com/dapr/dapr/pkg/proto/common/v1"
	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"orderflow/events"
	"orderflow/internal/apitest"
	"orderflow/internal/daprtest"
	"orderflow/services/inventory/internal/stock"
)

// admin sends a request as an operator does.
func (b *bench) admin(method, path, body string) apitest.Response {
	b.tb.Helper()
	return b.call(method, path, body, "dapr-api-token", token)
}

// overwrite sets what the store holds under key, as nobody but a fault would.
func (b *bench) overwrite(key string, v any) {
	b.tb.Helper()
	value, err := json.Marshal(v)
	if err != nil {
		b.tb.Fatal(err)
	}
	_, err = b.SaveState(b.tb.Context(), &pb.SaveStateRequest{States: []*commonpb.StateItem{{Key: key, Value: value}}})
	if err != nil {
		b.tb.Fatal(err)
	}
}

// findings are those of an audit, page after page, and how many pages there were.
func (b *bench) findings(query string) (found []finding, pages int) {
	b.tb.Helper()
	for cursor := ""; ; pages++ {
		a := b.admin("GET", "/admin/audit?"+query+cursor, "")
		if a.Status != http.StatusOK {
			b.tb.Fatalf("%d %s", a.Status, a.Body)
		}
		page := parse[struct {
			Products   []finding
			NextCursor string
		}](b.tb, a.Body)
		found = append(found, page.Products...)
		if page.NextCursor == "" {
			return found, pages + 1
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

func TestTheLedgerEqualsTheCounts(t *testing.T) {
	inBothModes(t, 2, func(t *testing.T, b *bench) {
		if found, _ := b.findings(""); len(found) != 0 {
			t.Errorf("of an empty shelf: %+v", found)
		}
		b.product("cup", 200)
		b.product("teapot", 60)
		for i := range 60 { // more movements than the ledger keeps in the product
			o := order(fmt.Sprintf("o-%d", i), "cup:2", "teapot:1")
			b.untilTaken(events.OrderCreated{Order: o})
			switch i % 3 {
			case 0:
				b.untilTaken(events.OrderCompleted{Order: o})
			case 1:
				b.untilTaken(events.OrderCancelled{Order: o, Reason: events.ReasonCustomer})
			}
		}
		found, _ := b.findings("")
		if len(found) != 2 || found[0].ProductID != "teapot" || found[1].ProductID != "cup" {
			t.Fatalf("audited %+v", found)
		}
		for _, f := range found {
			if !f.OK || f.Stored != f.Ledger {
				t.Errorf("%+v", f)
			}
		}
		if one, _ := b.findings("productId=cup"); len(one) != 1 || one[0].Ledger.Shipped != 40 || one[0].Ledger.Reserved != 40 {
			t.Errorf("the cup: %+v", one)
		}
	})
}

// A ledger of more pages than one request reads is audited over several, and a
// counter that was tampered with is found.
func TestALongLedgerIsAuditedInParts(t *testing.T) {
	b := start(t, daprtest.RedisLike, 1)
	b.product("cup", 0)
	b.product("lid", 1)
	var p product
	if err := json.Unmarshal(b.State(productKey("cup")), &p); err != nil {
		t.Fatal(err)
	}
	// Written as 10,000 receipts would leave it, without making them one by one.
	const receipts = 10_000
	log, size := make([]stock.Movement, receipts), ledgerPages("cup").Size
	for i := range log {
		log[i] = stock.Movement{Seq: i + 1, Kind: stock.KindReceived, Quantity: 1}
	}
	for n := 0; n+size <= receipts-size; n += size {
		b.overwrite(ledgerPages("cup").Key(n/size), log[n:n+size])
		p.Ledger.Pages++
	}
	p.Ledger.Tail = log[p.Ledger.Pages*size:]
	p.Movements, p.Received, p.Available = receipts, receipts, receipts
	b.overwrite(productKey("cup"), p)

	found, pages := b.findings("")
	if len(found) != 2 || !found[0].OK || !found[1].OK || found[1].Ledger.Received != receipts || pages < 3 {
		t.Errorf("%d pages, %+v", pages, found)
	}
	p.Available--
	p.Shipped++
	b.overwrite(productKey("cup"), p)
	found, _ = b.findings("productId=cup")
	if len(found) != 1 || found[0].OK || !strings.Contains(strings.Join(found[0].Wrong, "; "), "shipped is 1, the ledger adds up to 0") {
		t.Errorf("%+v", found)
	}
}

func TestAnswersAreReplayed(t *testing.T) {
	inBothModes(t, 1, func(t *testing.T, b *bench) {
		b.product("cup", 50)
		held, shipped, released, rejected, early := order("held", "cup:1"), order("shipped", "cup:1"), order("released", "cup:1"), order("rejected", "cup:90"), order("early", "cup:1")
		before := len(b.Published())
		for _, o := range []events.Order{held, shipped, released, rejected} {
			b.untilTaken(events.OrderCreated{Order: o})
		}
		b.untilTaken(events.OrderCompleted{Order: shipped})
		b.untilTaken(events.OrderCancelled{Order: released, Reason: events.ReasonCustomer})
		b.untilTaken(events.OrderCancelled{Order: early, Reason: events.ReasonCustomer})
		told, keys := b.Published()[before:], b.Keys()

		const request = `{"orderIds":["held","shipped","released","rejected","early","nobody"]%s}`
		a := b.admin("POST", "/admin/replay", fmt.Sprintf(request, `,"topic":"replay"`))
		if a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		again := b.Replayed()
		if len(again) != len(told) {
			t.Errorf("replayed %d events, %d were told", len(again), len(told))
		}
		for _, e := range told {
			e.TraceParent, e.TraceState = "", ""
			same := func(r events.Event) bool {
				r.TraceParent, r.TraceState = "", ""
				return reflect.DeepEqual(r, e)
			}
			if !slices.ContainsFunc(again, same) {
				t.Errorf("%s was not replayed as it was", e.ID)
			}
		}
		before = len(b.Published())
		b.admin("POST", "/admin/replay", fmt.Sprintf(request, ""))
		if len(b.Published()) != before+len(told) || len(b.Replayed()) != len(again) || b.Keys() != keys {
			t.Errorf("told %q", b.published(before))
		}
	})
}

func TestAdminBadInput(t *testing.T) {
	b := start(t, daprtest.RedisLike, 1)
	b.product("cup", 3)
	b.product("lid", 3)
	keys, published := b.Keys(), len(b.Published())
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"a product that does not exist", "GET", "/admin/audit?productId=unicorn", "", 404, "id"},
		{"a bad product id", "GET", "/admin/audit?productId=a%7C%7Cb", "", 400, "id"},
		{"an unknown parameter", "GET", "/admin/audit?product=cup", "", 400, "productId"},
		{"a replay of nothing", "POST", "/admin/replay", `{"orderIds":[]}`, 400, "orderIds"},
		{"a replay of too many", "POST", "/admin/replay", `{"orderIds":[` + strings.Repeat(`"x",`, maxReplayed) + `"x"]}`, 400, "1000"},
		{"a replay of an order that can't be", "POST", "/admin/replay", `{"orderIds":["a||b"]}`, 400, "orderIds[0]"},
		{"a replay to a topic of others", "POST", "/admin/replay", `{"orderIds":["x"],"topic":"order-events"}`, 400, "topic"},
		{"a cursor that is none", "GET", "/admin/audit?cursor=!!", "", 400, "cursor"},
		{"a cursor of something else", "GET", "/admin/audit?cursor=e30", "", 400, "cursor"},
	} {
		a := b.admin(tt.method, tt.path, tt.body)
		if a.Status != tt.status || !strings.Contains(string(a.Body), tt.says) {
			t.Errorf("%s: %d %s", tt.name, a.Status, a.Body)
		}
		if a := b.call(tt.method, tt.path, tt.body); a.Status != http.StatusUnauthorized {
			t.Errorf("%s, without a token: %d", tt.name, a.Status)
		}
	}
	if b.Keys() != keys || len(b.Published()) != published {
		t.Errorf("%d keys and %d events, before %d and %d", b.Keys(), len(b.Published()), keys, published)
	}
}
