package notification

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/apitest"
	"orderflow/internal/daprtest"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
)

var update = flag.Bool("update", false, "write the e-mails that the tests see into testdata")

const (
	token    = "app-token"
	customer = "ada.lovelace@example.org"
)

var placed = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// bench is one notification service between a stand-in for its sidecar and a
// real mail server.
type bench struct {
	*daprtest.Sidecar
	tb   testing.TB
	url  string
	mail *mailServer
	log  *logBuffer
	// store is the service's state.
	store *aggregate.Store
	// product is inventory's answer to products/teapot.
	product atomic.Pointer[func() ([]byte, error)]
	routes  []string
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts the service. When the test ends, whatever it was, no address may
// stand in the log or in the state.
func start(tb testing.TB, mode daprtest.Mode) *bench {
	tb.Helper()
	sidecar, client := daprtest.Start(tb, mode)
	b := &bench{Sidecar: sidecar, tb: tb, mail: startMailServer(tb), log: &logBuffer{}, store: aggregate.NewStore(client, stateStore)}
	b.inventory(`{"id":"teapot","name":"Brown Betty","price":{"amount":1500,"currency":"EUR"},"lowStockThreshold":5,"available":3}`, nil)
	sidecar.Invoke(func(appID, method string) ([]byte, error) {
		if appID != "inventory" || method != "products/teapot" {
			return nil, status.Errorf(codes.NotFound, "%s %s", appID, method)
		}
		return (*b.product.Load())()
	})
	p := process.New("notification", slog.New(slog.NewJSONHandler(b.log, nil)), client, "http://127.0.0.1:1", token)
	env := map[string]string{
		"SMTP_ADDRESS":      b.mail.address,
		"MAIL_FROM":         "Orders <orders@shop.example>",
		"STOCK_ALERT_EMAIL": "stock@shop.example",
	}
	e := process.NewEnv(func(name string) string { return env[name] })
	c := ReadConfig(e)
	if err := e.Err(); err != nil {
		tb.Fatal(err)
	}
	if err := Setup(p, c); err != nil {
		tb.Fatal(err)
	}
	b.routes = p.Routes()
	server := httptest.NewServer(p.Handler())
	b.url = server.URL
	tb.Cleanup(func() {
		server.Close()
		if err := p.Close(context.Background()); err != nil {
			tb.Error(err)
		}
		for _, private := range []string{"ada.lovelace", "stock@shop"} {
			if strings.Contains(b.log.String(), private) {
				tb.Errorf("%q stands in the log:\n%s", private, b.log)
			}
		}
	})
	return b
}

func (b *bench) inventory(body string, err error) {
	answer := func() ([]byte, error) { return []byte(body), err }
	b.product.Store(&answer)
}

// deliver is the sidecar with an event; it returns the verdict.
func (b *bench) deliver(e events.Event) string {
	b.tb.Helper()
	body, err := json.Marshal(e)
	if err != nil {
		b.tb.Fatal(err)
	}
	return b.deliverRaw(e.Topic(), string(body))
}

func (b *bench) deliverRaw(topic, body string) string {
	b.tb.Helper()
	return b.send(http.MethodPost, pubsub.Path(topic), body, "Content-Type", events.ContentType, "dapr-api-token", token).Verdict(b.tb)
}

func (b *bench) send(method, path, body string, header ...string) apitest.Response {
	b.tb.Helper()
	return apitest.Send(b.tb, method, b.url+path, body, header...)
}

// notifications asks the service, and holds its answer against the document.
func (b *bench) notifications(orderID string) []record {
	b.tb.Helper()
	path := "/notifications?orderId=" + url.QueryEscape(orderID)
	got := b.send(http.MethodGet, path, "")
	apitest.Load(b.tb, "openapi.yaml").CheckResponse(b.tb, http.MethodGet, path, got.Status, got.Body)
	var list struct{ Notifications []record }
	if err := json.Unmarshal(got.Body, &list); err != nil || got.Status != http.StatusOK {
		b.tb.Fatalf("%d %s", got.Status, got.Body)
	}
	return list.Notifications
}

func (b *bench) stored(key string) record {
	b.tb.Helper()
	var r record
	if err := json.Unmarshal(b.State(key), &r); err != nil {
		b.tb.Fatalf("%s: %q: %v", key, b.State(key), err)
	}
	return r
}

func order(id, currency string, price int64) events.Order {
	return events.Order{
		OrderID: id, CustomerID: "ada", Email: customer,
		Items: []events.Line{
			{ID: "teapot", Quantity: 2, UnitPrice: events.Money{Amount: price, Currency: currency}},
			{ID: "cup", Quantity: 6, UnitPrice: events.Money{Amount: 5, Currency: currency}},
		},
		Total: events.Money{Amount: 2*price + 30, Currency: currency},
	}
}

func event(tb testing.TB, version int, p events.Payload) events.Event {
	tb.Helper()
	source := "order"
	if p.EventType() == events.TypeStockLow {
		source = "inventory"
	}
	e, err := events.New(source, version, placed, p)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func completed(tb testing.TB, id string) events.Event {
	tb.Helper()
	return event(tb, 2, events.OrderCompleted{Order: order(id, "EUR", 1500)})
}

func TestEmails(t *testing.T) {
	tests := []struct {
		name    string
		payload events.Payload
		to      string
		says    []string // in both of the forms
	}{
		{"completed", events.OrderCompleted{Order: order("o-1", "EUR", 1500)}, customer,
			[]string{"o-1", "complete", "teapot", "cup", "EUR 15.00", "EUR 30.00", "EUR 0.05", "EUR 30.30"}},
		{"completed-yen", events.OrderCompleted{Order: order("o..2~.", "JPY", 1500)}, customer,
			[]string{"o..2~.", "JPY 1500", "JPY 3030"}},
		{"rejected", events.OrderCancelled{Order: order("o-3", "KWD", 1500), Reason: events.ReasonRejected, Shortages: []events.Shortage{
			{ID: "teapot", Requested: 2, Available: 1}, {ID: "cup", Requested: 6, Available: 0}}}, customer,
			[]string{"o-3", "cancelled", "not everything that you ordered is in stock", "teapot: you ordered 2, 1 is there", "cup: you ordered 6, none is there", "KWD 1.500", "KWD 3.030"}},
		{"withdrawn", events.OrderCancelled{Order: order("o-4", "EUR", 1500), Reason: events.ReasonCustomer}, customer,
			[]string{"because you asked us to"}},
		{"timed-out", events.OrderCancelled{Order: order("o-5", "EUR", 1500), Reason: events.ReasonTimeout}, customer,
			[]string{"we could not make sure in time that everything is in stock"}},
		{"stock-low", events.StockLow{ProductID: "teapot"}, "stock@shop.example",
			[]string{"teapot", "Brown Betty", "5", "3"}},
	}
	b := start(t, daprtest.RedisLike)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := b.deliver(event(t, 2, tt.payload)); got != "SUCCESS" {
				t.Fatalf("verdict %s\n%s", got, b.log)
			}
			mails := b.mail.mails()
			if len(mails) != i+1 {
				t.Fatalf("%d e-mails, want %d", len(mails), i+1)
			}
			got := mails[i]
			if got.from != "orders@shop.example" || len(got.to) != 1 || got.to[0] != tt.to {
				t.Errorf("envelope from %s to %s", got.from, got.to)
			}
			text, html := readMail(t, got.data)
			for _, want := range tt.says {
				if !strings.Contains(text, want) || !strings.Contains(html, want) {
					t.Errorf("%q is not in both forms:\n%s\n%s", want, text, html)
				}
			}
			golden(t, tt.name, got.data)
		})
	}
}

// readMail takes the two forms out of an e-mail, by other means than it was made.
func readMail(t *testing.T, data string) (text, html string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Header.Get("Auto-Submitted"); got != "auto-generated" {
		t.Errorf("Auto-Submitted: %q", got)
	}
	mediaType, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/alternative" {
		t.Fatalf("%s: %v", mediaType, err)
	}
	var forms []string
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, want := range []string{"text/plain; charset=UTF-8", "text/html; charset=UTF-8"} {
		p, err := parts.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Header.Get("Content-Type"); got != want || p.Header.Get("Content-Transfer-Encoding") != "quoted-printable" {
			t.Errorf("part %s, want %s", got, want)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		forms = append(forms, string(body))
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("after the two forms: %v", err)
	}
	return forms[0], forms[1]
}

var dateField = regexp.MustCompile(`(?m)^Date: .*$`)

// golden compares an e-mail with its file, but for the date.
func golden(t *testing.T, name, data string) {
	t.Helper()
	got := dateField.ReplaceAllString(strings.ReplaceAll(data, "\r\n", "\n"), "Date: Sat, 31 Jan 2026 12:00:00 +0000")
	file := filepath.Join("testdata", name+".eml")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the e-mail is not that of %s (-update writes it):\n%s", file, got)
	}
}

func TestRecordFollowsTheEmail(t *testing.T) {
	for mode, name := range map[daprtest.Mode]string{daprtest.RedisLike: "Redis", daprtest.SQLLike: "SQL"} {
		t.Run(name, func(t *testing.T) {
			b := start(t, mode)
			if got := b.notifications("o-1"); len(got) != 0 {
				t.Fatalf("before: %+v", got)
			}
			if got := b.deliver(completed(t, "o-1")); got != "SUCCESS" {
				t.Fatal(got)
			}
			all := b.notifications("o-1")
			if len(all) != 1 {
				t.Fatalf("%+v", all)
			}
			r := all[0]
			if r.OrderID != "o-1" || r.Kind != kindCompleted || r.Status != statusSent || r.SentAt.Before(r.CreatedAt) || r.CreatedAt.IsZero() {
				t.Errorf("%+v", r)
			}
			m, err := mail.ReadMessage(strings.NewReader(b.mail.mails()[0].data))
			if err != nil {
				t.Fatal(err)
			}
			if date, err := m.Header.Date(); err != nil || !date.Equal(r.CreatedAt.Truncate(time.Second)) {
				t.Errorf("Date %v (%v), the notification is of %v", date, err, r.CreatedAt)
			}
			if got := m.Header.Get("Message-ID"); got != "<"+r.MessageID+">" {
				t.Errorf("Message-ID %s, the notification's is %s", got, r.MessageID)
			}
			if s := string(b.State("notification-o-1-COMPLETED")); strings.Contains(s, "ada") {
				t.Errorf("personal data in the state: %s", s)
			}
			if got := b.deliver(event(t, 3, events.OrderCancelled{Order: order("o-1", "EUR", 1), Reason: events.ReasonCustomer})); got != "SUCCESS" {
				t.Fatal(got)
			}
			if all := b.notifications("o-1"); len(all) != 2 || all[1].Kind != kindCancelled {
				t.Errorf("%+v", all)
			}
			if b.Keys() != 2 {
				t.Errorf("%d keys", b.Keys())
			}
		})
	}
}

func TestRedeliverySendsNothing(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	stock := event(t, 7, events.StockLow{ProductID: "teapot"})
	for range 3 {
		for _, e := range []events.Event{completed(t, "o-1"), stock} {
			if got := b.deliver(e); got != "SUCCESS" {
				t.Fatal(got)
			}
		}
	}
	if got := len(b.mail.mails()); got != 2 {
		t.Errorf("%d e-mails, want 2", got)
	}
	// Stock that is low once more is another event.
	if got := b.deliver(event(t, 9, events.StockLow{ProductID: "teapot"})); got != "SUCCESS" {
		t.Fatal(got)
	}
	if got := len(b.mail.mails()); got != 3 || b.Keys() != 3 {
		t.Errorf("%d e-mails and %d keys, want 3", got, b.Keys())
	}
}

func TestManyAtOnce(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			id := fmt.Sprintf("o-%d", i)
			if got := b.deliver(completed(t, id)); got != "SUCCESS" {
				t.Errorf("%s: %s", id, got)
			}
		})
	}
	all.Wait()
	if got := len(b.mail.mails()); got != 50 || b.Keys() != 50 {
		t.Errorf("%d e-mails and %d keys, want 50", got, b.Keys())
	}
	if got := b.mail.connections(); got > maxConnections {
		t.Errorf("%d connections", got)
	}
}

func TestMailServerDownIsRetried(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	b.mail.stop()
	for range 2 {
		if got := b.deliver(completed(t, "o-1")); got != "RETRY" {
			t.Fatal(got)
		}
	}
	before := b.notifications("o-1")
	if len(before) != 1 || before[0].Status != statusPending || !before[0].SentAt.IsZero() {
		t.Fatalf("%+v", before)
	}
	b.mail.start()
	if got := b.deliver(completed(t, "o-1")); got != "SUCCESS" {
		t.Fatalf("%s\n%s", got, b.log)
	}
	after := b.notifications("o-1")
	if len(after) != 1 || after[0].Status != statusSent || after[0].MessageID != before[0].MessageID || !after[0].CreatedAt.Equal(before[0].CreatedAt) {
		t.Errorf("%+v, before %+v", after, before)
	}
	if got := len(b.mail.mails()); got != 1 {
		t.Errorf("%d e-mails", got)
	}
}

// The connection that is kept is dead when the next e-mail comes.
func TestMailServerRestarted(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	for _, id := range []string{"o-1", "o-2"} {
		if got := b.deliver(completed(t, id)); got != "SUCCESS" {
			t.Fatalf("%s: %s\n%s", id, got, b.log)
		}
		b.mail.stop()
		b.mail.start()
	}
	if got := len(b.mail.mails()); got != 2 {
		t.Errorf("%d e-mails", got)
	}
}

// What was sent but not recorded is sent again, the same to the last byte.
func TestPendingIsSentAgain(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	b.mail.refuseAt("after DATA", &smtp.SMTPError{Code: 451, Message: "the server took it and could not say so"})
	if got := b.deliver(completed(t, "o-1")); got != "RETRY" {
		t.Fatal(got)
	}
	if r := b.stored("notification-o-1-COMPLETED"); r.Status != statusPending {
		t.Fatalf("%+v", r)
	}
	b.mail.refuseAt("", nil)
	if got := b.deliver(completed(t, "o-1")); got != "SUCCESS" {
		t.Fatal(got)
	}
	mails := b.mail.mails()
	if len(mails) != 2 || mails[0].data != mails[1].data {
		t.Errorf("%d e-mails: %+v", len(mails), mails)
	}
	if r := b.stored("notification-o-1-COMPLETED"); r.Status != statusSent {
		t.Errorf("%+v", r)
	}
}

// A record that an earlier process left keeps its Message-ID and its date.
func TestPendingRecordIsTakenUp(t *testing.T) {
	b := start(t, daprtest.SQLLike)
	left, err := json.Marshal(record{OrderID: "o-1", Kind: kindCompleted, Status: statusPending, MessageID: "older@shop.example", CreatedAt: placed})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.Write(t.Context(), aggregate.Document{Key: "notification-o-1-COMPLETED", Value: left}); err != nil {
		t.Fatal(err)
	}
	if got := b.deliver(completed(t, "o-1")); got != "SUCCESS" {
		t.Fatal(got)
	}
	m, err := mail.ReadMessage(strings.NewReader(b.mail.mails()[0].data))
	if err != nil {
		t.Fatal(err)
	}
	if date, err := m.Header.Date(); err != nil || !date.Equal(placed) || m.Header.Get("Message-ID") != "<older@shop.example>" {
		t.Errorf("%v, %v", m.Header, err)
	}
	if r := b.stored("notification-o-1-COMPLETED"); r.Status != statusSent || !r.CreatedAt.Equal(placed) {
		t.Errorf("%+v", r)
	}
}

// A write whose answer is lost is read back.
func TestLostAnswerOfTheStore(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	var calls atomic.Int32
	b.Fail(func(call string) error {
		if call == "after SaveState" && calls.Add(1)%2 == 1 {
			return status.Error(codes.Internal, "the answer is lost")
		}
		return nil
	})
	if got := b.deliver(completed(t, "o-1")); got != "SUCCESS" {
		t.Fatalf("%s\n%s", got, b.log)
	}
	if got := b.notifications("o-1"); len(got) != 1 || got[0].Status != statusSent || len(b.mail.mails()) != 1 {
		t.Errorf("%+v, %d e-mails", got, len(b.mail.mails()))
	}
}

func TestRefusedEmails(t *testing.T) {
	unknownUser := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user " + customer}
	tests := []struct {
		name, stage string
		err         error
		verdict     string
		status      string
		code        int
	}{
		{"recipient for good", "RCPT", unknownUser, "SUCCESS", statusFailed, 550},
		{"content for good", "DATA", &smtp.SMTPError{Code: 554, Message: "spam for " + customer}, "SUCCESS", statusFailed, 554},
		{"recipient for now", "RCPT", &smtp.SMTPError{Code: 450, Message: "greylisted " + customer}, "RETRY", statusPending, 0},
		{"content for now", "DATA", &smtp.SMTPError{Code: 452, Message: "no room for " + customer}, "RETRY", statusPending, 0},
		{"server ends", "RCPT", &smtp.SMTPError{Code: 421, Message: "closing on " + customer}, "RETRY", statusPending, 0},
		{"sender", "MAIL", &smtp.SMTPError{Code: 550, Message: "not you"}, "RETRY", statusPending, 0},
		{"log-in missing", "RCPT", &smtp.SMTPError{Code: 530, Message: "who are you"}, "RETRY", statusPending, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t, daprtest.SQLLike)
			b.mail.refuseAt(tt.stage, tt.err)
			if got := b.deliver(completed(t, "o-1")); got != tt.verdict {
				t.Errorf("verdict %s, want %s", got, tt.verdict)
			}
			r := b.notifications("o-1")
			if len(r) != 1 || r[0].Status != tt.status || r[0].SMTPCode != tt.code {
				t.Errorf("%+v", r)
			}
			b.mail.refuseAt("", nil)
			if got := b.deliver(completed(t, "o-1")); got != "SUCCESS" {
				t.Errorf("afterwards: %s", got)
			}
			want := 1
			if tt.status == statusFailed {
				want = 0
			}
			if got := len(b.mail.mails()); got != want {
				t.Errorf("%d e-mails afterwards, want %d", got, want)
			}
		})
	}
}

func TestStockLowAsksInventory(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	e := event(t, 4, events.StockLow{ProductID: "teapot"})
	b.inventory("", status.Error(codes.Unavailable, "inventory is down"))
	if got := b.deliver(e); got != "RETRY" || b.Keys() != 0 {
		t.Fatalf("inventory down: %s, %d keys", got, b.Keys())
	}
	b.inventory("not JSON", nil)
	if got := b.deliver(e); got != "RETRY" || b.Keys() != 0 {
		t.Fatalf("inventory confused: %s, %d keys", got, b.Keys())
	}
	if got := b.deliver(event(t, 4, events.StockLow{ProductID: "gone"})); got != "SUCCESS" || b.Keys() != 0 {
		t.Fatalf("unknown product: %s, %d keys", got, b.Keys())
	}
	if !strings.Contains(b.log.String(), "stock of an unknown product is low") {
		t.Error("nothing in the log about the unknown product")
	}
	b.inventory(`{"id":"teapot","name":"<b>Tea\r\nBcc: eve@example.net\u2028\u202e</b>","lowStockThreshold":5,"available":0,"new":{"field":1}}`, nil)
	if got := b.deliver(e); got != "SUCCESS" {
		t.Fatal(got)
	}
	text, html := readMail(t, b.mail.mails()[0].data)
	if !strings.Contains(text, "teapot (<b>Tea Bcc: eve@example.net </b>)") || !strings.Contains(html, "(&lt;b&gt;Tea Bcc: eve@example.net &lt;/b&gt;)") {
		t.Errorf("name is not made harmless:\n%s\n%s", text, html)
	}
	r := b.stored(stockKey("teapot", e.ID))
	if r.ProductID != "teapot" || r.OrderID != "" || r.Status != statusSent {
		t.Errorf("%+v", r)
	}
}

func TestBadEvents(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	good, err := json.Marshal(completed(t, "o-1"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(old, new string) string {
		s := strings.Replace(string(good), old, new, 1)
		if s == string(good) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return s
	}
	tests := []struct{ name, body string }{
		{"no JSON", `{"specversion"`},
		{"no CloudEvent", `{"orderId":"o-1"}`},
		{"header injection", with(`"email":"`, `"email":"eve@example.net\r\nBcc: `)},
		{"header injection with a bare line feed", with(customer, `eve@example.net\nSubject: x`)},
		{"two addresses", with(customer, `eve@example.net, `+customer)},
		{"name with the address", with(customer, `Ada \u003c`+customer+`\u003e`)},
		{"no address", with(customer, "")},
		{"id with path tricks", with(`"orderId":"o-1"`, `"orderId":"../o-1"`)},
		{"id with ||", with(`"orderId":"o-1"`, `"orderId":"a||b"`)},
		{"total that does not add up", with(`"total":{"amount":3030`, `"total":{"amount":3031`)},
		{"version that is not known", with("ORDER_COMPLETED/v1", "ORDER_COMPLETED/v2")},
		{"quantity that is no number", with(`"quantity":2`, `"quantity":"2"`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(b.Published())
			if got := b.deliverRaw(events.TopicOrders, tt.body); got != "SUCCESS" {
				t.Errorf("verdict %s", got)
			}
			if keys := b.Keys("deadletter"); keys != 0 || len(b.mail.mails()) != 0 {
				t.Errorf("%d keys, %d e-mails", keys, len(b.mail.mails()))
			}
			wantLetter(t, b.Published()[before:], tt.body)
		})
	}
	if got := b.deliverRaw(events.TopicOrders, strings.ReplaceAll(string(good), "ORDER_COMPLETED", "ORDER_ADMIRED")); got != "SUCCESS" || b.Keys("deadletter") != 0 {
		t.Errorf("type of tomorrow: %s", got)
	}
}

// wantLetter wants one dead letter with the body.
func wantLetter(t *testing.T, published []events.Event, body string) {
	t.Helper()
	if len(published) != 1 {
		t.Fatalf("%d events published, want one dead letter", len(published))
	}
	p, err := events.Decode(published[0])
	if err != nil {
		t.Fatal(err)
	}
	l, ok := p.(events.DeadLetter)
	if !ok || string(l.Original) != body || l.Service != "notification" {
		t.Errorf("%+v", p)
	}
	if strings.Contains(l.Reason, customer) {
		t.Errorf("the reason names the customer: %s", l.Reason)
	}
}

func TestBadRequests(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	doc := apitest.Load(t, "openapi.yaml")
	tests := []struct {
		name, method, path string
		header             []string
		status             int
	}{
		{"no order", http.MethodGet, "/notifications", nil, 400},
		{"empty order", http.MethodGet, "/notifications?orderId=", nil, 400},
		{"101 orders", http.MethodGet, "/notifications?" + strings.Repeat("orderId=a&", 101), nil, 400},
		{"id with ||", http.MethodGet, "/notifications?orderId=a%7C%7Cb", nil, 400},
		{"id with path tricks", http.MethodGet, "/notifications?orderId=..%2Fo-1", nil, 400},
		{"endless id", http.MethodGet, "/notifications?orderId=" + strings.Repeat("a", 129), nil, 400},
		{"event without a token", http.MethodPost, "/events/order-events", nil, 401},
		{"event with a wrong token", http.MethodPost, "/events/inventory-events", []string{"dapr-api-token", "wrong"}, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := b.send(tt.method, tt.path, "", tt.header...)
			if got.Status != tt.status || got.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%d %s %s", got.Status, got.Header.Get("Content-Type"), got.Body)
			}
			doc.CheckResponse(t, tt.method, tt.path, got.Status, got.Body)
		})
	}
	if b.Keys() != 0 || len(b.mail.mails()) != 0 {
		t.Errorf("%d keys, %d e-mails", b.Keys(), len(b.mail.mails()))
	}
	b.Fail(func(string) error { return errors.New("the store is down") })
	got := b.send(http.MethodGet, "/notifications?orderId=o-1", "")
	if got.Status != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" {
		t.Errorf("store down: %d %s", got.Status, got.Body)
	}
}

func TestSeveralOrdersAtOnce(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	b.deliver(event(t, 2, events.OrderCompleted{Order: order("o-1", "EUR", 100)}))
	b.deliver(event(t, 2, events.OrderCancelled{Order: order("o-2", "EUR", 100), Reason: events.ReasonCustomer}))
	var list struct{ Notifications []record }
	got := b.send(http.MethodGet, "/notifications?orderId=o-2&orderId=o-3&orderId=o-1", "")
	if err := json.Unmarshal(got.Body, &list); err != nil || len(list.Notifications) != 2 {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	if n := list.Notifications; n[0].OrderID != "o-2" || n[0].Kind != kindCancelled || n[1].OrderID != "o-1" || n[1].Kind != kindCompleted {
		t.Errorf("%+v", list.Notifications)
	}
}

func TestRoutesAreDescribed(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	apitest.Load(t, "openapi.yaml").CheckRoutes(t, b.routes)
}

func TestEveryReasonHasWords(t *testing.T) {
	for _, r := range events.Reasons {
		if reasons[r] == "" {
			t.Errorf("%s has none", r)
		}
	}
}

func TestFormatMoney(t *testing.T) {
	for want, m := range map[string]events.Money{
		"EUR 0.00":             {Amount: 0, Currency: "EUR"},
		"EUR 0.07":             {Amount: 7, Currency: "EUR"},
		"USD 12345.60":         {Amount: 1234560, Currency: "USD"},
		"JPY 0":                {Amount: 0, Currency: "JPY"},
		"JPY 1500":             {Amount: 1500, Currency: "JPY"},
		"KWD 0.001":            {Amount: 1, Currency: "KWD"},
		"CLF 1.0000":           {Amount: 10000, Currency: "CLF"},
		"RSD 1.50":             {Amount: 150, Currency: "RSD"},
		"EUR 9990000000000.00": {Amount: 999 * 10_000 * 100_000_000, Currency: "EUR"},
	} {
		if got := formatMoney(m); got != want {
			t.Errorf("%+v is %q, want %q", m, got, want)
		}
	}
}
