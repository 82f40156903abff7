// Package apitest holds a service's OpenAPI 3.1 document against what the
// service does: it has the same routes, and answers with what is described. It
// also sends what tests ask a service.
package apitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// base is the document's address while its schemas are compiled; it is nowhere.
const base = "mem:///openapi.json"

// Doc is an OpenAPI document.
type Doc struct {
	root      any
	templates []string                     // paths, such as /orders/{id}
	answers   map[string]map[string]answer // by operation, "GET /orders/{id}", and status
}

// answer is what an operation may answer with one status: media type to schema,
// none if the answer has no body.
type answer map[string]*jsonschema.Schema

// Load reads the document in file. It fails the test if a reference in it leads
// nowhere, a schema is none, or an example is not of its schema.
func Load(tb testing.TB, file string) *Doc {
	tb.Helper()
	doc, err := load(file)
	if err != nil {
		tb.Fatalf("%s: %v", file, err)
	}
	return doc
}

func load(file string) (*Doc, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := yaml.Unmarshal(source, &tree); err != nil {
		return nil, err
	}
	text, err := json.Marshal(tree) // fails on a key that is no string, such as a bare 200
	if err != nil {
		return nil, err
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler() // OpenAPI 3.1 schemas are JSON Schema 2020-12, the default
	compiler.AssertFormat()
	if err := compiler.AddResource(base, root); err != nil {
		return nil, err
	}
	doc := &Doc{root: root, answers: map[string]map[string]answer{}}
	if version, _ := at(root, "openapi").(string); !strings.HasPrefix(version, "3.1.") {
		return nil, fmt.Errorf("openapi is %q, want 3.1", version)
	}
	for _, template := range keys(at(root, "paths")) {
		doc.templates = append(doc.templates, template)
		for _, method := range keys(at(root, "paths", template)) {
			if !slices.Contains(methods, strings.ToUpper(method)) {
				continue
			}
			operation := strings.ToUpper(method) + " " + template
			where := []string{"paths", template, method}
			if at(root, append(where, "requestBody")...) != nil {
				if _, err := doc.contents(compiler, append(where, "requestBody")); err != nil {
					return nil, fmt.Errorf("%s: request: %w", operation, err)
				}
			}
			doc.answers[operation] = map[string]answer{}
			for _, status := range keys(at(root, append(where, "responses")...)) {
				a, err := doc.contents(compiler, append(slices.Clone(where), "responses", status))
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", operation, status, err)
				}
				doc.answers[operation][status] = a
			}
		}
	}
	if len(doc.answers) == 0 {
		return nil, fmt.Errorf("it describes no operation")
	}
	return doc, nil
}

var methods = []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodPatch, http.MethodHead, http.MethodOptions}

// contents compiles the schemas of the request body or response at where, which
// may be a reference to one, and holds its examples against them.
func (d *Doc) contents(compiler *jsonschema.Compiler, where []string) (answer, error) {
	if ref, ok := at(d.root, append(slices.Clone(where), "$ref")...).(string); ok {
		local, ok := strings.CutPrefix(ref, "#/")
		if !ok {
			return nil, fmt.Errorf("$ref %q is not into this document", ref)
		}
		where = strings.Split(local, "/")
	}
	if at(d.root, where...) == nil {
		return nil, fmt.Errorf("%s is not there", strings.Join(where, "/"))
	}
	a := answer{}
	for _, mediaType := range keys(at(d.root, append(slices.Clone(where), "content")...)) {
		content := append(slices.Clone(where), "content", mediaType)
		if at(d.root, append(slices.Clone(content), "schema")...) == nil {
			return nil, fmt.Errorf("%s has no schema", mediaType)
		}
		schema, err := compiler.Compile(base + "#" + pointer(append(slices.Clone(content), "schema")))
		if err != nil {
			return nil, err
		}
		a[mediaType] = schema
		examples := map[string]any{}
		if example := at(d.root, append(slices.Clone(content), "example")...); example != nil {
			examples["example"] = example
		}
		for _, name := range keys(at(d.root, append(slices.Clone(content), "examples")...)) {
			examples[name] = at(d.root, append(slices.Clone(content), "examples", name, "value")...)
		}
		for name, example := range examples {
			if err := schema.Validate(example); err != nil {
				return nil, fmt.Errorf("%s %s: %w", mediaType, name, err)
			}
		}
	}
	return a, nil
}

// CheckRoutes fails the test if the routes, "METHOD /path/:param" as gin lists
// them, and the operations of the document are not the same set. Routes in
// except, written in the same way, are not part of the API that the document
// describes; each must be there.
func (d *Doc) CheckRoutes(tb testing.TB, routes []string, except ...string) {
	tb.Helper()
	real := map[string]bool{}
	for _, r := range routes {
		real[r] = true
	}
	for _, r := range except {
		if !real[r] {
			tb.Errorf("route %s is excepted but does not exist", r)
		}
		delete(real, r)
	}
	described := map[string]bool{}
	for operation := range d.answers {
		described[operation] = true
	}
	for r := range real {
		operation := template(r)
		if !described[operation] {
			tb.Errorf("route %s is not described", r)
		}
		delete(described, operation)
	}
	for operation := range described {
		tb.Errorf("%s is described but is not a route", operation)
	}
}

// template is gin's /orders/:id in the way of OpenAPI, /orders/{id}.
func template(route string) string {
	segments := strings.Split(route, "/")
	for i, s := range segments {
		if name, ok := strings.CutPrefix(s, ":"); ok {
			segments[i] = "{" + name + "}"
		}
	}
	return strings.Join(segments, "/")
}

// CheckResponse fails the test if the document does not describe this answer of
// the operation. The path is that of a request, with or without a query, or a
// template of the document.
func (d *Doc) CheckResponse(tb testing.TB, method, path string, status int, body []byte) {
	tb.Helper()
	if err := d.check(method, path, status, body); err != nil {
		tb.Errorf("%s %s answers %d: %v\n%s", method, path, status, err, body)
	}
}

func (d *Doc) check(method, path string, status int, body []byte) error {
	path, _, _ = strings.Cut(path, "?")
	operation := method + " " + d.match(path)
	statuses, ok := d.answers[operation]
	if !ok {
		return fmt.Errorf("the operation is not described")
	}
	a, ok := statuses[strconv.Itoa(status)]
	if !ok {
		return fmt.Errorf("the status is not described; %s are", strings.Join(slices.Sorted(maps.Keys(statuses)), ", "))
	}
	if len(a) == 0 {
		if len(body) > 0 {
			return fmt.Errorf("the answer is described as having no body")
		}
		return nil
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the body is not JSON: %w", err)
	}
	var errs []string
	for mediaType, schema := range a {
		err := schema.Validate(v)
		if err == nil {
			return nil
		}
		errs = append(errs, mediaType+": "+err.Error())
	}
	return fmt.Errorf("%s", strings.Join(errs, "\n"))
}

// match is the template that the path is of: itself, or the one with the fewest
// parameters.
func (d *Doc) match(path string) string {
	best, fewest := "", len(path)+1
	for _, t := range d.templates {
		if params, ok := fits(t, path); ok && params < fewest {
			best, fewest = t, params
		}
	}
	return best
}

func fits(template, path string) (params int, ok bool) {
	if template == path {
		return 0, true
	}
	want, have := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(have) {
		return 0, false
	}
	for i := range want {
		switch {
		case strings.HasPrefix(want[i], "{"):
			params++
		case want[i] != have[i]:
			return 0, false
		}
	}
	return params, true
}

// at is what stands under keys, or nil.
func at(v any, keys ...string) any {
	for _, key := range keys {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

func keys(v any) []string {
	m, _ := v.(map[string]any)
	return slices.Sorted(maps.Keys(m))
}

// pointer is a JSON pointer (RFC 6901) as the fragment of a URL.
func pointer(keys []string) string {
	var b strings.Builder
	for _, key := range keys {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(key))
	}
	return b.String()
}
