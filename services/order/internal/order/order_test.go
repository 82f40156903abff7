package order_test

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"orderflow/events"
	"orderflow/services/order/internal/order"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func eur(amount int64) events.Money { return events.Money{Amount: amount, Currency: "EUR"} }

func placed(t interface{ Fatal(...any) }) events.Order {
	p, err := order.Place("o-1", "ada", "ada@example.com",
		[]events.Item{{ID: "teapot", Quantity: 2}, {ID: "cup", Quantity: 1}},
		map[string]events.Money{"teapot": eur(1500), "cup": eur(250)})
	if err != nil {
		t.Fatal(err)
	}
	return p.Order
}

var shortages = []events.Shortage{{ID: "cup", Requested: 1, Available: 0}}

func history(t interface{ Fatal(...any) }, facts ...events.Payload) []events.Event {
	var list []events.Event
	for i, f := range facts {
		e, err := events.New("order", i+1, noon.Add(time.Duration(i)*time.Second), f)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func TestPlaceFixesTheTotal(t *testing.T) {
	o := placed(t)
	if o.Total != eur(3250) {
		t.Errorf("total = %v, want 3250 EUR", o.Total)
	}
	want := []events.Line{{ID: "teapot", Quantity: 2, UnitPrice: eur(1500)}, {ID: "cup", Quantity: 1, UnitPrice: eur(250)}}
	if diff := cmp.Diff(want, o.Items); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
}

func TestPlaceRefusesTwoCurrencies(t *testing.T) {
	_, err := order.Place("o-1", "ada", "ada@example.com",
		[]events.Item{{ID: "teapot", Quantity: 1}, {ID: "cup", Quantity: 1}},
		map[string]events.Money{"teapot": eur(1), "cup": {Amount: 1, Currency: "USD"}})
	if !errors.Is(err, order.ErrCurrencies) {
		t.Errorf("err = %v, want ErrCurrencies", err)
	}
}

func TestPlaceNeedsEveryPrice(t *testing.T) {
	if _, err := order.Place("o-1", "ada", "ada@example.com", []events.Item{{ID: "teapot", Quantity: 1}}, nil); err == nil {
		t.Error("an item without a price was placed")
	}
}

func TestDecisions(t *testing.T) {
	o := placed(t)
	created := events.OrderCreated{Order: o}
	completed := events.OrderCompleted{Order: o}
	withdrawn := events.OrderCancelled{Order: o, Reason: events.ReasonCustomer}
	rejected := events.OrderCancelled{Order: o, Reason: events.ReasonRejected, Shortages: shortages}

	reserve := order.Order.Reserved
	reject := func(o order.Order) (events.Payload, error) { return o.Rejected(shortages) }
	withdraw := order.Order.Withdraw

	tests := []struct {
		name   string
		given  []events.Payload
		decide func(order.Order) (events.Payload, error)
		want   events.Payload
		err    error
	}{
		{"held stock completes a pending order", []events.Payload{created}, reserve, completed, nil},
		{"redelivered, it adds nothing", []events.Payload{created, completed}, reserve, nil, nil},
		{"a completion never follows a cancel", []events.Payload{created, withdrawn}, reserve, nil, nil},
		{"short stock cancels a pending order", []events.Payload{created}, reject, rejected, nil},
		{"redelivered, it adds nothing to the rejection", []events.Payload{created, rejected}, reject, nil, nil},
		{"a rejection after the customer's cancel adds nothing", []events.Payload{created, withdrawn}, reject, nil, nil},
		{"a rejection of a completed order can't be", []events.Payload{created, completed}, reject, nil, order.ErrContradiction},
		{"the customer withdraws a pending order", []events.Payload{created}, withdraw, withdrawn, nil},
		{"and again, which adds nothing", []events.Payload{created, withdrawn}, withdraw, nil, nil},
		{"a rejected order needs no withdrawal", []events.Payload{created, rejected}, withdraw, nil, nil},
		{"a completed order can't be withdrawn", []events.Payload{created, completed}, withdraw, nil, order.ErrCompleted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := order.Fold(history(t, tt.given...))
			if err != nil {
				t.Fatal(err)
			}
			got, err := tt.decide(o)
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("decided (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFold(t *testing.T) {
	o := placed(t)
	got, err := order.Fold(history(t, events.OrderCreated{Order: o},
		events.OrderCancelled{Order: o, Reason: events.ReasonRejected, Shortages: shortages}))
	if err != nil {
		t.Fatal(err)
	}
	want := order.Order{Order: o, Status: order.Cancelled, Reason: events.ReasonRejected, Shortages: shortages,
		Version: 2, CreatedAt: noon, UpdatedAt: noon.Add(time.Second)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("folded (-want +got):\n%s", diff)
	}
}

func TestFoldRefusesWhatNoDecisionMade(t *testing.T) {
	o := placed(t)
	created, completed := events.OrderCreated{Order: o}, events.OrderCompleted{Order: o}
	withdrawn := events.OrderCancelled{Order: o, Reason: events.ReasonCustomer}
	for name, facts := range map[string][]events.Payload{
		"no creation first":         {completed},
		"created twice":             {created, created},
		"a cancel after completion": {created, completed, withdrawn},
		"a completion after cancel": {created, withdrawn, completed},
		"an event of inventory":     {created, events.InventoryReleased{Reservation: events.Reservation{OrderID: "o-1", Items: o.Quantities()}}},
	} {
		if _, err := order.Fold(history(t, facts...)); !errors.Is(err, order.ErrContradiction) {
			t.Errorf("%s: err = %v, want ErrContradiction", name, err)
		}
	}
}

// Whatever comes in whatever order, an order ends once and keeps its end.
func TestAnyScheduleEndsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := []events.Payload{events.OrderCreated{Order: placed(t)}}
		var end events.Payload
		for _, step := range rapid.SliceOf(rapid.IntRange(0, 2)).Draw(t, "steps") {
			o, err := order.Fold(history(t, facts...))
			if err != nil {
				t.Fatal(err)
			}
			decide := []func(order.Order) (events.Payload, error){
				order.Order.Reserved, order.Order.Withdraw,
				func(o order.Order) (events.Payload, error) { return o.Rejected(shortages) },
			}[step]
			fact, err := decide(o)
			if err != nil && o.Status != order.Completed {
				t.Fatalf("refused in status %s: %v", o.Status, err)
			}
			if fact == nil {
				continue
			}
			if end != nil {
				t.Fatalf("ended by %T, then again by %T", end, fact)
			}
			end = fact
			facts = append(facts, fact)
		}
	})
}

// What is folded is what is stored: an order survives the way through JSON.
func TestOrderAsJSON(t *testing.T) {
	o, err := order.Fold(history(t, events.OrderCreated{Order: placed(t)}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var got order.Order
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, field := range []string{`"orderId":"o-1"`, `"status":"PENDING"`, `"total":{"amount":3250,"currency":"EUR"}`} {
		if !strings.Contains(string(b), field) {
			t.Errorf("%s lacks %s", b, field)
		}
	}
}

// The core stays pure: only the standard library and the contract.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		if path != "orderflow/events" && path != "orderflow/services/order/internal/order" {
			t.Errorf("the core imports %s", path)
		}
	}
}
