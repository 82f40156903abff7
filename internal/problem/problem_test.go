package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
)

type request struct {
	Name  string `json:"name"`
	Lines []struct {
		ID       string `json:"id"`
		Quantity int    `json:"quantity"`
	} `json:"lines"`
	Note map[string]any `json:"note"`
}

// serve answers one request by handle over an empty table.
func serve(handle func(*gin.Context) error, table Table, header http.Header, body io.Reader) (*httptest.ResponseRecorder, *bytes.Buffer) {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	log := &bytes.Buffer{}
	r.POST("/", table.Handle(slog.New(slog.NewJSONHandler(log, nil)), handle))
	w := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, "/", body)
	req.Header = header
	r.ServeHTTP(w, req)
	return w, log
}

// decoded is the problem that w holds; it must be one (RFC 9457).
func decoded(t *testing.T, w *httptest.ResponseRecorder) Problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%q: %v", w.Body, err)
	}
	if p.Status != w.Code || p.Type == "" || p.Title == "" {
		t.Errorf("status %d with the problem %+v", w.Code, p)
	}
	return p
}

const limit = 1000

func TestReadJSON(t *testing.T) {
	pad := func(n int) string { return `{"name":"` + strings.Repeat("x", n-len(`{"name":""}`)) + `"}` }
	for name, tt := range map[string]struct {
		contentType, body string
		status            int
		says              string
	}{
		"an object":                {"application/json", `{"name":"a","lines":[{"id":"b","quantity":2}]}`, 200, ""},
		"with a charset":           {"application/json; charset=utf-8", `{"name":"a"}`, 200, ""},
		"in capitals":              {"Application/JSON", `{"name":"a"}`, 200, ""},
		"white space around":       {"application/json", " \r\n\t{\"name\":\"a\"}\n\n", 200, ""},
		"escapes":                  {"application/json", `{"n\u0061me":"\ud83d\ude00"}`, 200, ""},
		"the limit":                {"application/json", pad(limit), 200, ""},
		"equal names apart":        {"application/json", `{"lines":[{"id":"1"},{"id":"2"}],"note":{"id":1,"lines":{"id":2}}}`, 200, ""},
		"values equal to names":    {"application/json", `{"name":"name","note":{"a":"a","b":"a"}}`, 200, ""},
		"one over the limit":       {"application/json", pad(limit + 1), 413, "1000 bytes"},
		"far over the limit":       {"application/json", strings.Repeat(" ", 1<<20), 413, "1000 bytes"},
		"no content type":          {"", `{}`, 415, "Content-Type: application/json"},
		"a form":                   {"application/x-www-form-urlencoded", `name=a`, 415, "Content-Type: application/json"},
		"text":                     {"text/plain", `{}`, 415, "Content-Type: application/json"},
		"almost JSON":              {"application/jsonp", `{}`, 415, "Content-Type: application/json"},
		"a broken content type":    {"application/json; charset", `{}`, 415, "Content-Type: application/json"},
		"empty":                    {"application/json", "", 400, "empty"},
		"blank":                    {"application/json", " \n", 400, "empty"},
		"null":                     {"application/json", "null", 400, "object"},
		"a list":                   {"application/json", `[{"name":"a"}]`, 400, "object"},
		"a string":                 {"application/json", `"a"`, 400, "object"},
		"byte order mark":          {"application/json", "\ufeff{}", 400, "begin with {"},
		"UTF-16":                   {"application/json", "{\x00}\x00", 400, "invalid character"},
		"invalid UTF-8":            {"application/json", "{\"name\":\"\xff\"}", 400, "UTF-8"},
		"cut":                      {"application/json", `{"name":"a"`, 400, "ends too early"},
		"a comma too many":         {"application/json", `{"name":"a",}`, 400, "invalid character '}'"},
		"single quotes":            {"application/json", `{'name':'a'}`, 400, "invalid character"},
		"a control character":      {"application/json", "{\"name\":\"a\nb\"}", 400, "invalid character"},
		"two values":               {"application/json", `{"name":"a"}{"name":"b"}`, 400, "more after"},
		"something after":          {"application/json", `{"name":"a"} x`, 400, "more after"},
		"a bracket after":          {"application/json", `{"name":"a"}]`, 400, "more after"},
		"unknown name":             {"application/json", `{"nome":"a"}`, 400, `unknown field "nome"`},
		"unknown name inside":      {"application/json", `{"lines":[{"id":"a","price":1}]}`, 400, `unknown field "price"`},
		"wrong type":               {"application/json", `{"name":7}`, 400, "name can't be a number"},
		"wrong type inside":        {"application/json", `{"lines":[{"id":"a","quantity":"2"}]}`, 400, "lines.quantity can't be a string"},
		"fraction":                 {"application/json", `{"lines":[{"quantity":1.5}]}`, 400, "lines.quantity can't be a number 1.5"},
		"too large a number":       {"application/json", `{"lines":[{"quantity":1e30}]}`, 400, "lines.quantity can't be a number 1e30"},
		"a name twice":             {"application/json", `{"name":"a","name":"b"}`, 400, `"name" is given twice`},
		"the same name twice":      {"application/json", `{"name":"a","name":"a"}`, 400, `"name" is given twice`},
		"twice, escaped":           {"application/json", `{"name":"a","n\u0061me":"b"}`, 400, `"name" is given twice`},
		"twice, in another case":   {"application/json", `{"name":"a","NAME":"b"}`, 400, `"NAME" is given twice`},
		"twice, with a long s":     {"application/json", `{"lines":[],"lineſ":[]}`, 400, `is given twice`},
		"twice inside a list":      {"application/json", `{"lines":[{"id":"a"},{"id":"a","quantity":1,"id":"b"}]}`, 400, `"id" is given twice`},
		"twice inside an object":   {"application/json", `{"note":{"a":{"b":[[],{}],"b":1}}}`, 400, `"b" is given twice`},
		"twice, after an object":   {"application/json", `{"note":{"a":1},"name":"x","note":{}}`, 400, `"note" is given twice`},
		"deep, and still small":    {"application/json", `{"note":{"a":` + strings.Repeat("[", 400) + strings.Repeat("]", 400) + `}}`, 200, ""},
		"deeper than the decoder ": {"application/json", `{"note":{"a":` + strings.Repeat("[", 900), 400, "ends too early"},
	} {
		t.Run(name, func(t *testing.T) {
			var got request
			w, _ := serve(func(c *gin.Context) error {
				body, err := ReadJSON(c, limit, &got)
				if err == nil && string(body) != tt.body {
					t.Errorf("read %q", body)
				}
				return err
			}, nil, http.Header{"Content-Type": {tt.contentType}}, strings.NewReader(tt.body))
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if tt.status == 200 {
				return
			}
			if p := decoded(t, w); !strings.Contains(p.Detail, tt.says) || strings.Contains(p.Detail, "Go ") || strings.Contains(p.Detail, "json:") {
				t.Errorf("detail %q, want %q in it", p.Detail, tt.says)
			}
		})
	}
}

func TestReadJSONOfVeryDeepNestingFails(t *testing.T) {
	deep := `{"note":{"a":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}}`
	var v request
	w, _ := serve(func(c *gin.Context) error { _, err := ReadJSON(c, 4<<20, &v); return err }, nil,
		http.Header{"Content-Type": {"application/json"}}, strings.NewReader(deep))
	if p := decoded(t, w); w.Code != 400 || !strings.Contains(p.Detail, "max depth") {
		t.Errorf("%d %q", w.Code, p.Detail)
	}
}

func TestReadJSONOfABodyThatBreaksOff(t *testing.T) {
	w, _ := serve(func(c *gin.Context) error { _, err := ReadJSON(c, limit, &request{}); return err }, nil,
		http.Header{"Content-Type": {"application/json"}}, io.MultiReader(strings.NewReader(`{"name"`), broken{}))
	if p := decoded(t, w); w.Code != 400 || !strings.Contains(p.Detail, "could not be read") {
		t.Errorf("%d %q", w.Code, p.Detail)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestTable(t *testing.T) {
	errGone, errBusy := errors.New("gone"), errors.New("busy")
	table := Table{
		{errGone, func(err error) *Problem { return New(410, "gone", "It is gone", "It was there: %v.", err) }},
		{errBusy, func(error) *Problem { return Unavailable("Wait.") }},
		{errGone, func(error) *Problem { return New(418, "never", "Never", "") }},
	}
	for name, tt := range map[string]struct {
		err        error
		status     int
		kind       string
		says       string
		retryAfter string
		logged     bool
	}{
		"in the table":            {errGone, 410, "gone", "It was there: gone.", "", false},
		"wrapped":                 {fmt.Errorf("find x: %w", errGone), 410, "gone", "It was there: find x: gone.", "", false},
		"both: the first row":     {errors.Join(errBusy, errGone), 410, "gone", "", "", false},
		"unavailable":             {errBusy, 503, "unavailable", "Wait.", "1", true},
		"a problem":               {Invalid("Count is %d.", 7), 400, "invalid-request", "Count is 7.", "", false},
		"a problem, wrapped":      {fmt.Errorf("%w: %w", errGone, Invalid("No.")), 400, "invalid-request", "No.", "", false},
		"unknown":                 {errors.New("password is hunter2"), 500, "internal", "its log says why", "", true},
		"what says %s in its own": {Invalid("%v", errors.New("100%s")), 400, "invalid-request", "100%s", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w, log := serve(func(*gin.Context) error { return tt.err }, table, http.Header{}, nil)
			p := decoded(t, w)
			if w.Code != tt.status || p.Type != typeBase+tt.kind || !strings.Contains(p.Detail, tt.says) {
				t.Errorf("%d %+v", w.Code, p)
			}
			if got := w.Header().Get("Retry-After"); got != tt.retryAfter {
				t.Errorf("Retry-After %q, want %q", got, tt.retryAfter)
			}
			if strings.Contains(w.Body.String(), "hunter2") {
				t.Errorf("the cause is told: %s", w.Body)
			}
			if logged := strings.Contains(log.String(), tt.err.Error()); logged != tt.logged {
				t.Errorf("cause in the log: %t, want %t: %s", logged, tt.logged, log)
			}
		})
	}
}

func TestHandlerWithoutErrorAnswersForItself(t *testing.T) {
	w, log := serve(func(c *gin.Context) error { c.String(http.StatusCreated, "done"); return nil }, nil, http.Header{}, nil)
	if w.Code != http.StatusCreated || w.Body.String() != "done" || log.Len() > 0 {
		t.Errorf("%d %s, logged %q", w.Code, w.Body, log)
	}
}

func TestWriteEndsTheHandling(t *testing.T) {
	r := gin.New()
	r.GET("/", func(c *gin.Context) { Write(c, Invalid("No.")) }, func(*gin.Context) { t.Error("the next handler ran") })
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if p := decoded(t, w); p.Detail != "No." {
		t.Errorf("%+v", p)
	}
}

func FuzzReadJSON(f *testing.F) {
	for _, seed := range []string{`{"name":"a"}`, `{"note":{"a":[{"b":1}]}}`, `{"a":1,"A":2}`, "\ufeff{}", `{}{}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var v map[string]any
		err := decode(body, &v)
		if err != nil {
			return
		}
		// What is taken is valid to everybody and means the same to everybody:
		// written again it has as many names.
		again, err := json.Marshal(v)
		if err != nil || !json.Valid(body) {
			t.Fatalf("%q was taken: %v", body, err)
		}
		if a, b := countNames(again), countNames(body); a != b {
			t.Fatalf("%q has %d names and means %q, which has %d", body, b, again, a)
		}
	})
}

// countNames counts the colons that are in no string.
func countNames(b []byte) int {
	n, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch {
		case quoted && b[i] == '\\':
			i++
		case b[i] == '"':
			quoted = !quoted
		case !quoted && b[i] == ':':
			n++
		}
	}
	return n
}
