package apitest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Response is what a service answered.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Send sends a request, whose body is JSON if there is one, with headers as names and
// values in turn. It fails the test if there is no answer.
func Send(tb testing.TB, method, url, body string, header ...string) Response {
	tb.Helper()
	if len(header)%2 != 0 {
		tb.Fatalf("the last header has no value: %q", header)
	}
	req, err := http.NewRequestWithContext(tb.Context(), method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return Response{resp.StatusCode, resp.Header, got}
}

// Verdict is what a subscriber answered its sidecar: SUCCESS, RETRY or DROP.
func (r Response) Verdict(tb testing.TB) string {
	tb.Helper()
	var v struct{ Status string }
	if err := json.Unmarshal(r.Body, &v); err != nil || r.Status != http.StatusOK {
		tb.Fatalf("no verdict: %d %s", r.Status, r.Body)
	}
	return v.Status
}
