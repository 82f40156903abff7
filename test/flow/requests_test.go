package flow

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"orderflow/events"
	"orderflow/test/cases"
	"orderflow/test/system"
)

func (f *flow) lists(t *testing.T) {
	id := f.Shelve(t, "list", 100, 100)
	p := f.Placement(system.Item(id, 1))
	var placed []string
	for i := range 5 {
		next := f.Placement(system.Item(id, 1))
		next.CustomerID = p.CustomerID
		if i == 3 {
			next.Items[0].Quantity = 1000
		}
		o := f.Ended(t, f.MustPlace(t, next).OrderID)
		placed = append([]string{o.OrderID}, placed...)
	}
	ids := func(orders []system.Order) []string {
		var all []string
		for _, o := range orders {
			all = append(all, o.OrderID)
		}
		return all
	}
	mine := url.Values{"customerId": {p.CustomerID}}
	if got := ids(f.ListAll(t, mine)); !slices.Equal(got, placed) {
		t.Errorf("orders of the customer: %v, want %v, the newest first", got, placed)
	}
	var paged []string
	query := url.Values{"customerId": {p.CustomerID}, "limit": {"2"}}
	for {
		page, next := f.List(t, query)
		if len(page) > 2 {
			t.Errorf("a page of %d orders, asked for 2", len(page))
		}
		paged = append(paged, ids(page)...)
		if next == "" {
			break
		}
		query.Set("cursor", next)
	}
	if !slices.Equal(paged, placed) {
		t.Errorf("by pages of 2: %v, want %v", paged, placed)
	}
	for status, want := range map[string][]string{
		system.Completed: slices.Delete(slices.Clone(placed), 1, 2),
		system.Cancelled: placed[1:2],
		system.Pending:   nil,
	} {
		got := ids(f.ListAll(t, url.Values{"customerId": {p.CustomerID}, "status": {status}}))
		if !slices.Equal(got, want) {
			t.Errorf("%s orders of the customer: %v, want %v", status, got, want)
		}
	}
	if all := ids(f.ListAll(t, url.Values{"limit": {"100"}})); !slices.Equal(all[:5], placed) {
		t.Errorf("the newest of all orders: %v, want %v", all[:5], placed)
	}
}

// refuses sends what the API must not take. Each request leaves everything as it
// was; what is published follows from what is stored.
func (f *flow) refuses(t *testing.T) {
	id, dollars := f.Shelve(t, "refuse", 100, 10), f.Shelve(t, "refuse-dollars", 100, 10)
	err := f.Describe(t.Context(), dollars, system.Description{Name: "Dollars", Price: events.Money{Amount: 100, Currency: "USD"}})
	if err != nil {
		t.Fatal(err)
	}
	existing := f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 1))).OrderID)
	f.Counted(t, id, 9, 0, 1)
	_, cursor := f.List(t, url.Values{"limit": {"1"}})

	const email = "refused@" + system.Domain
	body := func(customer, email, items string) string {
		return fmt.Sprintf(`{"customerId":%q,"email":%s,"items":%s}`, customer, email, items)
	}
	one := `[{"id":"` + id + `","quantity":1}]`
	good := body("c-refused", `"`+email+`"`, one)
	withItems := func(items string) string { return body("c-refused", `"`+email+`"`, items) }
	withItem := func(productID string) string {
		return withItems(fmt.Sprintf(`[{"id":%q,"quantity":1}]`, productID))
	}
	withQuantity := func(quantity string) string { return withItems(`[{"id":"` + id + `","quantity":` + quantity + `}]`) }
	withEmail := func(quoted string) string { return body("c-refused", quoted, one) }
	withCustomer := func(id string) string { return body(id, `"`+email+`"`, one) }
	lines := func(n int) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf(`{"id":"line-%d","quantity":1}`, i)
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	product := func(name, price, threshold string) string {
		return `{"name":` + name + `,"price":` + price + `,"lowStockThreshold":` + threshold + `}`
	}
	euro := `{"amount":100,"currency":"EUR"}`

	order, inventory, notification := f.Order.URL, f.Inventory.URL, f.Notification.URL
	post := func(name, body string, want int, headers ...system.Header) refusal {
		return refusal{"order: " + name, http.MethodPost, order + "/orders", body, headers, want}
	}
	ask := func(name, url string, want int) refusal {
		return refusal{name, http.MethodGet, url, "", nil, want}
	}
	put := func(name, id, body string, want int) refusal {
		return refusal{"product: " + name, http.MethodPut, inventory + "/products/" + id, body, nil, want}
	}
	receive := func(name, id, body string, want int) refusal {
		return refusal{"receipt: " + name, http.MethodPost, inventory + "/products/" + id + "/receipts", body, nil, want}
	}
	rows := []refusal{
		post("no body", "", 400),
		post("half a body", good[:len(good)/2], 400),
		post("two bodies", good+good, 400),
		post("a list", "["+good+"]", 400),
		post("null", "null", 400),
		post("not UTF-8", strings.Replace(good, "c-refused", "c-\xff", 1), 400),
		post("another media type", good, 415, system.With("Content-Type", "text/plain")),
		post("2 MiB", withCustomer(strings.Repeat("x", 2<<20)), 413),
		post("unknown field", strings.Replace(good, `{"customerId"`, `{"discount":100,"customerId"`, 1), 400),
		post("unknown field in an item", withItems(`[{"id":"`+id+`","quantity":1,"unitPrice":1}]`), 400),
		post("customer as a number", strings.Replace(good, `"c-refused"`, "7", 1), 400),
		post("items as an object", withItems(`{"id":"`+id+`","quantity":1}`), 400),
		post("no items", withItems(`[]`), 400),
		post("items left out", `{"customerId":"c-refused","email":"`+email+`"}`, 400),
		post("1,000 lines", withItems(lines(1000)), 400),
		post("quantity 0", withQuantity("0"), 400),
		post("quantity -1", withQuantity("-1"), 400),
		post("quantity 1.5", withQuantity("1.5"), 400),
		post("quantity as a string", withQuantity(`"1"`), 400),
		post("quantity left out", withItems(`[{"id":"`+id+`"}]`), 400),
		post("quantity 10,001", withQuantity("10001"), 400),
		post("quantity beyond 64 bits", withQuantity("99999999999999999999"), 400),
		post("one product on two lines", withItems(`[{"id":"`+id+`","quantity":1},{"id":"`+id+`","quantity":2}]`), 400),
		post("empty product id", withItem(""), 400),
		post("product id with ||", withItem("order||"+existing.OrderID), 400),
		post("product id that is a path", withItem("../../products"), 400),
		post("product id of 129 characters", withItem(strings.Repeat("x", 129)), 400),
		post("unknown product", withItem("refuse-unknown"), 422),
		post("two currencies", withItems(`[{"id":"`+id+`","quantity":1},{"id":"`+dollars+`","quantity":1}]`), 422),
		post("empty customer id", withCustomer(""), 400),
		post("customer id with ||", withCustomer("c||1"), 400),
		post("customer id that is a path", withCustomer("../c"), 400),
		post("no e-mail", withEmail(`""`), 400),
		post("e-mail without a host", withEmail(`"ada"`), 400),
		post("e-mail with a name", withEmail(`"Ada <`+email+`>"`), 400),
		post("two e-mails", withEmail(`"`+email+`, second@`+system.Domain+`"`), 400),
		post("e-mail as a list", withEmail(`["`+email+`"]`), 400),
		post("header injection in the e-mail", withEmail(`"`+email+`\r\nBcc: spy@`+system.Domain+`"`), 400),
		post("line feed in the e-mail", withEmail(`"spy\n@`+system.Domain+`"`), 400),
		post("e-mail of 255 characters", withEmail(`"`+strings.Repeat("x", 255-len(system.Domain)-1)+"@"+system.Domain+`"`), 400),
		post("idempotency key with a quote in it", good, 400, system.With("Idempotency-Key", `a"b`)),
		post("idempotency key of 256 characters", good, 400, system.With("Idempotency-Key", strings.Repeat("k", 256))),

		ask("unknown order", order+"/orders/never-placed", 404),
		ask("events of an unknown order", order+"/orders/never-placed/events", 404),
		{"cancel an unknown order", http.MethodPost, order + "/orders/never-placed/cancel", "", nil, 404},
		{"cancel a completed order", http.MethodPost, order + "/orders/" + existing.OrderID + "/cancel", "", nil, 409},
		ask("order id with ||", order+"/orders/order%7C%7C"+existing.OrderID, 400),
		ask("order id that is a path", order+"/orders/..%2Forders", 400),
		ask("order id with dots for a path", order+"/orders/%2e%2e", 400),
		ask("order id with a NUL", order+"/orders/a%00b", 400),
		ask("order id of 129 characters", order+"/orders/"+strings.Repeat("x", 129), 400),
		{"order id that is a path, cancelled", http.MethodPost, order + "/orders/..%2F" + existing.OrderID + "/cancel", "", nil, 400},
		ask("a cursor that is none", order+"/orders?cursor=x", 400),
		ask("a cursor of another list", order+"/orders?customerId=c-refused&cursor="+cursor, 400),
		ask("limit 0", order+"/orders?limit=0", 400),
		ask("limit 101", order+"/orders?limit=101", 400),
		ask("limit in letters", order+"/orders?limit=all", 400),
		ask("unknown status", order+"/orders?status=LOST", 400),
		ask("customer with ||", order+"/orders?customerId=a%7C%7Cb", 400),
		ask("unknown parameter", order+"/orders?customer=c-refused", 400),
		ask("no such route", order+"/nothing", 404),
		{"no such method", http.MethodDelete, order + "/orders", "", nil, 405},

		put("no body", "refuse-new", "", 400),
		put("half a body", "refuse-new", `{"name":"N"`, 400),
		put("unknown field", "refuse-new", `{"name":"N","price":`+euro+`,"stock":5}`, 400),
		put("price left out", "refuse-new", `{"name":"N"}`, 400),
		put("price as a number", "refuse-new", product(`"N"`, "1.99", "0"), 400),
		put("negative price", "refuse-new", product(`"N"`, `{"amount":-1,"currency":"EUR"}`, "0"), 400),
		put("absurd price", "refuse-new", product(`"N"`, `{"amount":100000001,"currency":"EUR"}`, "0"), 400),
		put("half a cent", "refuse-new", product(`"N"`, `{"amount":0.5,"currency":"EUR"}`, "0"), 400),
		put("currency in small letters", "refuse-new", product(`"N"`, `{"amount":1,"currency":"eur"}`, "0"), 400),
		put("no name", "refuse-new", product(`""`, euro, "0"), 400),
		put("name of 201 characters", "refuse-new", product(`"`+strings.Repeat("n", 201)+`"`, euro, "0"), 400),
		put("line break in the name", "refuse-new", product(`"N\nSubject: x"`, euro, "0"), 400),
		put("negative threshold", "refuse-new", product(`"N"`, euro, "-1"), 400),
		put("id with ||", "a%7C%7Cb", product(`"N"`, euro, "0"), 400),
		put("id that is a path", "..%2F..%2Forders", product(`"N"`, euro, "0"), 400),
		put("id of 129 characters", strings.Repeat("x", 129), product(`"N"`, euro, "0"), 400),
		put("2 MiB", "refuse-new", product(`"`+strings.Repeat("n", 2<<20)+`"`, euro, "0"), 413),
		receive("quantity 0", id, `{"quantity":0}`, 400),
		receive("negative quantity", id, `{"quantity":-5}`, 400),
		receive("quantity as a string", id, `{"quantity":"5"}`, 400),
		receive("absurd quantity", id, `{"quantity":1000000000001}`, 400),
		receive("unknown field", id, `{"quantity":5,"to":"x"}`, 400),
		receive("unknown product", "refuse-new", `{"quantity":5}`, 404),
		ask("unknown product", inventory+"/products/refuse-new", 404),
		ask("ledger of an unknown product", inventory+"/products/refuse-new/ledger", 404),
		ask("products with a cursor that is none", inventory+"/products?cursor=x", 400),
		ask("product id that is a path", inventory+"/products/..%2Fproducts", 400),

		ask("notifications of nothing", notification+"/notifications", 400),
		ask("notifications of an id with ||", notification+"/notifications?orderId=a%7C%7Cb", 400),
	}
	type snapshot struct {
		Orders   []system.Order
		Products []system.Product
		Ledger   []system.Movement
		Events   []events.Event
		Mails    int
	}
	look := func(t *testing.T) snapshot {
		return snapshot{
			f.ListAll(t, url.Values{"limit": {"100"}}),
			[]system.Product{f.Product(t, id), f.Product(t, dollars)},
			f.Ledger(t, id),
			f.Events(t, existing.OrderID),
			len(f.Mails(t, email)),
		}
	}
	before := look(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var content any
			if row.body != "" || row.method != http.MethodGet {
				content = []byte(row.body)
			}
			a, err := system.Send(t.Context(), row.method, row.url, content, row.headers...)
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != row.want {
				t.Fatalf("answer %s, want %d", a, row.want)
			}
			cases.CheckProblem(t, a)
		})
	}
	if after := look(t); !reflect.DeepEqual(after, before) {
		t.Errorf("they changed something:\nbefore %+v\nafter  %+v", before, after)
	}
}

// refusal is a request that is answered with a problem of a status.
type refusal struct {
	name, method, url, body string
	headers                 []system.Header
	want                    int
}
