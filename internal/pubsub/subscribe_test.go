package pubsub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"orderflow/events"
	"orderflow/internal/apitest"
	"orderflow/internal/daprtest"
)

// subscriber is a service that reacts to two types of two topics by react.
func subscriber(t *testing.T, react func(context.Context, events.Event) error) (*gin.Engine, *bytes.Buffer, *daprtest.Sidecar) {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	log := &bytes.Buffer{}
	sidecar, publisher := startPublisher(t, events.TopicDeadLetters)
	logger := slog.New(slog.NewJSONHandler(log, nil))
	Subscribe(r, logger, deadLetters(t, sidecar, publisher, logger),
		On(func(ctx context.Context, e events.Event, p events.OrderCreated) error {
			if p.OrderID != e.Subject {
				return fmt.Errorf("the payload is of %s, the event of %s", p.OrderID, e.Subject)
			}
			return react(ctx, e)
		}),
		On(func(ctx context.Context, e events.Event, _ events.PriceUpdated) error { return react(ctx, e) }),
	)
	return r, log, sidecar
}

// deliver posts body to topic's route as a sidecar does, and returns the verdict.
func deliver(t *testing.T, h http.Handler, topic, body string, header ...string) string {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	return apitest.Send(t, http.MethodPost, server.URL+Path(topic), body, append(header, "Content-Type", events.ContentType)...).Verdict(t)
}

func encode(t *testing.T, e events.Event) string {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestVerdicts(t *testing.T) {
	created := news(t, "o-1", orderCreated)
	with := func(change func(*events.Event)) string {
		e := created
		change(&e)
		return encode(t, e)
	}
	answer := func(err error) func(context.Context, events.Event) error {
		return func(context.Context, events.Event) error { return err }
	}
	padded := func(n int) string {
		s := strings.TrimSuffix(encode(t, created), "}") + `,"padding":"`
		return s + strings.Repeat("x", n-len(s)-2) + `"}`
	}
	for name, tt := range map[string]struct {
		body    string
		react   func(context.Context, events.Event) error
		verdict string // DROP: SUCCESS, and a dead letter
		reacts  bool
	}{
		"handled":                      {encode(t, created), answer(nil), "SUCCESS", true},
		"poison":                       {encode(t, created), answer(fmt.Errorf("no: %w", ErrPoison)), "DROP", true},
		"violates the contract inside": {encode(t, created), answer(fmt.Errorf("no: %w", events.ErrInvalid)), "DROP", true},
		"fails":                        {encode(t, created), answer(errors.New("the store is down")), "RETRY", true},
		"out of time":                  {encode(t, created), answer(context.DeadlineExceeded), "RETRY", true},
		"panics":                       {encode(t, created), func(context.Context, events.Event) error { panic("ouch") }, "RETRY", true},
		"panics with a poison error":   {encode(t, created), func(context.Context, events.Event) error { panic(ErrPoison) }, "RETRY", true},
		"empty body":                   {"", nil, "DROP", false},
		"not JSON":                     {"{", nil, "DROP", false},
		"null":                         {"null", nil, "DROP", false},
		"a list":                       {"[]", nil, "DROP", false},
		"wrong type of an attribute":   {`{"specversion":"1.0","id":7}`, nil, "DROP", false},
		"other specversion":            {with(func(e *events.Event) { e.SpecVersion = "0.3" }), nil, "DROP", false},
		"no id":                        {with(func(e *events.Event) { e.ID = "" }), nil, "DROP", false},
		"no type":                      {with(func(e *events.Event) { e.Type = "" }), nil, "DROP", false},
		"no data":                      {with(func(e *events.Event) { e.Data = nil }), nil, "DROP", false},
		"data violates its schema":     {with(func(e *events.Event) { e.Data = []byte(`{"orderId":"o-1"}`) }), nil, "DROP", false},
		"other subject":                {with(func(e *events.Event) { e.Subject = "o-2" }), nil, "DROP", false},
		"unknown version":              {with(func(e *events.Event) { e.DataSchema = events.SchemaBase + "ORDER_CREATED/v2" }), nil, "DROP", false},
		"schema of another type":       {with(func(e *events.Event) { e.DataSchema = events.SchemaBase + "STOCK_LOW/v1" }), nil, "DROP", false},
		"no dataschema":                {with(func(e *events.Event) { e.DataSchema = "" }), answer(nil), "SUCCESS", true},
		"unknown attribute":            {strings.Replace(encode(t, created), "{", `{"extension":"1",`, 1), answer(nil), "SUCCESS", true},
		"type of nobody":               {with(func(e *events.Event) { e.Type = "WEATHER_CHANGED" }), nil, "SUCCESS", false},
		"type of others":               {encode(t, news(t, "o-1", func(id string) events.Payload { return events.OrderCompleted{Order: order(id)} })), nil, "SUCCESS", false},
		"type of others, broken":       {with(func(e *events.Event) { e.Type, e.Data = events.TypeOrderCompleted, []byte(`{}`) }), nil, "SUCCESS", false},
		"as large as can be":           {padded(4 << 20), answer(nil), "SUCCESS", true},
		"too large":                    {padded(4<<20 + 1), nil, "DROP", false},
	} {
		t.Run(name, func(t *testing.T) {
			reacted := false
			h, log, sidecar := subscriber(t, func(ctx context.Context, e events.Event) error {
				reacted = true
				return tt.react(ctx, e)
			})
			want, letters := tt.verdict, 0
			if want == "DROP" {
				want, letters = "SUCCESS", 1
			}
			if got := deliver(t, h, events.TopicOrders, tt.body); got != want {
				t.Errorf("verdict %s, want %s", got, want)
			}
			if got := len(sidecar.Published()); got != letters {
				t.Errorf("%d dead letters, want %d", got, letters)
			}
			if reacted != tt.reacts {
				t.Errorf("handler called: %t, want %t", reacted, tt.reacts)
			}
			if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), `"verdict":"`+want+`"`) {
				t.Errorf("want one line with the verdict, got %s", log)
			}
			if strings.Contains(log.String(), "ada@example.com") {
				t.Errorf("the customer is in the log: %s", log)
			}
		})
	}
}

func TestPanicIsLoggedWithItsPlace(t *testing.T) {
	h, log, _ := subscriber(t, func(context.Context, events.Event) error { panic("ouch") })
	deliver(t, h, events.TopicOrders, encode(t, news(t, "o-1", orderCreated)))
	for _, want := range []string{"ouch", "subscribe_test.go", `"event_id":"o-1:1:ORDER_CREATED"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in %s", want, log)
		}
	}
}

func TestBodyThatBreaksOffIsRetried(t *testing.T) {
	h, _, _ := subscriber(t, func(context.Context, events.Event) error { t.Error("called"); return nil })
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, Path(events.TopicOrders), brokenBody{})
	h.ServeHTTP(w, r)
	if !strings.Contains(w.Body.String(), "RETRY") {
		t.Errorf("%s, want RETRY: the event may be whole the next time", w.Body)
	}
}

type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestSubscribeMountsARouteForEachTopicAndNoMore(t *testing.T) {
	h, _, _ := subscriber(t, nil)
	var routes []string
	for _, r := range h.Routes() {
		routes = append(routes, r.Method+" "+r.Path)
	}
	want := []string{"POST /events/inventory-events", "POST /events/order-events"}
	if len(routes) != 2 || routes[0] != want[0] && routes[1] != want[0] || routes[0] != want[1] && routes[1] != want[1] {
		t.Errorf("%v, want %v", routes, want)
	}
}

func TestTwoHandlersOfOneTypeAreAMistake(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("one of the handlers would never be called")
		}
	}()
	h := On(func(context.Context, events.Event, events.PriceUpdated) error { return nil })
	Subscribe(gin.New(), slog.Default(), nil, h, h)
}

func TestEventGoesOnInTheTraceItCameIn(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	const (
		delivery = "00-11111111111111111111111111111111-2222222222222222-01"
		own      = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"
	)
	for name, tt := range map[string]struct{ header, event, trace, parent string }{
		"the sidecar traces":             {delivery, own, delivery[3:35], delivery[36:52]},
		"it does not":                    {"", own, own[3:35], own[36:52]},
		"its header can't be understood": {"00-0-0-00", own, own[3:35], own[36:52]},
		"nobody traces":                  {"", "", "", "0000000000000000"},
	} {
		t.Run(name, func(t *testing.T) {
			e := news(t, "p-1", priceUpdated)
			e.TraceParent = tt.event
			var answer events.Event
			h, _, _ := subscriber(t, func(ctx context.Context, e events.Event) error {
				answer = Traced(ctx, events.Event{ID: "answer", TraceParent: "of before"})
				return nil
			})
			var header []string
			if tt.header != "" {
				header = []string{"traceparent", tt.header}
			}
			if v := deliver(t, h, events.TopicInventory, encode(t, e), header...); v != "SUCCESS" {
				t.Fatal(v)
			}
			ended := spans.Ended()
			span := ended[len(ended)-1]
			if tt.trace != "" && span.SpanContext().TraceID().String() != tt.trace {
				t.Errorf("the span is in trace %s, want %s", span.SpanContext().TraceID(), tt.trace)
			}
			if got := span.Parent().SpanID().String(); got != tt.parent {
				t.Errorf("its parent is %s, want %s", got, tt.parent)
			}
			if span.SpanKind() != trace.SpanKindConsumer || span.Name() != "process inventory-events" {
				t.Errorf("it is the %s %q", span.SpanKind(), span.Name())
			}
			want := "00-" + span.SpanContext().TraceID().String() + "-" + span.SpanContext().SpanID().String() + "-01"
			if answer.TraceParent != want {
				t.Errorf("what the handler publishes has traceparent %s, want %s", answer.TraceParent, want)
			}
		})
	}
}
