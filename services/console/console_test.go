package console

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"orderflow/events"
	"orderflow/internal/apitest"
	"orderflow/internal/daprtest"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
)

const token = "app-token"

// bench is a console on a stand-in for its sidecar. Every answer is held against
// openapi.yaml.
type bench struct {
	*daprtest.Sidecar
	tb     testing.TB
	url    string
	routes []string
	doc    *apitest.Doc
	now    atomic.Int64 // seconds since noon
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func start(tb testing.TB, mode daprtest.Mode) *bench {
	tb.Helper()
	sidecar, client := daprtest.Start(tb, mode)
	b := &bench{Sidecar: sidecar, tb: tb, doc: apitest.Load(tb, "openapi.yaml")}
	p := process.New("console", slog.New(slog.DiscardHandler), client, "http://127.0.0.1:1", token)
	now := func() time.Time { return noon.Add(time.Duration(b.now.Add(1)) * time.Second) }
	if err := Setup(p, Config{Now: now}); err != nil {
		tb.Fatal(err)
	}
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

func inBothModes(t *testing.T, test func(*testing.T, *bench)) {
	for name, mode := range map[string]daprtest.Mode{"redis-like": daprtest.RedisLike, "sql-like": daprtest.SQLLike} {
		t.Run(name, func(t *testing.T) { test(t, start(t, mode)) })
	}
}

// call sends a request as the operator ada and reads the answer into v, which
// must have the status.
func (b *bench) call(method, path, body string, want int, v any) {
	b.tb.Helper()
	a := apitest.Send(b.tb, method, b.url+path, body, "dapr-api-token", token, "X-Operator", "ada")
	b.doc.CheckResponse(b.tb, method, path, a.Status, a.Body)
	if a.Status != want {
		b.tb.Fatalf("%s %s: %d %s, want %d", method, path, a.Status, a.Body, want)
	}
	if v != nil {
		if err := json.Unmarshal(a.Body, v); err != nil {
			b.tb.Fatal(err)
		}
	}
}

// deliver hands body over as the sidecar does and wants the verdict.
func (b *bench) deliver(topic string, body []byte, want string) {
	b.tb.Helper()
	if topic == events.TopicDeadLetters { // subscribed with rawPayload
		body, _ = json.Marshal(map[string]any{"specversion": "1.0", "id": "x", "source": "console", "type": "com.dapr.event.sent",
			"datacontenttype": "application/octet-stream", "data_base64": base64.StdEncoding.EncodeToString(body)})
	}
	var answer struct{ Status string }
	b.call("POST", pubsub.Path(topic), string(body), http.StatusOK, &answer)
	if answer.Status != want {
		b.tb.Errorf("verdict %s, want %s", answer.Status, want)
	}
}

func encode(tb testing.TB, v any) []byte {
	tb.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

func reserved(tb testing.TB, orderID string) events.Event {
	tb.Helper()
	e, err := events.New("inventory", 1, noon, events.InventoryReserved{Reservation: events.Reservation{OrderID: orderID, Items: []events.Item{{ID: "cup", Quantity: 1}}}})
	if err != nil {
		tb.Fatal(err)
	}
	e.TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-53995c3f42cd8ad8-01"
	return e
}

// givenUp is the dead letter by which order gives up on body.
func givenUp(tb testing.TB, body []byte, redrives, attempts int) events.Event {
	tb.Helper()
	e, err := events.Parse(body)
	if err != nil {
		e = events.Event{}
	}
	l := events.DeadLetter{
		LetterID: pubsub.LetterID("order", events.TopicInventory, body, e), Service: "order", Topic: events.TopicInventory,
		Cause: events.CauseUndecodable, Reason: "not valid", Event: events.EventName{ID: e.ID, Type: e.Type, Subject: e.Subject},
		Redrives: redrives, Attempts: attempts, FirstFailure: noon, LastFailure: noon.Add(time.Duration(redrives) * time.Minute), Original: body,
	}
	made, err := events.New("order", redrives+1, l.LastFailure, l)
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

func (b *bench) list(query string) (found []letter, next string) {
	b.tb.Helper()
	var page struct {
		DeadLetters []letter
		NextCursor  string
	}
	b.call("GET", "/deadletters"+query, "", 200, &page)
	return page.DeadLetters, page.NextCursor
}

func (b *bench) stats() (s stats) {
	b.tb.Helper()
	b.call("GET", "/stats", "", 200, &s)
	return s
}

// whats is the audit trail, in short.
func whats(l letter) string {
	var all []string
	for _, a := range l.Audit {
		all = append(all, fmt.Sprintf("%s %s %d", a.Who, a.What, a.Number))
	}
	return strings.Join(all, ", ")
}

func TestALetterFromArrivalToDiscard(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		good := reserved(t, "o-1")
		bad := good
		bad.Data = []byte(`{"orderId":7}`)
		body := encode(t, bad)
		d := givenUp(t, body, 0, 1)
		for range 2 { // at least once
			b.deliver(events.TopicDeadLetters, encode(t, d), "SUCCESS")
		}
		found, next := b.list("?status=OPEN")
		if len(found) != 1 || next != "" || found[0].LetterID != d.Subject || found[0].Attempts != 1 || whats(found[0]) != "order ARRIVED 0" {
			t.Fatalf("%+v", found)
		}
		path := "/deadletters/" + d.Subject
		var shown struct {
			letter
			Original []byte
			Decoded  events.Event
		}
		b.call("GET", path, "", 200, &shown)
		if string(shown.Original) != string(body) || shown.Decoded.ID != bad.ID || shown.Event.Type != events.TypeInventoryReserved {
			t.Errorf("%+v", shown)
		}

		if named, _ := b.list("?letterId=nobodys&letterId=" + d.Subject); len(named) != 1 || named[0].LetterID != d.Subject {
			t.Errorf("asked for by its id: %+v", named)
		}
		b.call("GET", "/deadletters?letterId="+d.Subject+"&status=OPEN", "", 400, nil)
		b.call("GET", "/deadletters?letterId=a%7C%7Cb", "", 400, nil)

		// As it came, it comes back: the same letter, with one attempt more.
		var l letter
		b.call("POST", path+"/redrive", "", 200, &l)
		if l.Status != statusRedriven || l.Redrives != 1 {
			t.Errorf("%+v", l)
		}
		sent := b.Published()
		again := sent[len(sent)-1]
		if again.ID != good.ID+":redrive:1" || again.RedriveOf != good.ID || again.Redrives != 1 || again.LetterID != d.Subject || string(again.Data) != string(bad.Data) {
			t.Errorf("sent %+v", again)
		}
		b.deliver(events.TopicDeadLetters, encode(t, givenUp(t, encode(t, again), 1, 1)), "SUCCESS")
		b.deliver(events.TopicDeadLetters, encode(t, d), "SUCCESS") // the first once more
		b.call("GET", path, "", 200, &l)
		if l.Status != statusOpen || l.Attempts != 2 || l.Returned != 1 || whats(l) != "order ARRIVED 0, ada REDRIVEN 1, order RETURNED 1" {
			t.Errorf("%+v", l)
		}

		// Mended, it does not.
		b.call("POST", path+"/redrive", `{"event":`+string(encode(t, good))+`}`, 200, &l)
		if l.Status != statusRedriven || l.Redrives != 2 || !l.Audit[len(l.Audit)-1].Mended {
			t.Errorf("%+v", l)
		}
		sent = b.Published()
		if again = sent[len(sent)-1]; again.ID != good.ID+":redrive:2" || string(again.Data) != string(good.Data) || again.RedriveOf != good.ID {
			t.Errorf("sent %+v", again)
		}
		if s := b.stats(); s.Letters[statusRedriven] != 1 || s.Letters[statusOpen] != 0 {
			t.Errorf("%+v", s)
		}

		for range 2 {
			b.call("POST", path+"/discard", `{"note":"done by hand"}`, 200, &l)
			if last := l.Audit[len(l.Audit)-1]; l.Status != statusDiscarded || last.Note != "done by hand" || last.Who != "ada" || len(l.Audit) != 5 {
				t.Errorf("%+v", l)
			}
		}
		b.call("POST", path+"/redrive", "", 409, nil)
		if s := b.stats(); s.Letters[statusDiscarded] != 1 || s.Letters[statusRedriven] != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// What a sidecar could not hand over is kept too, whatever it is.
func TestWhateverASidecarPutsThereIsKept(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		whole := reserved(t, "o-1")
		version2 := givenUp(t, []byte("x"), 0, 1)
		version2.DataSchema = events.SchemaBase + "DEAD_LETTER/v2"
		bodies := [][]byte{encode(t, whole), {}, []byte("\xff\x00 no JSON"), []byte(`{"specversion":7}`), []byte(`null`), encode(t, version2)}
		for _, body := range bodies {
			for range 2 { // of two services' sidecars
				b.deliver(events.TopicDeadLetters, body, "SUCCESS")
			}
		}
		b.call("POST", pubsub.Path(events.TopicDeadLetters), "no envelope at all", 200, nil)
		found, _ := b.list("?cause=UNDELIVERED&service=sidecar")
		if len(found) != len(bodies)+1 {
			t.Fatalf("%d letters, want %d: %+v", len(found), len(bodies)+1, found)
		}
		slices.Reverse(found)
		for i, body := range bodies {
			var shown struct{ Original []byte }
			b.call("GET", "/deadletters/"+found[i].LetterID, "", 200, &shown)
			if string(shown.Original) != string(body) {
				t.Errorf("kept %q of %q", shown.Original, body)
			}
		}
		b.call("POST", "/deadletters/"+found[0].LetterID+"/redrive", "", 200, nil)
		b.call("POST", "/deadletters/"+found[2].LetterID+"/redrive", "", 422, nil)
		b.call("POST", "/deadletters/"+found[2].LetterID+"/redrive", `{"event":`+string(encode(t, whole))+`}`, 200, nil)
		if sent := b.Published(); len(sent) != 2 || sent[1].ID != whole.ID+":redrive:1" {
			t.Errorf("%+v", sent)
		}
	})
}

func TestManyAreRedrivenAtOnce(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	const n = 230
	for i := range n {
		e := reserved(t, fmt.Sprintf("o-%d", i))
		body := encode(t, e)
		if i == 7 {
			body = []byte("{")
		}
		b.deliver(events.TopicDeadLetters, encode(t, givenUp(t, body, 0, 1)), "SUCCESS")
	}
	other, err := events.Parse(encode(t, reserved(t, "other")))
	if err != nil {
		t.Fatal(err)
	}
	b.deliver(events.TopicDeadLetters, encode(t, other), "SUCCESS") // a sidecar's
	redriven, calls, cursor := 0, 0, ""
	for more := true; more; calls++ {
		var answer struct {
			Redriven, NotRedrivable []string
			More                    bool
			NextCursor              string
		}
		query := "?service=order&limit=100"
		if cursor != "" {
			query += "&cursor=" + cursor
		}
		b.call("POST", "/deadletters/redrive"+query, "", 200, &answer)
		redriven += len(answer.Redriven)
		more, cursor = answer.More, answer.NextCursor
	}
	if redriven != n-1 || calls != 3 || len(b.Published()) != n-1 {
		t.Errorf("%d redriven in %d calls, %d events", redriven, calls, len(b.Published()))
	}
	open, _ := b.list("?status=OPEN")
	if len(open) != 2 || open[0].Service != "sidecar" {
		t.Errorf("%+v", open)
	}
	seen, cursor := 0, "?limit=99"
	for cursor != "" {
		page, next := b.list(cursor)
		seen += len(page)
		if cursor = next; next != "" {
			cursor = "?limit=99&cursor=" + next
		}
	}
	if seen != n+1 {
		t.Errorf("%d are listed, want %d", seen, n+1)
	}
}

func TestTimelines(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		answer := reserved(t, "o-1")
		answer.Time = noon.Add(time.Second)
		created := events.Event{SpecVersion: "1.0", ID: "o-1:1:ORDER_CREATED", Source: "order", Type: "ORDER_CREATED", Subject: "o-1", Time: noon, Data: []byte(`{"orderId":"o-1"}`)}
		tomorrow := created
		tomorrow.ID, tomorrow.Type, tomorrow.Time = "o-1:3:ORDER_ADMIRED", "ORDER_ADMIRED", noon.Add(time.Minute)
		low, err := events.New("inventory", 1, noon, events.StockLow{ProductID: "cup"})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			b.deliver(events.TopicInventory, encode(t, answer), "SUCCESS")
			b.deliver(events.TopicOrders, encode(t, created), "SUCCESS")
			b.deliver(events.TopicOrders, encode(t, tomorrow), "SUCCESS")
		}
		b.deliver(events.TopicInventory, encode(t, low), "SUCCESS")
		b.deliver(events.TopicInventory, []byte(`{"specversion":`), "SUCCESS")
		var line timeline
		b.call("GET", "/orders/o-1/timeline", "", 200, &line)
		var types []string
		for _, m := range line.Events {
			types = append(types, m.Type)
		}
		if got := strings.Join(types, " "); got != "ORDER_CREATED INVENTORY_RESERVED ORDER_ADMIRED" {
			t.Errorf("timeline is %s", got)
		}
		if m := line.Events[1]; m.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || m.Source != "inventory" || m.Topic != events.TopicInventory {
			t.Errorf("%+v", m)
		}
		b.call("GET", "/orders/o-2/timeline", "", 404, nil)
		if s := b.stats(); s.Events["ORDER_CREATED"] != 1 || s.Events["STOCK_LOW"] != 1 || len(s.Events) != 4 {
			t.Errorf("%+v", s)
		}
	})
}

func TestNoDocumentGrowsWithoutBound(t *testing.T) {
	b := start(t, daprtest.SQLLike)
	for i := range maxMoments + 5 {
		e := reserved(t, "o-1")
		e.ID, e.Type = fmt.Sprint(i), fmt.Sprintf("TYPE_%d", i)
		b.deliver(events.TopicInventory, encode(t, e), "SUCCESS")
	}
	var line timeline
	b.call("GET", "/orders/o-1/timeline", "", 200, &line)
	if len(line.Events) != maxMoments || line.LeftOut != 5 {
		t.Errorf("%d events, %d left out", len(line.Events), line.LeftOut)
	}
	if s := b.stats(); len(s.Events) != maxTypes+1 || s.Events["other"] != 5 {
		t.Errorf("%d types are counted apart, %d others", len(s.Events), s.Events["other"])
	}
	d := givenUp(t, encode(t, reserved(t, "o-1")), 0, 1)
	b.deliver(events.TopicDeadLetters, encode(t, d), "SUCCESS")
	var l letter
	for range maxAudit + 5 {
		b.call("POST", "/deadletters/"+d.Subject+"/redrive", "", 200, &l)
	}
	if len(l.Audit) != maxAudit || l.AuditLeftOut != 6 || l.Audit[0].What != auditArrived || l.Audit[maxAudit-1].Number != maxAudit+5 {
		t.Errorf("%d entries, %d left out, from %+v", len(l.Audit), l.AuditLeftOut, l.Audit[0])
	}
}

// A broker or store that is away loses nothing and does nothing twice.
func TestTrouble(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		d := givenUp(t, encode(t, reserved(t, "o-1")), 0, 1)
		path := "/deadletters/" + d.Subject
		failing := func(call string) {
			b.Fail(func(c string) error {
				if c == call {
					return status.Error(codes.Unavailable, "away")
				}
				return nil
			})
		}
		failed := false
		b.Fail(func(c string) error { // the letter is not written at first, the index is
			if c == "save "+letterKey(d.Subject) && !failed {
				failed = true
				return status.Error(codes.Unavailable, "away")
			}
			return nil
		})
		b.deliver(events.TopicDeadLetters, encode(t, d), "SUCCESS")
		if found, _ := b.list(""); len(found) != 1 || !failed {
			t.Errorf("%+v", found)
		}
		failing("PublishEvent")
		b.call("POST", path+"/redrive", "", 503, nil)
		b.Fail(nil)
		var l letter
		b.call("GET", path, "", 200, &l)
		if l.Status != statusOpen || l.Redrives != 0 {
			t.Errorf("%+v", l)
		}
		b.call("POST", path+"/redrive", "", 200, &l)
		if sent := b.Published(); len(sent) != 1 || sent[0].Redrives != 1 || l.Redrives != 1 {
			t.Errorf("%+v, sent %+v", l, sent)
		}
	})
}

// An event may come back before anybody could note that it was sent.
func TestFasterThanItsNote(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	d := givenUp(t, encode(t, reserved(t, "o-1")), 0, 1)
	b.deliver(events.TopicDeadLetters, encode(t, d), "SUCCESS")
	returned := false
	b.Fail(func(call string) error {
		if call == "PublishEvent" && !returned {
			returned = true
			e := reserved(t, "o-1")
			e.Redrive = events.Redrive{RedriveOf: e.ID, Redrives: 1, LetterID: d.Subject}
			e.ID += ":redrive:1"
			b.deliver(events.TopicDeadLetters, encode(t, givenUp(t, encode(t, e), 1, 1)), "SUCCESS")
		}
		return nil
	})
	var l letter
	b.call("POST", "/deadletters/"+d.Subject+"/redrive", "", 200, &l)
	if l.Status != statusOpen || l.Attempts != 2 || whats(l) != "order ARRIVED 0, order RETURNED 1, ada REDRIVEN 1" {
		t.Errorf("%+v", l)
	}
}

func TestBadRequests(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	d := givenUp(t, encode(t, reserved(t, "o-1")), 0, 1)
	b.deliver(events.TopicDeadLetters, encode(t, d), "SUCCESS")
	path := "/deadletters/" + d.Subject
	before := string(b.State(letterKey(d.Subject)))
	elsewhere := `{"specversion":"1.0","id":"1","source":"order","type":"ORDER_CREATED","subject":"o","data":{}}`
	completed, err := events.New("order", 2, noon, events.OrderCompleted{Order: events.Order{OrderID: "o-1", CustomerID: "c", Email: "a@example.com",
		Items: []events.Line{{ID: "cup", Quantity: 1, UnitPrice: events.Money{Currency: "EUR"}}}, Total: events.Money{Currency: "EUR"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/deadletters?status=open", "", 400},
		{"GET", "/deadletters?cause=BORED", "", 400},
		{"GET", "/deadletters?limit=0", "", 400},
		{"GET", "/deadletters?limit=101", "", 400},
		{"GET", "/deadletters?cursor=-1", "", 400},
		{"GET", "/deadletters?cursor=x", "", 400},
		{"GET", "/deadletters?colour=red", "", 400},
		{"GET", "/deadletters?status=OPEN&status=OPEN", "", 400},
		{"GET", "/deadletters/nobody", "", 404},
		{"GET", "/deadletters/a%7C%7Cb", "", 400},
		{"POST", "/deadletters/redrive?status=REDRIVEN", "", 400},
		{"POST", "/deadletters/nobody/redrive", "", 404},
		{"POST", path + "/redrive", `{"evnt":{}}`, 400},
		{"POST", path + "/redrive", `[]`, 400},
		{"POST", path + "/redrive", `{"event":{}}`, 422},
		{"POST", path + "/redrive", `{"event":` + elsewhere + `}`, 422},
		{"POST", path + "/redrive", `{"event":` + string(encode(t, completed)) + `}`, 422}, // of another topic
		{"POST", path + "/redrive", `{"event":"` + strings.Repeat("x", 1<<20) + `"}`, 413},
		{"POST", path + "/discard", "", 415},
		{"POST", path + "/discard", `{}`, 400},
		{"POST", path + "/discard", `{"note":" "}`, 400},
		{"POST", path + "/discard", `{"note":"` + strings.Repeat("x", 501) + `"}`, 400},
		{"POST", "/deadletters/nobody/discard", `{"note":"x"}`, 404},
		{"GET", "/orders/a%7C%7Cb/timeline", "", 400},
	} {
		t.Run(tt.method+" "+tt.path+" "+tt.body[:min(len(tt.body), 30)], func(t *testing.T) {
			b.call(tt.method, tt.path, tt.body, tt.status, nil)
			if after := string(b.State(letterKey(d.Subject))); after != before || len(b.Published()) != 0 {
				t.Errorf("the letter became %s; %d events", after, len(b.Published()))
			}
		})
	}
}

func TestRoutesAreDescribedAndWantTheToken(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	b.doc.CheckRoutes(t, b.routes)
	for _, route := range b.routes {
		method, path, _ := strings.Cut(route, " ")
		if !strings.HasPrefix(path, "/deadletters") && !strings.HasPrefix(path, "/events") && !strings.HasPrefix(path, "/admin") {
			continue
		}
		if a := apitest.Send(t, method, b.url+strings.ReplaceAll(path, ":id", "x"), ""); a.Status != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d", route, a.Status)
		}
	}
}
