package cases

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"orderflow/events"
	"orderflow/test/system"
)

var schemas struct {
	sync.Once
	compiler *jsonschema.Compiler
	err      error
}

// schema is the JSON Schema of that id, from the files of the contract.
func schema(t *testing.T, id string) *jsonschema.Schema {
	t.Helper()
	schemas.Do(func() {
		schemas.compiler = jsonschema.NewCompiler()
		schemas.compiler.AssertFormat()
		files, err := filepath.Glob(filepath.Join(system.Root(t), "events", "schemas", "*.json"))
		if err != nil {
			schemas.err = err
			return
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				schemas.err = err
				return
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
			if err != nil {
				schemas.err = err
				return
			}
			id, _ := doc.(map[string]any)["$id"].(string)
			if err := schemas.compiler.AddResource(id, doc); err != nil {
				schemas.err = err
				return
			}
		}
	})
	if schemas.err != nil {
		t.Fatal(schemas.err)
	}
	s, err := schemas.compiler.Compile(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// CheckContract holds the order's events, as they are published, against the
// schemas that they name.
func CheckContract(t *testing.T, s *system.System, orderID string) {
	t.Helper()
	a, err := system.Send(t.Context(), http.MethodGet, s.Order.URL+"/orders/"+orderID+"/events", nil)
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("events of order %s: %s (%v)", orderID, a, err)
	}
	var history struct {
		Events []json.RawMessage `json:"events"`
	}
	a.Read(t, &history)
	if len(history.Events) == 0 {
		t.Errorf("order %s has no events", orderID)
	}
	for _, raw := range history.Events {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema(t, events.SchemaBase+"cloudevent").Validate(doc); err != nil {
			t.Errorf("not a CloudEvent of the contract: %v\n%s", err, raw)
			continue
		}
		e := doc.(map[string]any)
		dataSchema, _ := e["dataschema"].(string)
		if err := schema(t, dataSchema).Validate(e["data"]); err != nil {
			t.Errorf("data violates %s: %v\n%s", dataSchema, err, raw)
		}
	}
}

// CheckProblem checks that the answer is an RFC 9457 problem that says what is
// wrong.
func CheckProblem(t *testing.T, a system.Answer) {
	t.Helper()
	if kind := a.Header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("answer %s is %s, want application/problem+json", a, kind)
		return
	}
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	a.Read(t, &p)
	if p.Status != a.Status || p.Type == "" || p.Title == "" || len(strings.Fields(p.Detail)) < 3 {
		t.Errorf("a problem that helps nobody: %s", a)
	}
}
