package apitest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const document = `
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /things:
    get:
      responses:
        "200":
          description: all
          content: {application/json: {schema: {type: array, items: {$ref: "#/components/schemas/Thing"}}, example: [{id: a}]}}
  /things/{id}:
    get:
      responses:
        "200": {description: one, content: {application/json: {schema: {$ref: "#/components/schemas/Thing"}}}}
        "404": {$ref: "#/components/responses/Problem"}
    delete:
      responses:
        "204": {description: gone}
  /things/mine:
    get:
      responses:
        "200": {description: mine, content: {application/json: {schema: {const: mine}}}}
components:
  responses:
    Problem: {description: no, content: {application/problem+json: {schema: {type: object, required: [title]}}}}
  schemas:
    Thing: {type: object, required: [id], properties: {id: {type: string}, at: {type: string, format: date-time}}, additionalProperties: false}
`

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "openapi.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCheckResponse(t *testing.T) {
	doc := Load(t, write(t, document))
	tests := []struct {
		name, method, path string
		status             int
		body               string
		want               string // part of the error, "" for none
	}{
		{"described", "GET", "/things", 200, `[{"id":"a"}]`, ""},
		{"query", "GET", "/things?limit=1", 200, `[]`, ""},
		{"parameter", "GET", "/things/a", 200, `{"id":"a","at":"2026-01-02T03:04:05Z"}`, ""},
		{"template", "GET", "/things/{id}", 200, `{"id":"a"}`, ""},
		{"the path without a parameter comes first", "GET", "/things/mine", 200, `"mine"`, ""},
		{"problem", "GET", "/things/a", 404, `{"title":"no"}`, ""},
		{"no body", "DELETE", "/things/a", 204, ``, ""},
		{"another type", "GET", "/things/a", 200, `{"id":1}`, "got number"},
		{"a field more", "GET", "/things/a", 200, `{"id":"a","x":1}`, "additional properties"},
		{"a bad format", "GET", "/things/a", 200, `{"id":"a","at":"today"}`, "date-time"},
		{"a status that is not described", "GET", "/things/a", 500, `{}`, "200, 404"},
		{"an operation that is not described", "POST", "/things", 200, `{}`, "operation"},
		{"a body too much", "DELETE", "/things/a", 204, `{}`, "no body"},
		{"not JSON", "GET", "/things", 200, `[`, "not JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := doc.check(tt.method, tt.path, tt.status, []byte(tt.body))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %q", err, tt.want)
			}
		})
	}
}

// recorder is a test that only counts its failures.
type recorder struct {
	testing.TB
	errors int
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.errors++ }

func TestCheckRoutes(t *testing.T) {
	doc := Load(t, write(t, document))
	all := []string{"GET /things", "GET /things/:id", "DELETE /things/:id", "GET /things/mine", "GET /healthz"}
	tests := []struct {
		name   string
		routes []string
		except []string
		errors int
	}{
		{"the same", all, []string{"GET /healthz"}, 0},
		{"a route that is not described", all, nil, 1},
		{"an operation that is no route", all[1:], []string{"GET /healthz"}, 1},
		{"an exception that does not exist", all, []string{"GET /healthz", "GET /metrics"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &recorder{}
			doc.CheckRoutes(r, tt.routes, tt.except...)
			if r.errors != tt.errors {
				t.Errorf("%d errors, want %d", r.errors, tt.errors)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := []struct{ name, from, to, want string }{
		{"a reference to nothing", "#/components/responses/Problem", "#/components/responses/Other", "not there"},
		{"a schema reference to nothing", "items: {$ref: \"#/components/schemas/Thing\"}", "items: {$ref: \"#/components/schemas/Other\"}", "Other"},
		{"a schema that is none", "{type: string}", "{type: text}", "type"},
		{"an example that is not of its schema", "[{id: a}]", "[{id: 1}]", "example"},
		{"another version", "openapi: 3.1.0", "openapi: 3.0.3", "3.0.3"},
		{"a status that is no string", `"204"`, "204", "json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(document, tt.from, tt.to, 1)
			if text == document {
				t.Fatal("nothing was replaced")
			}
			_, err := load(write(t, text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %q", err, tt.want)
			}
		})
	}
}
