package events_test

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"orderflow/events"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// What comes off a topic may be anything.
func TestParseAndDecode(t *testing.T) {
	created := string(read(t, "examples/ORDER_CREATED.v1.json"))
	low := string(read(t, "examples/STOCK_LOW.v1.json"))
	const subject = `"subject": "0198c3f0-7a52-7c1e-9d4b-2f6e8a1b3c5d",`
	const dataSchema = `"dataschema": "https://orderflow.example/schemas/ORDER_CREATED/v1",`
	with := func(event, old, new string) string {
		if !strings.Contains(event, old) {
			t.Fatalf("no %s in %s", old, event)
		}
		return strings.Replace(event, old, new, 1)
	}
	data := func(data string) string { return created[:strings.Index(created, `"data": {`)] + data + "}" }

	for _, tt := range []struct {
		name, event   string
		parse, decode error
	}{
		{"as published", created, nil, nil},
		{"bare, as published", low, nil, nil},
		{"as a sidecar hands it over", with(created, "{", `{"topic":"order-events","pubsubname":"order-events","traceid":"00-0-0-01","tracestate":"",`), nil, nil},
		{"unknown attributes", with(created, "{", `{"partitionkey":"7","sequence":{"a":[1]},`), nil, nil},
		{"no time", with(created, `"time": "2026-03-02T09:14:05.120641Z",`, ""), nil, nil},

		{"no JSON", "order created", events.ErrInvalid, nil},
		{"empty", "", events.ErrInvalid, nil},
		{"cut off", created[:len(created)/2], events.ErrInvalid, nil},
		{"two events", created + created, events.ErrInvalid, nil},
		{"byte order mark", "\ufeff" + created, events.ErrInvalid, nil},
		{"a list", "[" + created + "]", events.ErrInvalid, nil},
		{"null", "null", events.ErrInvalid, nil},
		{"a string", `"ORDER_CREATED"`, events.ErrInvalid, nil},
		{"no UTF-8 in an attribute", with(created, `"source": "order"`, "\"source\": \"order\xff\""), events.ErrInvalid, nil},
		{"no UTF-8 in data", with(created, "ada@", "ada\xe4@"), events.ErrInvalid, nil},
		{"UTF-16", "\xff\xfe{\x00}\x00", events.ErrInvalid, nil},
		{"1,000 levels of an unknown attribute", with(created, "{", `{"deep":`+nested(1000)+","), nil, nil},
		{"1,000 levels of an unknown field", with(created, `"data": {`, `"data": {"deep":`+nested(1000)+","), nil, nil},
		{"100,000 levels of an unknown attribute", with(created, "{", `{"deep":`+nested(100_000)+","), events.ErrInvalid, nil},
		{"100,000 levels of an unknown field", with(created, `"data": {`, `"data": {"deep":`+nested(100_000)+","), events.ErrInvalid, nil},
		{"100,000 levels of data", data(`"data":` + nested(100_000)), events.ErrInvalid, nil},

		{"specversion 0.3", with(created, `"specversion": "1.0"`, `"specversion": "0.3"`), events.ErrInvalid, nil},
		{"specversion a number", with(created, `"specversion": "1.0"`, `"specversion": 1.0`), events.ErrInvalid, nil},
		{"no specversion", with(created, `"specversion": "1.0",`, ""), events.ErrInvalid, nil},
		{"no id", with(created, `"id": "0198c3f0-7a52-7c1e-9d4b-2f6e8a1b3c5d:1:ORDER_CREATED",`, ""), events.ErrInvalid, nil},
		{"no source", with(created, `"source": "order",`, ""), events.ErrInvalid, nil},
		{"no type", with(created, `"type": "ORDER_CREATED",`, ""), events.ErrInvalid, nil},
		{"empty type", with(created, `"type": "ORDER_CREATED"`, `"type": ""`), events.ErrInvalid, nil},
		{"time is none", with(created, "2026-03-02T09:14:05.120641Z", "yesterday"), events.ErrInvalid, nil},

		{"unknown type", with(created, `"type": "ORDER_CREATED"`, `"type": "ORDER_SHIPPED"`), nil, events.ErrUnknownType},
		{"type in small letters", with(created, `"type": "ORDER_CREATED"`, `"type": "order_created"`), nil, events.ErrUnknownType},
		{"version 1 by default", with(created, dataSchema, ""), nil, nil},
		{"version 2", with(created, "/v1", "/v2"), nil, events.ErrUnknownVersion},
		{"version 0", with(created, "/v1", "/v0"), nil, events.ErrUnknownVersion},
		{"version -1", with(created, "/v1", "/v-1"), nil, events.ErrUnknownVersion},
		{"version 1.1", with(created, "/v1", "/v1.1"), nil, events.ErrUnknownVersion},
		{"no version", with(created, "/v1", "/v"), nil, events.ErrUnknownVersion},
		{"dataschema of another type", with(created, "schemas/ORDER_CREATED", "schemas/ORDER_COMPLETED"), nil, events.ErrUnknownVersion},
		{"dataschema of someone else", with(created, "orderflow.example", "elsewhere.example"), nil, events.ErrUnknownVersion},
		{"bare, version 2", with(low, "/v1", "/v2"), nil, events.ErrUnknownVersion},

		{"no subject", with(created, subject, ""), nil, nil},
		{"subject of another order", with(created, subject, `"subject": "another",`), nil, events.ErrInvalid},
		{"bare, no subject", with(low, `"subject": "milk-jug",`, ""), nil, events.ErrInvalid},
		{"no data", data(`"dataschema": ""`), nil, events.ErrInvalid},
		{"data null", data(`"data": null`), nil, events.ErrInvalid},
		{"data a string", data(`"data": "{\"orderId\":\"1\"}"`), nil, events.ErrInvalid},
		{"data a list", data(`"data": []`), nil, events.ErrInvalid},
		{"data empty", data(`"data": {}`), nil, events.ErrInvalid},
		{"data binary", data(`"data_base64": "e30="`), nil, events.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := events.Parse([]byte(tt.event))
			if !errors.Is(err, tt.parse) {
				t.Fatalf("Parse: %v, want %v", err, tt.parse)
			}
			if err != nil {
				if diff := cmp.Diff(events.Event{}, e); diff != "" {
					t.Errorf("Parse gives an event with its error:\n%s", diff)
				}
				return
			}
			p, err := events.Decode(e)
			if !errors.Is(err, tt.decode) {
				t.Fatalf("Decode: %v, want %v", err, tt.decode)
			}
			if err != nil && p != nil {
				t.Errorf("Decode gives %v with its error", p)
			}
		})
	}
}

func nested(levels int) string {
	return strings.Repeat("[", levels) + strings.Repeat("]", levels)
}

// Nobody publishes what everybody would refuse: New validates as Decode does.
func TestNewRefusesTheInvalid(t *testing.T) {
	for _, p := range []events.Payload{
		events.OrderCreated{}, events.OrderCompleted{}, events.OrderCancelled{},
		events.InventoryReserved{}, events.InventoryRejected{}, events.InventoryReleased{},
		events.PriceUpdated{}, events.StockLow{ProductID: "a||b"}, events.DeadLetter{},
	} {
		e, err := events.New("order", 1, noon, p)
		if !errors.Is(err, events.ErrInvalid) {
			t.Errorf("%T: err = %v, want ErrInvalid", p, err)
		}
		if diff := cmp.Diff(events.Event{}, e); diff != "" {
			t.Errorf("%T: New gives an event with its error:\n%s", p, diff)
		}
	}
}

func TestTimeIsPublishedInUTC(t *testing.T) {
	e, err := events.New("inventory", 1, noon.In(time.FixedZone("", 2*60*60)), events.StockLow{ProductID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if b := string(marshal(t, e)); !strings.Contains(b, `"time":"2026-03-02T12:00:00Z"`) {
		t.Errorf("%s has another time than 12:00 UTC", b)
	}
}

func TestReasonsAreThoseOfTheSchema(t *testing.T) {
	doc := readJSON(t, "schemas/ORDER_CANCELLED.v1.json").(map[string]any)
	var want []any
	for _, reason := range events.Reasons {
		want = append(want, reason)
	}
	got := doc["properties"].(map[string]any)["reason"].(map[string]any)["enum"]
	if diff := cmp.Diff(any(want), got); diff != "" {
		t.Errorf("-Reasons +schema:\n%s", diff)
	}
}

// The limits are there for this: a number that outgrows an IEEE 754 double, or an
// event that outgrows a broker's message, would be lost where nobody sees it.
func TestTheLargestEventFits(t *testing.T) {
	const name = events.MaxIDLength
	p := events.OrderCancelled{Reason: events.ReasonRejected, Order: events.Order{
		OrderID:    strings.Repeat("o", name),
		CustomerID: strings.Repeat("c", name),
		Email:      strings.Repeat("&", 242) + "@example.com", // package json writes \u0026
		Total:      events.Money{Currency: "EUR"},
	}}
	for i := range events.MaxLines {
		id := strconv.Itoa(i)
		id += strings.Repeat("p", name-len(id))
		price := events.Money{Amount: events.MaxUnitPrice, Currency: "EUR"}
		p.Items = append(p.Items, events.Line{ID: id, Quantity: events.MaxQuantity, UnitPrice: price})
		p.Shortages = append(p.Shortages, events.Shortage{ID: id, Requested: events.MaxQuantity, Available: events.MaxQuantity - 1})
		p.Total.Amount += events.MaxQuantity * price.Amount
	}
	e, err := events.New("order", math.MaxInt, noon, p)
	if err != nil {
		t.Fatal(err)
	}
	if size := len(marshal(t, e)); size > 512<<10 {
		t.Errorf("%d bytes, more than half of the MiB that the smallest broker takes", size)
	}
	if int64(float64(p.Total.Amount)) != p.Total.Amount || p.Total.Amount >= 1<<53 {
		t.Errorf("total %d is beyond the integers that a double holds", p.Total.Amount)
	}
}

func TestOrigin(t *testing.T) {
	e, err := events.Parse([]byte(`{"specversion":"1.0","id":"p:3:STOCK_LOW:redrive:2","source":"inventory","type":"STOCK_LOW","subject":"p","redriveof":"p:3:STOCK_LOW","redrives":2,"letterid":"notification-1"}`))
	if err != nil {
		t.Fatal(err)
	}
	if e.Origin() != "p:3:STOCK_LOW" || e.Redrives != 2 || e.LetterID != "notification-1" {
		t.Errorf("%s, %+v", e.Origin(), e.Redrive)
	}
	again := readJSON(t, "examples/STOCK_LOW.v1.json").(map[string]any)
	again["redriveof"], again["redrives"], again["letterid"] = e.RedriveOf, e.Redrives, e.LetterID
	if err := schema(t, "schemas/cloudevent.json").Validate(parsed(t, marshal(t, again))); err != nil {
		t.Error(err)
	}
	if e = (events.Event{ID: "1"}); e.Origin() != "1" {
		t.Errorf("an event that was sent once is %s", e.Origin())
	}
	if b := marshal(t, e); strings.Contains(string(b), "redrive") || strings.Contains(string(b), "letterid") {
		t.Errorf("%s says something of redrives", b)
	}
}

func FuzzParse(f *testing.F) {
	for _, typ := range all {
		whole := read(f, "examples/"+typ+".v1.json")
		f.Add(whole)
		f.Add(whole[:len(whole)/2])
		f.Add([]byte(strings.ReplaceAll(string(whole), "1", "9999999999999999999")))
	}
	for _, s := range []string{
		`{}`, `null`, `[]`, nested(20_000),
		`{"specversion":"1.0","id":"1","source":"s","type":"STOCK_LOW","subject":"p","data":null,"time":"9999-12-31T23:59:59-23:59"}`,
		`{"SPECVERSION":"1.0","id":"\ud800","source":"s","type":"ORDER_CREATED","data":{"orderid":"o","Email":"\ufffd@\ufffd"}}`,
	} {
		f.Add([]byte(s))
	}
	for _, typ := range withData {
		payloadSchema(f, typ) // compiled once, not by the input that comes first
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := events.Parse(b)
		if err != nil {
			if !errors.Is(err, events.ErrInvalid) {
				t.Fatalf("Parse: %v does not wrap ErrInvalid", err)
			}
			return
		}
		// An event can be stored and passed on.
		stored := marshal(t, e)
		again, err := events.Parse(stored)
		if err != nil {
			t.Fatalf("Parse of what it gave: %v", err)
		}
		if diff := cmp.Diff(string(stored), string(marshal(t, again))); diff != "" {
			t.Fatalf("-stored +stored again:\n%s", diff)
		}

		p, err := events.Decode(e)
		if err != nil {
			if !errors.Is(err, events.ErrInvalid) && !errors.Is(err, events.ErrUnknownType) && !errors.Is(err, events.ErrUnknownVersion) {
				t.Fatalf("Decode: %v wraps none of the package's errors", err)
			}
			return
		}
		// What was accepted can be said again, and then pleases the schema, whatever
		// liberties the original took.
		made, err := events.New(e.Source, 1, noon, p)
		if err != nil {
			t.Fatalf("New of what Decode gave: %v", err)
		}
		if made.Type != e.Type {
			t.Fatalf("type became %s from %s", made.Type, e.Type)
		}
		if made.Data != nil {
			if err := payloadSchema(t, made.Type).Validate(parsed(t, made.Data)); err != nil {
				t.Fatal(err)
			}
		}
		p2, err := events.Decode(made)
		if err != nil {
			t.Fatalf("Decode of what New gave: %v", err)
		}
		if diff := cmp.Diff(string(marshal(t, p)), string(marshal(t, p2))); diff != "" {
			t.Fatalf("-payload +payload again:\n%s", diff)
		}
	})
}
