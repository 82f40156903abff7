package flow

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"orderflow/test/system"
)

// Traces as a client of the order service might begin them (W3C Trace Context).
const (
	setupTrace = "0af7651916cd43dd8448eb211c80319c"
	orderTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan = "00f067aa0ba902b7"
)

func traceparent(trace string) system.Header {
	return system.With("traceparent", "00-"+trace+"-"+clientSpan+"-01")
}

// TestTrace follows one order through the spans that all services and sidecars
// send: they are one tree, which grows from the span of the client.
func TestTrace(t *testing.T) {
	r := &receiver{}
	server := httptest.NewServer(r)
	defer server.Close()
	o := options()
	o.Env = []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + server.URL,
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_INSECURE=true", // for the sidecars, which do not take it from the URL
		"OTEL_BSP_SCHEDULE_DELAY=100",      // ms; the default is 5 s
	}
	s := system.NewShop(system.Start(t, o))
	for _, request := range []struct{ method, path, body string }{
		{http.MethodPut, "/products/traced", `{"name":"Traced","price":{"amount":100,"currency":"EUR"}}`},
		{http.MethodPost, "/products/traced/receipts", `{"quantity":5}`},
	} {
		a, err := system.Send(t.Context(), request.method, s.Inventory.URL+request.path, []byte(request.body), traceparent(setupTrace))
		if err != nil || a.Status/100 != 2 {
			t.Fatalf("%s %s: %s (%v)", request.method, request.path, a, err)
		}
	}
	p := s.Placement(system.Item("traced", 1))
	placed := s.MustPlace(t, p, traceparent(orderTrace))
	if o := s.Ended(t, placed.OrderID); o.Status != system.Completed {
		t.Fatalf("order ended as %s", o.Status)
	}
	s.Notified(t, placed.OrderID)
	for _, e := range s.Events(t, placed.OrderID) {
		if !strings.Contains(e.TraceParent, orderTrace) {
			t.Errorf("%s has traceparent %q, not of trace %s", e.Type, e.TraceParent, orderTrace)
		}
	}
	system.Eventually(t, "the trace holds what becomes of an order", func() (bool, string) {
		steps := r.steps(orderTrace)
		return !slices.ContainsFunc([]string{
			"order: POST /orders",
			"inventory: ORDER_CREATED",
			"order: INVENTORY_RESERVED",
			"inventory: ORDER_COMPLETED",
			"notification: ORDER_COMPLETED",
			"console: ORDER_COMPLETED",
		}, func(step string) bool { return !slices.Contains(steps, step) }), fmt.Sprint(steps)
	})
	s.Stop(t) // all processes send what they still have

	spans, raw := r.all()
	ids, parties := map[string]bool{clientSpan: true}, map[string]bool{}
	for _, each := range spans {
		if each.trace == orderTrace {
			ids[each.id] = true
			parties[each.party()] = true
		}
	}
	for _, service := range s.Services() {
		for _, party := range []string{service.ID, service.ID + " sidecar"} {
			if !parties[party] {
				t.Errorf("%s has no span in the order's trace", party)
			}
		}
	}
	for _, each := range spans {
		switch {
		case each.trace == orderTrace && !ids[each.parent]:
			t.Errorf("in the order's trace hangs a span on nothing: %+v", each)
		case each.trace != orderTrace && each.trace != setupTrace && each.carries():
			t.Errorf("an event is published or handled outside of the trace that it belongs to: %+v", each)
		}
	}
	if !bytes.Contains(raw, []byte(placed.OrderID)) {
		t.Error("spans don't say which order they are about")
	}
	if bytes.Contains(raw, []byte(system.Domain)) || bytes.Contains(raw, []byte(operator)) {
		t.Error("spans carry an e-mail address")
	}
	noAddress(t, s.System)
}

// receiver is an OTLP receiver over HTTP (OpenTelemetry Protocol 1, OTLP/HTTP).
type receiver struct {
	mu    sync.Mutex
	spans []span
	raw   bytes.Buffer
}

type span struct {
	service, scope, name, event string
	trace, id, parent           string
}

// party is the process that sent the span. A sidecar has its service's name.
func (s span) party() string {
	if s.scope == "dapr-diagnostics" {
		return s.service + " sidecar"
	}
	return s.service
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if err := r.take(request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (r *receiver) take(request *http.Request) error {
	var body io.Reader = request.Body
	if request.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = z
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var export collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(content, &export); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raw.Write(content)
	for _, resource := range export.ResourceSpans {
		var service string
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				each := span{
					service: service, scope: scope.Scope.Name, name: s.Name,
					trace: hex.EncodeToString(s.TraceId), id: hex.EncodeToString(s.SpanId), parent: hex.EncodeToString(s.ParentSpanId),
				}
				for _, a := range s.Attributes {
					if a.Key == "cloudevents.event_type" {
						each.event = a.Value.GetStringValue()
					}
				}
				r.spans = append(r.spans, each)
			}
		}
	}
	return nil
}

// carries says whether the span is the publishing, delivering or handling of an
// event.
func (s span) carries() bool {
	return s.event != "" || strings.HasPrefix(s.name, "pubsub/") || strings.Contains(s.name, "PublishEvent")
}

// steps are what happened in a trace: events by their type, else spans by name.
func (r *receiver) steps(trace string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var steps []string
	for _, s := range r.spans {
		if s.trace == trace {
			steps = append(steps, s.service+": "+cmp.Or(s.event, s.name))
		}
	}
	return steps
}

// all are the spans received so far, and the bytes that they came in.
func (r *receiver) all() ([]span, []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans), bytes.Clone(r.raw.Bytes())
}
