package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/gin-gonic/gin"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// A test that needs a whole process starts this binary again as a service.
func TestMain(m *testing.M) {
	if os.Getenv("BE_A_SERVICE") == "" {
		os.Exit(m.Run())
	}
	Main("order", "takes orders",
		func(env *Env) string { return env.String("GREETING", "hello", "what it says") },
		func(p *Process, greeting string) error {
			p.Public.GET("/", func(c *gin.Context) { c.String(http.StatusOK, greeting) })
			return nil
		})
}

const deadline = 10 * time.Second

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// lines are the log's lines with that message. Every line must be JSON.
func (b *buffer) lines(t *testing.T, message string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for line := range strings.Lines(b.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%q in the log: %v", line, err)
		}
		if fields["msg"] == message {
			found = append(found, fields)
		}
	}
	return found
}

// fakeSidecar answers health over HTTP, and state over gRPC, of which it keeps
// the metadata.
type fakeSidecar struct {
	pb.UnimplementedDaprServer
	health         atomic.Int32 // HTTP status; 0: no answer at all
	mu             sync.Mutex
	metadata       []metadata.MD
	http, grpcPort string
}

func startSidecar(t *testing.T) *fakeSidecar {
	s := &fakeSidecar{}
	s.health.Store(http.StatusNoContent)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := int(s.health.Load())
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path != "/v1.0/healthz/outbound" {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(web.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterDaprServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	_, s.http, _ = net.SplitHostPort(strings.TrimPrefix(web.URL, "http://"))
	_, s.grpcPort, _ = net.SplitHostPort(listener.Addr().String())
	return s
}

func (s *fakeSidecar) GetState(ctx context.Context, _ *pb.GetStateRequest) (*pb.GetStateResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metadata = append(s.metadata, md)
	return &pb.GetStateResponse{}, nil
}

// lastMetadata is what came with the latest call.
func (s *fakeSidecar) lastMetadata(t *testing.T) metadata.MD {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.metadata) == 0 {
		t.Fatal("nobody called the sidecar")
	}
	return s.metadata[len(s.metadata)-1]
}

func (s *fakeSidecar) settings() common {
	return common{host: "127.0.0.1", port: "0", daprGRPCPort: s.grpcPort, daprHTTPPort: s.http, otlpProtocol: "grpc"}
}

type running struct {
	url string
	log *buffer
	end func() error // ends the service and returns its error
}

func startService(t *testing.T, c common, setup func(*Process) error) running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := running{log: &buffer{}}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "order", newLog(r.log, "order", slog.LevelDebug), c, setup) }()
	r.end = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(deadline):
			return errors.New("it does not end")
		}
	})
	t.Cleanup(func() { _ = r.end() })
	eventually(t, "it listens", func() bool { return len(r.log.lines(t, "listening")) == 1 })
	r.url = "http://" + r.log.lines(t, "listening")[0]["address"].(string)
	return r
}

// call sends a request as it is written: the client does not clean the path.
func (r running) call(t *testing.T, method, path string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	path, req.URL.RawQuery, _ = strings.Cut(path, "?")
	req.URL.Opaque = "//" + req.URL.Host + path
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func wantProblem(t *testing.T, resp *http.Response, body string, status int) {
	t.Helper()
	var p struct {
		Type, Title string
		Status      int
	}
	if resp.StatusCode != status || resp.Header.Get("Content-Type") != "application/problem+json" ||
		json.Unmarshal([]byte(body), &p) != nil || p.Status != status || p.Type == "" || p.Title == "" {
		t.Errorf("%s %s, want a problem with status %d", resp.Status, body, status)
	}
}

// orders mounts what the tests call.
func orders(p *Process) error {
	p.Public.GET("/orders", func(c *gin.Context) { c.String(http.StatusOK, "list") })
	p.Public.GET("/orders/:id", func(c *gin.Context) { c.String(http.StatusOK, "order %q", c.Param("id")) })
	p.Public.POST("/orders/:id/cancel", func(c *gin.Context) { c.String(http.StatusOK, "cancelled %q", c.Param("id")) })
	p.Public.GET("/state", func(c *gin.Context) {
		if _, err := p.Dapr.GetState(c.Request.Context(), "statestore", "k", nil); err != nil {
			c.String(http.StatusInternalServerError, err.Error())
		}
	})
	p.Public.GET("/panic", func(*gin.Context) { panic("ouch") })
	p.Events.POST("/events/order-events", func(c *gin.Context) { c.String(http.StatusOK, "taken") })
	p.Events.POST("/events/panic", func(*gin.Context) { panic("ouch") })
	return nil
}

func TestHealth(t *testing.T) {
	s := startSidecar(t)
	r := startService(t, s.settings(), orders)
	for _, tt := range []struct {
		sidecar, ready int
	}{{204, 204}, {200, 204}, {500, 503}, {404, 503}, {0, 503}, {204, 204}} {
		s.health.Store(int32(tt.sidecar))
		resp, body := r.call(t, "GET", "/healthz/ready")
		if tt.ready == 204 && (resp.StatusCode != 204 || body != "") {
			t.Errorf("sidecar %d: %s %q", tt.sidecar, resp.Status, body)
		}
		if tt.ready == 503 {
			wantProblem(t, resp, body, 503)
			if resp.Header.Get("Retry-After") == "" {
				t.Errorf("sidecar %d: no Retry-After", tt.sidecar)
			}
		}
		if resp, body := r.call(t, "GET", "/healthz/live"); resp.StatusCode != 204 || body != "" {
			t.Errorf("sidecar %d: live is %s %q", tt.sidecar, resp.Status, body)
		}
	}
}

func TestWhatIsNotThereIsAProblem(t *testing.T) {
	r := startService(t, startSidecar(t).settings(), orders)
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/nothing", 404, ""},
		{"GET", "/", 404, ""},
		{"GET", "/orders/", 404, ""},
		{"POST", "/orders/1/cancel/", 404, ""},
		{"DELETE", "/orders/1", 405, "GET"},
		{"PUT", "/orders", 405, "GET"},
		{"GET", "/orders/1/cancel", 405, "POST"},
		{"GET", "/events/order-events", 405, "POST"},
		{"GET", "/panic", 500, ""},
		{"POST", "/events/panic", 500, ""},
	} {
		resp, body := r.call(t, tt.method, tt.path)
		t.Log(tt.method, tt.path)
		wantProblem(t, resp, body, tt.status)
		if got := resp.Header.Get("Allow"); got != tt.allow {
			t.Errorf("Allow: %q, want %q", got, tt.allow)
		}
		if strings.Contains(body, "ouch") {
			t.Errorf("it tells the cause: %s", body)
		}
	}
	panics := r.log.lines(t, "panic")
	if len(panics) != 2 || panics[0]["error"] != "ouch" || !strings.Contains(fmt.Sprint(panics[0]["stack"]), "process_test.go") || panics[0]["trace_id"] == nil {
		t.Errorf("the log of the panics: %v", panics)
	}
	if resp, _ := r.call(t, "GET", "/orders"); resp.StatusCode != 200 {
		t.Errorf("after the panics: %s", resp.Status)
	}
	requests := r.log.lines(t, "request")
	if len(requests) != 2 || requests[0]["status"] != 500.0 || requests[0]["route"] != "/panic" {
		t.Errorf("the log of the requests: %v", requests)
	}
}

func TestPathsReachTheirOwnRouteOrNone(t *testing.T) {
	r := startService(t, startSidecar(t).settings(), orders)
	for path, want := range map[string]string{
		"/orders/1":                          `order "1"`,
		"/orders/a%2Fb":                      `order "a/b"`,
		"/orders/1%2fcancel":                 `order "1/cancel"`,
		"/orders/..%2F..%2Fpanic":            `order "../../panic"`,
		"/orders/%2e%2e":                     `order ".."`,
		"/orders/..":                         `order ".."`,
		"/orders/%00":                        `order "\x00"`,
		"/orders/a%7C%7Cb":                   `order "a||b"`,
		"/orders/%252F":                      `order "%2F"`,
		"/orders/a%0d%0ab":                   `order "a\r\nb"`,
		"/orders?id=../panic":                `list`,
		"/orders/../orders/1":                "404",
		"/orders/../panic":                   "404",
		"/orders/%2e%2e/panic":               "404",
		"/./orders":                          "404",
		"//orders":                           "404",
		"/orders//":                          "404",
		"/orders//1":                         "404",
		"/%6frders/1":                        "404", // routed as it was sent
		"/ORDERS/1":                          "404",
		"/orders/1%2F..%2F..%2Fevents":       `order "1/../../events"`,
		"/events%2Forder-events":             "404",
		"/orders/..;/events/order-events":    "404",
		"/healthz/live/../../panic":          "404",
		"/orders/1/../../events/order-event": "404",
	} {
		resp, body := r.call(t, "GET", path)
		if want == "404" {
			t.Log(path)
			wantProblem(t, resp, body, 404)
			continue
		}
		if resp.StatusCode != 200 || body != want {
			t.Errorf("%s: %s %q, want %q", path, resp.Status, body, want)
		}
	}
}

func TestOnlyTheSidecarMaySendEvents(t *testing.T) {
	c := startSidecar(t).settings()
	c.appToken = "secret"
	r := startService(t, c, orders)
	for token, status := range map[string]int{"": 401, "Secret": 401, "secret ": 200 /* trimmed by HTTP */, "secretsecret": 401, "secret": 200} {
		resp, body := r.call(t, "POST", "/events/order-events", "dapr-api-token", token)
		if status == 401 {
			wantProblem(t, resp, body, 401)
		} else if resp.StatusCode != status || body != "taken" {
			t.Errorf("token %q: %s %s", token, resp.Status, body)
		}
	}
	if resp, _ := r.call(t, "GET", "/orders"); resp.StatusCode != 200 {
		t.Errorf("a client needs no token: %s", resp.Status)
	}
	if n := len(r.log.lines(t, "APP_API_TOKEN is not set: every local process can send this service events")); n != 0 {
		t.Error("it warns of a token that is set")
	}
}

func TestServiceWithoutATokenSaysSo(t *testing.T) {
	r := startService(t, startSidecar(t).settings(), orders)
	if resp, body := r.call(t, "POST", "/events/order-events"); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}
	if n := len(r.log.lines(t, "APP_API_TOKEN is not set: every local process can send this service events")); n != 1 {
		t.Errorf("it warns %d times", n)
	}
}

func TestRequestLogHoldsNoPersonalData(t *testing.T) {
	r := startService(t, startSidecar(t).settings(), orders)
	for _, path := range []string{
		"/orders?email=grace@example.com&customerId=c-77",
		"/orders/grace@example.com?q=hunter2",
		"/orders/grace%40example.com",
		"/orders/Grace%20Hopper",
		"/orders/" + strings.Repeat("grace", 30),
		"/orders/o-1",
	} {
		r.call(t, "GET", path, "Authorization", "Bearer hunter2", "Cookie", "grace=1")
	}
	requests := r.log.lines(t, "request")
	if len(requests) != 6 {
		t.Fatalf("%d lines for 6 requests", len(requests))
	}
	for _, secret := range []string{"grace", "Grace", "c-77", "hunter2"} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("%s is in the log:\n%s", secret, r.log)
		}
	}
	last := requests[5]
	if last["method"] != "GET" || last["route"] != "/orders/:id" || last["status"] != 200.0 || last["id"] != "o-1" || last["service"] != "order" {
		t.Errorf("%v", last)
	}
	if id := fmt.Sprint(last["trace_id"]); len(id) != 32 {
		t.Errorf("tracing is off, and the trace id is %q; a log needs one all the same", id)
	}
}

func TestShutdownUnderLoad(t *testing.T) {
	s := startSidecar(t)
	var order []string
	var mu sync.Mutex
	closed := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, what)
	}
	slow, finish := make(chan struct{}), make(chan struct{})
	drained := make(chan struct{})
	r := startService(t, s.settings(), func(p *Process) error {
		p.Public.GET("/fast", func(c *gin.Context) { c.String(http.StatusOK, "done") })
		p.Public.GET("/slow", func(c *gin.Context) {
			close(slow)
			<-p.Draining
			close(drained)
			<-finish
			if c.Request.Context().Err() != nil {
				t.Error("the request was cancelled")
			}
			closed("request")
			c.String(http.StatusOK, "done")
		})
		for _, what := range []string{"first", "second", "third"} {
			p.OnShutdown(what, func(ctx context.Context) error {
				if _, err := p.Dapr.GetState(ctx, "statestore", "k", nil); err != nil {
					t.Errorf("when %s is closed the sidecar is gone already: %v", what, err)
				}
				closed(what)
				return nil
			})
		}
		return nil
	})
	var load sync.WaitGroup
	var served atomic.Int32
	for range 8 {
		load.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				resp, err := client.Get(r.url + "/fast")
				if err != nil {
					return // refused
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || string(body) != "done" {
					t.Errorf("a request that was taken ended with %s %q %v", resp.Status, body, err)
				}
				served.Add(1)
			}
		})
	}
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get(r.url + "/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()
	<-slow
	eventually(t, "there is load", func() bool { return served.Load() > 100 })
	ended := make(chan error, 1)
	go func() { ended <- r.end() }()
	<-drained
	load.Wait() // all were refused
	if conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://")); err == nil {
		conn.Close()
		t.Error("it takes connections while it ends")
	}
	mu.Lock()
	if len(order) != 0 {
		t.Errorf("%v closed before the last request was done", order)
	}
	mu.Unlock()
	close(finish)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := <-answer; got != "done" {
		t.Errorf("the slow request was answered %q", got)
	}
	if want := []string{"request", "third", "second", "first"}; !slices.Equal(order, want) {
		t.Errorf("closed in the order %v, want %v", order, want)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	entered, never := make(chan struct{}), make(chan struct{})
	defer close(never)
	var closed atomic.Bool
	r := startService(t, startSidecar(t).settings(), func(p *Process) error {
		p.requestsTimeout, p.closeTimeout = 50*time.Millisecond, 50*time.Millisecond
		p.Public.GET("/", func(*gin.Context) { close(entered); <-never })
		p.OnShutdown("the deaf one", func(context.Context) error { <-never; return nil })
		p.OnShutdown("the good one", func(context.Context) error { closed.Store(true); return nil })
		p.OnShutdown("the clumsy one", func(context.Context) error { return errors.New("fell over") })
		return nil
	})
	go func() {
		if resp, err := http.Get(r.url); err == nil {
			resp.Body.Close()
		}
	}()
	<-entered
	err := r.end()
	for _, want := range []string{"requests: context deadline exceeded", "the deaf one: context deadline exceeded", "the clumsy one: fell over"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if !closed.Load() {
		t.Error("the good one was not closed")
	}
}

func TestFailedSetupClosesWhatItBegan(t *testing.T) {
	s := startSidecar(t)
	closed := false
	err := run(t.Context(), "order", newLog(io.Discard, "order", slog.LevelInfo), s.settings(), func(p *Process) error {
		p.OnShutdown("committer", func(context.Context) error { closed = true; return nil })
		return errors.New("no components")
	})
	if err == nil || err.Error() != "no components" || !closed {
		t.Errorf("%v, closed: %t", err, closed)
	}
}

func TestPortInUseIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := startSidecar(t).settings()
	_, c.port, _ = net.SplitHostPort(l.Addr().String())
	err = run(t.Context(), "order", newLog(io.Discard, "order", slog.LevelInfo), c, func(*Process) error {
		t.Error("set up without a port")
		return nil
	})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), c.port) {
		t.Errorf("%v, want an error that names the port", err)
	}
}

func TestServiceStartsBeforeItsSidecar(t *testing.T) {
	c := startSidecar(t).settings()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, c.daprGRPCPort, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	r := startService(t, c, orders)
	if resp, _ := r.call(t, "GET", "/state"); resp.StatusCode != 500 {
		t.Fatalf("there is no sidecar, and yet: %s", resp.Status)
	}
	l, err = net.Listen("tcp", "127.0.0.1:"+c.daprGRPCPort)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterDaprServer(server, &fakeSidecar{})
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	eventually(t, "it has found its sidecar", func() bool {
		resp, _ := r.call(t, "GET", "/state")
		return resp.StatusCode == 200
	})
}

// receiver is an OTLP receiver.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []*tracepb.Span
	names []string // of the services
}

func (r *receiver) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				r.names = append(r.names, a.GetValue().GetStringValue())
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			r.spans = append(r.spans, ss.GetSpans()...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

const (
	callersTrace = "0123456789abcdef0123456789abcdef"
	callersSpan  = "0123456789abcdef"
)

func TestTraceReachesTheSidecarAndTheReceiver(t *testing.T) {
	rec := &receiver{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, rec)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	s := startSidecar(t)
	c := s.settings()
	c.daprToken = "sidecar's secret"
	c.otlpEndpoint = "http://" + listener.Addr().String()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.otlpEndpoint)
	r := startService(t, c, orders)
	resp, body := r.call(t, "GET", "/state?email=ada@example.com", "traceparent", "00-"+callersTrace+"-"+callersSpan+"-01")
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status, body)
	}
	if id := r.log.lines(t, "request")[0]["trace_id"]; id != callersTrace {
		t.Errorf("the log has trace %v", id)
	}
	md := s.lastMetadata(t)
	if got := md.Get("dapr-api-token"); !slices.Equal(got, []string{c.daprToken}) {
		t.Errorf("the sidecar got the tokens %q", got)
	}
	traceparent := strings.Join(md.Get("traceparent"), ",")
	if err := r.end(); err != nil { // sends what waits
		t.Fatal(err)
	}

	spans := map[string]*tracepb.Span{}
	for _, span := range rec.spans {
		spans[span.GetKind().String()] = span
		if got := fmt.Sprintf("%x", span.GetTraceId()); got != callersTrace {
			t.Errorf("span %s is in trace %s", span.GetName(), got)
		}
		if strings.Contains(span.String(), "ada@example.com") {
			t.Errorf("span %s tells who asks: %s", span.GetName(), span)
		}
	}
	in, out := spans["SPAN_KIND_SERVER"], spans["SPAN_KIND_CLIENT"]
	if in == nil || out == nil || !slices.Contains(rec.names, "order") {
		t.Fatalf("services %v sent %v", rec.names, rec.spans)
	}
	if got := fmt.Sprintf("%x", in.GetParentSpanId()); got != callersSpan || in.GetName() != "GET /state" {
		t.Errorf("the request's span %s has the parent %s", in.GetName(), got)
	}
	if !bytes.Equal(out.GetParentSpanId(), in.GetSpanId()) {
		t.Errorf("the call of the sidecar is not part of the request")
	}
	if want := fmt.Sprintf("00-%s-%x-01", callersTrace, out.GetSpanId()); traceparent != want {
		t.Errorf("the sidecar got traceparent %s, want %s", traceparent, want)
	}
}

func TestTraceOfOthersGoesOnWhereTracingIsOff(t *testing.T) {
	for _, flag := range []string{"00", "01"} {
		s := startSidecar(t)
		c := s.settings()
		c.daprToken = "secret"
		r := startService(t, c, orders)
		r.call(t, "GET", "/state", "traceparent", "00-"+callersTrace+"-"+callersSpan+"-"+flag)
		md := s.lastMetadata(t)
		got := strings.Join(md.Get("traceparent"), ",")
		if !strings.HasPrefix(got, "00-"+callersTrace+"-") || !strings.HasSuffix(got, "-"+flag) {
			t.Errorf("flag %s: the sidecar got traceparent %s", flag, got)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	}
}

// service is this binary as a service, with nothing but those variables.
func service(t *testing.T, args []string, vars ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append([]string{"BE_A_SERVICE=1"}, vars...)
	return cmd
}

func TestMainTellsHowItIsConfigured(t *testing.T) {
	for _, tt := range []struct {
		args []string
		exit int
	}{{[]string{"--help"}, 0}, {[]string{"-h"}, 0}, {[]string{"help"}, 0}, {[]string{"serve"}, 2}} {
		out, err := service(t, tt.args).CombinedOutput()
		if code := exitCode(err); code != tt.exit {
			t.Errorf("%v: exit %d, want %d", tt.args, code, tt.exit)
		}
		for _, want := range []string{"takes orders", "APP_PORT", "GREETING", "what it says (default hello)", "LOG_LEVEL"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%v: no %q in\n%s", tt.args, want, out)
			}
		}
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

func TestMainRefusesAConfigurationThatIsNotUsable(t *testing.T) {
	out, err := service(t, nil, "LOG_LEVEL=LOUD", "LISTEN_HOST=0.0.0.0").CombinedOutput()
	if exitCode(err) != 2 {
		t.Errorf("%v, want exit 2", err)
	}
	for _, want := range []string{"APP_PORT is not set", "LOG_LEVEL", "APP_API_TOKEN", "--help"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestMainServesUntilItIsToldToEnd(t *testing.T) {
	s := startSidecar(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	cmd := service(t, nil, "APP_PORT="+port, "DAPR_GRPC_PORT="+s.grpcPort, "DAPR_HTTP_PORT="+s.http, "DAPR_API_TOKEN=x", "GREETING=good day")
	log := &buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it listens", func() bool { return strings.Contains(log.String(), "listening") })
	if _, body := (running{url: "http://127.0.0.1:" + port}).call(t, "GET", "/"); body != "good day" {
		t.Errorf("it says %q", body)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v, want exit 0", err)
	}
	if len(log.lines(t, "stopped")) != 1 { // and every line is JSON
		t.Errorf("the log:\n%s", log)
	}
}
