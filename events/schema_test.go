package events_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"orderflow/events"
)

// An opinion says who accepts a payload. Services in Go hold it against Validate,
// others against the JSON Schema, so the two must agree wherever both can judge.
type opinion struct{ schema, code bool }

var (
	valid   = opinion{schema: true, code: true}
	invalid = opinion{}

	// onlyGo: refused here, and beyond JSON Schema, whose description says it in
	// words: a relation between two values, bytes instead of characters.
	onlyGo = opinion{schema: true}

	// onlySchema: refused by the schema, which binds whoever publishes, but taken
	// by this package as a reader: a Go struct can't tell an absent field or a
	// null from zero.
	onlySchema = opinion{code: true}
)

// An edit of a golden payload puts value at path ("items/0/id"; "" is the whole).
type edit struct {
	path  string
	value any
}

// absent as the value of an edit deletes the field.
var absent = new(struct{})

type payloadRow struct {
	name  string
	types []string
	edits []edit
	want  opinion
}

var (
	orders       = []string{events.TypeOrderCreated, events.TypeOrderCompleted, events.TypeOrderCancelled}
	reservations = []string{events.TypeInventoryReserved, events.TypeInventoryReleased}
	shortages    = []string{events.TypeInventoryRejected, events.TypeOrderCancelled}
	cancelled    = []string{events.TypeOrderCancelled}
	withItems    = slices.Concat(orders, reservations)
	ofOrders     = slices.Concat(orders, reservations, []string{events.TypeInventoryRejected})
	deadLetters  = []string{events.TypeDeadLetter}
	withData     = slices.Concat(ofOrders, deadLetters)
	all          = slices.Sorted(maps.Keys(events.Types()))
)

func TestSchemaAndValidateAgree(t *testing.T) {
	rows := slices.Concat(idRows(), emailRows(), itemRows(), moneyRows(), shortageRows(), letterRows(), shapeRows(t))
	tried := map[string]bool{}
	for _, row := range rows {
		for _, typ := range row.types {
			tried[typ] = true
			t.Run(typ+"/"+row.name, func(t *testing.T) {
				data := edited(t, typ, row.edits...)
				schemaErr := payloadSchema(t, typ).Validate(parsed(t, data))
				_, codeErr := events.Decode(events.Event{Type: typ, Data: data})
				if (schemaErr == nil) != row.want.schema {
					t.Errorf("schema: %v, want valid: %t", schemaErr, row.want.schema)
				}
				if (codeErr == nil) != row.want.code {
					t.Errorf("Decode: %v, want valid: %t", codeErr, row.want.code)
				}
				if codeErr != nil && !errors.Is(codeErr, events.ErrInvalid) {
					t.Errorf("Decode: %v does not wrap ErrInvalid", codeErr)
				}
			})
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(withData)), slices.Sorted(maps.Keys(tried))); diff != "" {
		t.Errorf("types with data (-want +tried):\n%s", diff)
	}
}

// Each field that is an id, as the subject of the bare notifications is too
// (TestBareNotifications).
func idRows() (rows []payloadRow) {
	fields := []struct {
		path  string
		types []string
	}{
		{"orderId", ofOrders},
		{"letterId", deadLetters},
		{"service", deadLetters},
		{"topic", deadLetters},
		{"customerId", orders},
		{"items/0/id", withItems},
		{"shortages/0/id", shortages},
	}
	for _, f := range fields {
		for _, id := range ids {
			rows = append(rows, payloadRow{f.path + " " + id.name, f.types, []edit{{f.path, id.value}}, id.want})
		}
	}
	return rows
}

var ids = []struct {
	name, value string
	want        opinion
}{
	{"of 1 character", "a", valid},
	{"of all kinds of characters", "0aZ._~-", valid},
	{"of 128 characters", strings.Repeat("x", events.MaxIDLength), valid},
	{"of 129 characters", strings.Repeat("x", events.MaxIDLength+1), invalid},
	{"empty", "", invalid},
	{"begins with a dot", ".a", invalid},
	{"begins with a dash", "-a", invalid},
	{"with a state key's separator", "a||b", invalid},
	{"with a path", "../a", invalid},
	{"with an escaped path", "..%2fa", invalid},
	{"with a blank", "a b", invalid},
	{"with a line break at the end", "a\n", invalid},
	{"with a line break inside", "a\nb", invalid},
	{"with NUL", "a\x00", invalid},
	{"with a letter beyond ASCII", "ä", invalid},
	{"with a colon, which parts an event id", "a:1", invalid},
}

func emailRows() (rows []payloadRow) {
	for _, email := range []struct {
		name, value string
		want        opinion
	}{
		{"with signs", "ada.lovelace+orders/42@mail.example.com", valid},
		{"beyond ASCII", "ädä@bücher.example", invalid},
		{"of 254 bytes", strings.Repeat("a", 242) + "@example.com", valid},
		{"of 255 bytes", strings.Repeat("a", 243) + "@example.com", invalid},
		{"at an IP address", "ada@[192.0.2.1]", valid},
		{"at an IPv6 address", "ada@[2001:db8::1]", valid},
		{"at no IP address", "ada@[192.0.2.256]", onlyGo},
		{"at an empty literal", "ada@[]", invalid},
		{"empty", "", invalid},
		{"without host", "ada@", invalid},
		{"without @", "ada", invalid},
		{"without name", "@example.com", invalid},
		{"with two @", "ada@example@com", invalid},
		{"with a display name", "Ada <ada@example.com>", invalid},
		{"in angle brackets", "<ada@example.com>", invalid},
		{"with a comment", "ada@example.com (Ada)", invalid},
		{"quoted", `"ada"@example.com`, invalid},
		{"two of them", "ada@example.com,eve@example.com", invalid},
		{"a group", "all:ada@example.com;", invalid},
		{"with a blank", "ada @example.com", invalid},
		{"with a blank before it", " ada@example.com", invalid},
		{"with a tab after it", "ada@example.com\t", invalid},
		{"with a header", "ada@example.com\r\nBcc: eve@example.com", invalid},
		{"with a line feed at the end", "ada@example.com\n", invalid},
		{"with NUL", "ada\x00@example.com", invalid},
		{"with DEL", "ada\x7f@example.com", invalid},
		{"with a dot first", ".ada@example.com", invalid},
		{"with a dot before @", "ada.@example.com", invalid},
		{"with two dots", "ada..l@example.com", invalid},
		{"with a dot after @", "ada@.example.com", invalid},
		{"with a dot last", "ada@example.com.", invalid},
	} {
		rows = append(rows, payloadRow{"email " + email.name, orders, []edit{{"email", email.value}}, email.want})
	}
	return rows
}

func itemRows() (rows []payloadRow) {
	for _, n := range []struct {
		items int
		want  opinion
	}{{0, invalid}, {1, valid}, {events.MaxLines, valid}, {events.MaxLines + 1, invalid}} {
		lines := make([]any, n.items)
		for i := range lines {
			lines[i] = line("p"+strconv.Itoa(i), 1, 1)
		}
		rows = append(rows,
			payloadRow{fmt.Sprint(n.items, " items"), orders, []edit{{"items", lines}, {"total/amount", n.items}}, n.want},
			payloadRow{fmt.Sprint(n.items, " items"), reservations, []edit{{"items", lines}}, n.want},
		)
	}
	for _, q := range []struct {
		quantity any
		want     opinion
	}{
		{-1, invalid}, {0, invalid}, {1, valid}, {events.MaxQuantity, valid}, {events.MaxQuantity + 1, invalid},
		{json.Number("1.5"), invalid}, {json.Number("9223372036854775808"), invalid},
		// An integer to JSON Schema however it is written, not to Go. A sidecar writes
		// what it carries anew, without the fraction; who publishes past it can't count
		// on that.
		{json.Number("1.0"), onlyGo}, {json.Number("1e0"), onlyGo},
	} {
		name := fmt.Sprint("quantity ", q.quantity)
		amount, _ := q.quantity.(int)
		if q.want == onlyGo {
			amount = 1
		}
		lines := []any{line("p", q.quantity, 1), line("q", 1, 1)} // so that -1 does not spoil the total too
		rows = append(rows,
			payloadRow{name, orders, []edit{{"items", lines}, {"total/amount", amount + 1}}, q.want},
			payloadRow{name, reservations, []edit{{"items", lines}}, q.want},
		)
	}
	// Of two lines of one product JSON Schema would see only those that are equal
	// in everything (uniqueItems).
	twice := []any{line("p", 1, 1), line("p", 2, 1)}
	return append(rows,
		payloadRow{"a product on two lines", orders, []edit{{"items", twice}, {"total/amount", 3}}, onlyGo},
		payloadRow{"a product on two lines", reservations, []edit{{"items", twice}}, onlyGo},
	)
}

func moneyRows() (rows []payloadRow) {
	for _, p := range []struct {
		price int
		want  opinion
	}{{-1, invalid}, {0, valid}, {events.MaxUnitPrice, valid}, {events.MaxUnitPrice + 1, invalid}} {
		rows = append(rows, payloadRow{fmt.Sprint("unitPrice ", p.price), orders, []edit{
			{"items", []any{line("p", 1, p.price), line("q", 1, 1)}}, {"total/amount", p.price + 1}}, p.want})
	}
	for _, c := range []struct {
		currency string
		want     opinion
	}{{"USD", valid}, {"", invalid}, {"EU", invalid}, {"EURO", invalid}, {"eur", invalid}, {"EÜR", invalid}, {"EUR\n", invalid}} {
		rows = append(rows, payloadRow{fmt.Sprintf("currency %q", c.currency), orders, []edit{
			{"items/0/unitPrice/currency", c.currency}, {"items/1/unitPrice/currency", c.currency}, {"total/currency", c.currency}}, c.want})
	}

	largest := make([]any, events.MaxLines)
	for i := range largest {
		largest[i] = line("p"+strconv.Itoa(i), events.MaxQuantity, events.MaxUnitPrice)
	}
	const most = events.MaxLines * events.MaxQuantity * events.MaxUnitPrice
	free := []any{line("p", 1, 0)}
	noAmount := []any{map[string]any{"id": "p", "quantity": 1, "unitPrice": map[string]any{"currency": "EUR"}}}
	return append(rows, []payloadRow{
		{"largest total", orders, []edit{{"items", largest}, {"total/amount", most}}, valid},
		{"total beyond the largest", orders, []edit{{"items", largest}, {"total/amount", most + 1}}, invalid},
		{"total 0", orders, []edit{{"items", free}, {"total/amount", 0}}, valid},
		{"total -1", orders, []edit{{"items", free}, {"total/amount", -1}}, invalid},
		{"total below the sum", orders, []edit{{"items", free}, {"items/0/unitPrice/amount", 2}, {"total/amount", 1}}, onlyGo},
		{"total above the sum", orders, []edit{{"items", free}, {"total/amount", 1}}, onlyGo},
		{"items of two currencies", orders, []edit{{"items/1/unitPrice/currency", "USD"}}, onlyGo},
		{"total in another currency than the items", orders, []edit{{"total/currency", "USD"}}, onlyGo},
		{"free, amount of total absent", orders, []edit{{"items", free}, {"total/amount", absent}}, onlySchema},
		{"free, amount of unitPrice absent", orders, []edit{{"items", noAmount}, {"total/amount", 0}}, onlySchema},
	}...)
}

func shortageRows() (rows []payloadRow) {
	for _, n := range []struct {
		shortages int
		want      opinion
	}{{0, invalid}, {1, valid}, {events.MaxLines, valid}, {events.MaxLines + 1, invalid}} {
		list := make([]any, n.shortages)
		for i := range list {
			list[i] = shortage("p"+strconv.Itoa(i), 1, 0)
		}
		rows = append(rows, payloadRow{fmt.Sprint(n.shortages, " shortages"), shortages, []edit{{"shortages", list}}, n.want})
	}
	for _, s := range []struct {
		requested, available int
		want                 opinion
	}{
		{0, 0, invalid}, {-1, 0, invalid}, {1, -1, invalid}, {1, 0, valid},
		{events.MaxQuantity, events.MaxQuantity - 1, valid},
		{events.MaxQuantity + 1, 0, invalid},
		{events.MaxQuantity, events.MaxQuantity, invalid},
		{2, 2, onlyGo}, {2, 3, onlyGo},
	} {
		rows = append(rows, payloadRow{fmt.Sprintf("%d requested, %d available", s.requested, s.available), shortages,
			[]edit{{"shortages", []any{shortage("p", s.requested, s.available)}}}, s.want})
	}
	some := []any{shortage("p", 1, 0)}
	for _, reason := range events.Reasons {
		with, without := invalid, valid
		if reason == events.ReasonRejected {
			with, without = valid, invalid
		}
		rows = append(rows,
			payloadRow{reason + " with shortages", cancelled, []edit{{"reason", reason}, {"shortages", some}}, with},
			payloadRow{reason + " with empty shortages", cancelled, []edit{{"reason", reason}, {"shortages", []any{}}}, without},
			payloadRow{reason + " without shortages", cancelled, []edit{{"reason", reason}, {"shortages", absent}}, without},
		)
	}
	return append(rows, []payloadRow{
		{"CUSTOMER with null shortages", cancelled, []edit{{"reason", events.ReasonCustomer}, {"shortages", nil}}, onlySchema},
		{"unknown reason", cancelled, []edit{{"reason", "BORED"}, {"shortages", absent}}, invalid},
		{"reason in small letters", cancelled, []edit{{"reason", "rejected"}}, invalid},
		{"empty reason", cancelled, []edit{{"reason", ""}, {"shortages", absent}}, invalid},
	}...)
}

func letterRows() (rows []payloadRow) {
	original := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, row := range []struct {
		path  string
		value any
		want  opinion
	}{
		{"cause", "", invalid}, {"cause", "undecodable", invalid}, {"cause", "BORED", invalid},
		{"cause", events.CauseVersion, valid}, {"cause", events.CauseContradiction, valid}, {"cause", events.CauseFailing, valid},
		{"reason", "", valid},
		{"reason", strings.Repeat("ä", events.MaxReason), valid}, {"reason", strings.Repeat("ä", events.MaxReason+1), invalid},
		{"event", map[string]any{}, valid},
		{"event/id", strings.Repeat("ä", events.MaxEventName), valid}, {"event/id", strings.Repeat("ä", events.MaxEventName+1), invalid},
		{"event/type", strings.Repeat("x", events.MaxEventName+1), invalid},
		{"event/subject", strings.Repeat("x", events.MaxEventName+1), invalid},
		{"redrives", -1, invalid}, {"redrives", 0, valid}, {"redrives", 7, valid},
		{"attempts", -1, invalid}, {"attempts", 0, invalid}, {"attempts", 1, valid},
		{"original", "", valid}, {"original", original(1), valid}, {"original", original(2), valid},
		{"original", original(events.MaxOriginal), valid}, {"original", original(events.MaxOriginal + 1), invalid},
		{"original", "a", invalid}, {"original", "ab", invalid}, {"original", "a===", invalid}, {"original", "not base64!", invalid},
		{"firstFailure", "yesterday", onlyGo}, {"lastFailure", "0001-01-01T00:00:00Z", onlyGo},
		{"truncated", true, valid}, {"truncated", false, valid}, {"truncated", "yes", invalid}, {"truncated", nil, onlySchema},
	} {
		v := fmt.Sprint(row.value)
		rows = append(rows, payloadRow{fmt.Sprintf("%s %.20s (%d)", row.path, v, len(v)), deadLetters, []edit{{row.path, row.value}}, row.want})
	}
	return rows
}

// lenient are the fields whose zero value makes sense too, so that Go takes null
// for it; those of optional may be left out as well.
var (
	lenient  = regexp.MustCompile(`(^|/)available$|^(reason|event|event/.*|redrives|original)$`)
	optional = regexp.MustCompile(`^event/`)
)

// Every field of every golden payload: left out, null, and of each wrong type.
func shapeRows(t *testing.T) (rows []payloadRow) {
	kinds := []any{"x", json.Number("1"), json.Number("1.5"), true, []any{}, map[string]any{}}
	for _, typ := range withData {
		for path, value := range walk("", golden(t, typ)) {
			want := invalid
			if lenient.MatchString(path) && (typ == events.TypeDeadLetter || strings.HasSuffix(path, "/available")) {
				want = onlySchema
			}
			types := []string{typ}
			rows = append(rows, payloadRow{path + " null", types, []edit{{path, nil}}, want})
			if optional.MatchString(path) {
				want = valid
			}
			if field := path[strings.LastIndex(path, "/")+1:]; field != "" && !('0' <= field[0] && field[0] <= '9') {
				rows = append(rows, payloadRow{path + " absent", types, []edit{{path, absent}}, want})
			}
			for _, kind := range kinds {
				_, isNumber := value.(json.Number)
				if fmt.Sprintf("%T", kind) == fmt.Sprintf("%T", value) && (!isNumber || kind != json.Number("1.5")) {
					continue
				}
				b, _ := json.Marshal(kind)
				want := invalid
				if path == "original" && string(b) == "[]" {
					want = onlySchema // package json reads bytes from a list of numbers too
				}
				rows = append(rows, payloadRow{path + " " + string(b), types, []edit{{path, kind}}, want})
			}
		}
	}
	return rows
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	news := map[string]any{"since": "v1.1", "list": []any{1, nil, map[string]any{"id": 1}}}
	for _, typ := range withData {
		t.Run(typ, func(t *testing.T) {
			edits := []edit{{"news", news}}
			for path, value := range walk("", golden(t, typ)) {
				if _, ok := value.(map[string]any); ok && path != "" {
					edits = append(edits, edit{path + "/news", news})
				}
			}
			data := edited(t, typ, edits...)
			if err := payloadSchema(t, typ).Validate(parsed(t, data)); err != nil {
				t.Errorf("schema: %v", err)
			}
			want, err := events.Decode(events.Event{Type: typ, Data: edited(t, typ)})
			if err != nil {
				t.Fatal(err)
			}
			got, err := events.Decode(events.Event{Type: typ, Data: data})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-without +with unknown fields:\n%s", diff)
			}
		})
	}
}

// The bare notifications say all they say by their subject. Data is against the
// contract for whoever publishes; a reader ignores it as it does any addition.
func TestBareNotifications(t *testing.T) {
	envelope := schema(t, "schemas/cloudevent.json")
	for _, typ := range all {
		if slices.Contains(withData, typ) {
			continue
		}
		t.Run(typ, func(t *testing.T) {
			payload := payloadSchema(t, typ)
			for _, data := range []string{`{}`, `null`, `""`, `0`, `[]`, `{"productId":"p"}`} {
				if payload.Validate(parsed(t, []byte(data))) == nil {
					t.Errorf("the schema takes %s as data", data)
				}
				if _, err := events.Decode(events.Event{Type: typ, Subject: "p", Data: []byte(data)}); err != nil {
					t.Errorf("Decode with %s as data: %v", data, err)
				}
			}
			for _, id := range ids {
				whole := readJSON(t, "examples/"+typ+".v1.json").(map[string]any)
				whole["subject"] = id.value
				e, err := events.Parse(marshal(t, whole))
				if err != nil {
					t.Fatal(err)
				}
				_, err = events.Decode(e)
				if got := (opinion{envelope.Validate(whole) == nil, err == nil}); got != id.want {
					t.Errorf("subject %s: accepted by %+v, want %+v", id.name, got, id.want)
				}
				if err != nil && !errors.Is(err, events.ErrInvalid) {
					t.Errorf("subject %s: %v does not wrap ErrInvalid", id.name, err)
				}
			}
		})
	}
}

func line(id string, quantity, price any) any {
	return map[string]any{"id": id, "quantity": quantity, "unitPrice": map[string]any{"amount": price, "currency": "EUR"}}
}

func shortage(id string, requested, available int) any {
	return map[string]any{"id": id, "requested": requested, "available": available}
}

// payloadSchemas holds each schema once compiled: thousands of rows ask for them.
var payloadSchemas sync.Map

func payloadSchema(t testing.TB, typ string) *jsonschema.Schema {
	t.Helper()
	s, ok := payloadSchemas.Load(typ)
	if !ok {
		s, _ = payloadSchemas.LoadOrStore(typ, schema(t, "schemas/"+typ+".v1.json"))
	}
	return s.(*jsonschema.Schema)
}

// golden is the data of a type's example.
func golden(t testing.TB, typ string) any {
	t.Helper()
	return readJSON(t, "examples/"+typ+".v1.json").(map[string]any)["data"]
}

// edited is the golden payload of a type, with edits, as JSON.
func edited(t testing.TB, typ string, edits ...edit) []byte {
	t.Helper()
	doc := golden(t, typ)
	for _, e := range edits {
		doc = put(t, doc, e.path, e.value)
	}
	return marshal(t, doc)
}

func put(t testing.TB, doc any, path string, value any) any {
	t.Helper()
	if path == "" {
		return value
	}
	field, rest, _ := strings.Cut(path, "/")
	switch doc := doc.(type) {
	case map[string]any:
		doc = maps.Clone(doc) // rows share values
		if value == absent && rest == "" {
			delete(doc, field)
		} else {
			doc[field] = put(t, doc[field], rest, value)
		}
		return doc
	case []any:
		i, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		doc = slices.Clone(doc)
		doc[i] = put(t, doc[i], rest, value)
		return doc
	}
	t.Fatalf("%T has no %s", doc, path)
	return nil
}

// walk goes through doc and everything in it, by path.
func walk(path string, doc any) func(yield func(string, any) bool) {
	return func(yield func(string, any) bool) { visit(path, doc, yield) }
}

func visit(path string, doc any, yield func(string, any) bool) bool {
	if !yield(path, doc) {
		return false
	}
	in := func(field string) string { return strings.TrimPrefix(path+"/"+field, "/") }
	switch doc := doc.(type) {
	case map[string]any:
		for _, field := range slices.Sorted(maps.Keys(doc)) {
			if !visit(in(field), doc[field], yield) {
				return false
			}
		}
	case []any:
		for i, v := range doc {
			if !visit(in(strconv.Itoa(i)), v, yield) {
				return false
			}
		}
	}
	return true
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
