package events_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/build"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"orderflow/events"
)

// An entry is a row of the table in the package's documentation, which is where
// people look up who says what to whom: the tests hold everything against it.
type entry struct {
	topic, sender string
	receivers     []string
}

// senders are the services that say it; "each" are those that take part in the flow.
func (e entry) senders() []string {
	if e.sender == "each" {
		return []string{"inventory", "notification", "order"}
	}
	return []string{e.sender}
}

func documented(t testing.TB) map[string]entry {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "events.go", nil, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\t([A-Z_]+) +([a-z-]+) +([a-z]+) +(.+)$`)
	table := map[string]entry{}
	for _, m := range row.FindAllStringSubmatch(file.Doc.Text(), -1) {
		e := entry{topic: m[2], sender: m[3]}
		if !strings.HasPrefix(m[4], "(") { // in parentheses: why there is no receiver
			e.receivers = strings.Split(m[4], ", ")
		}
		table[m[1]] = e
	}
	return table
}

// versions lists each type in each of its versions as the files are named:
// "ORDER_CREATED.v1".
func versions() []string {
	var names []string
	for name, vs := range events.Types() {
		for _, v := range vs {
			names = append(names, fmt.Sprintf("%s.v%d", name, v))
		}
	}
	slices.Sort(names)
	return names
}

func TestDocumentedTypesAreTheTypes(t *testing.T) {
	table := documented(t)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(events.Types())), slices.Sorted(maps.Keys(table))); diff != "" {
		t.Errorf("package documentation (-Types +documented):\n%s", diff)
	}
	for name, e := range table {
		if topic := (events.Event{Type: name}).Topic(); topic != e.topic {
			t.Errorf("%s: topic is %s, documented as %s", name, topic, e.topic)
		}
	}
}

func TestEveryVersionHasItsFilesAndNoOtherExists(t *testing.T) {
	for dir, want := range map[string][]string{"schemas": append(versions(), "cloudevent"), "examples": versions()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]string, len(entries))
		for i, e := range entries {
			got[i] = e.Name()
		}
		for i := range want {
			want[i] += ".json"
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s/ (-want +got):\n%s", dir, diff)
		}
	}
}

func TestSchemas(t *testing.T) {
	for _, name := range append(versions(), "cloudevent") {
		t.Run(name, func(t *testing.T) {
			schema(t, "schemas/"+name+".json") // holds it against the metaschema too
			doc := readJSON(t, "schemas/"+name+".json").(map[string]any)
			if doc["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
				t.Errorf("$schema is %v", doc["$schema"])
			}
			want := events.SchemaBase + strings.Replace(name, ".v", "/v", 1)
			if doc["$id"] != want {
				t.Errorf("$id is %v, New puts %s into dataschema", doc["$id"], want)
			}
			checkDescribed(t, "#", doc)
		})
	}
}

// checkDescribed wants a description of every property, and of what holds them,
// and no refusal of unknown properties: a new one must harm no reader.
func checkDescribed(t *testing.T, at string, schema map[string]any) {
	_, described := schema["description"]
	if _, typed := schema["type"]; typed && !described {
		t.Errorf("%s has no description", at)
	}
	for _, keyword := range []string{"additionalProperties", "unevaluatedProperties", "propertyNames"} {
		if _, ok := schema[keyword]; ok {
			t.Errorf("%s has %s", at, keyword)
		}
	}
	for _, keyword := range []string{"properties", "$defs"} {
		of, _ := schema[keyword].(map[string]any)
		for name, s := range of {
			at := at + "/" + keyword + "/" + name
			if d, _ := s.(map[string]any)["description"].(string); d == "" {
				t.Errorf("%s has no description", at)
			}
			checkDescribed(t, at, s.(map[string]any))
		}
	}
}

// The golden events are what the services publish, to the byte.
func TestExamplesAreWhatNewMakes(t *testing.T) {
	table := documented(t)
	for _, name := range versions() {
		t.Run(name, func(t *testing.T) {
			golden := read(t, "examples/"+name+".json")
			e, err := events.Parse(golden)
			if err != nil {
				t.Fatal(err)
			}
			version, err := e.Version()
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%s.v%d", e.Type, version); got != name {
				t.Errorf("holds a %s", got)
			}
			if want := table[e.Type].senders(); !slices.Contains(want, e.Source) {
				t.Errorf("source is %s, documented as %v", e.Source, want)
			}
			if ok, _ := regexp.MatchString(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`, e.TraceParent); !ok {
				t.Errorf("traceparent %q is not one of W3C Trace Context", e.TraceParent)
			}
			p, err := events.Decode(e)
			if err != nil {
				t.Fatal(err)
			}
			var aggregateVersion int
			if _, err := fmt.Sscanf(strings.TrimPrefix(e.ID, e.Subject), ":%d:"+e.Type, &aggregateVersion); err != nil {
				t.Fatalf("id %s: %v", e.ID, err)
			}
			made, err := events.New(e.Source, aggregateVersion, e.Time, p)
			if err != nil {
				t.Fatal(err)
			}
			made.TraceParent = e.TraceParent
			b, err := json.MarshalIndent(made, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(golden), string(b)+"\n"); diff != "" {
				t.Errorf("-golden +New:\n%s", diff)
			}
		})
	}
}

type ref struct {
	Ref string `yaml:"$ref"`
}

type asyncAPI struct {
	Version  string `yaml:"asyncapi"`
	Channels map[string]struct {
		Address  string
		Messages map[string]ref
	}
	Operations map[string]struct {
		Action   string
		Tags     []struct{ Name string }
		Channel  ref
		Messages []ref
	}
	Components struct {
		Messages map[string]struct {
			Name        string
			ContentType string `yaml:"contentType"`
			Examples    []struct{ Payload ref }
		}
	}
}

func readAsyncAPI(t *testing.T) asyncAPI {
	t.Helper()
	var doc asyncAPI
	if err := yaml.Unmarshal(read(t, "asyncapi.yaml"), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestAsyncAPIChannelsAndOperations(t *testing.T) {
	doc := readAsyncAPI(t)
	if doc.Version != "3.0.0" {
		t.Errorf("asyncapi is %s", doc.Version)
	}

	wantChannels := map[string][]string{events.TopicOrders: nil, events.TopicInventory: nil, events.TopicDeadLetters: nil}
	var wantOperations []string // "service action topic message"
	table := documented(t)
	for _, name := range versions() {
		e := table[strings.TrimSuffix(name, path.Ext(name))]
		wantChannels[e.topic] = append(wantChannels[e.topic], name)
		for _, sender := range e.senders() {
			wantOperations = append(wantOperations, fmt.Sprint(sender, " send ", e.topic, " ", name))
		}
		for _, receiver := range e.receivers {
			wantOperations = append(wantOperations, fmt.Sprint(receiver, " receive ", e.topic, " ", name))
		}
	}
	slices.Sort(wantOperations)

	channels := map[string][]string{}
	for name, ch := range doc.Channels {
		if ch.Address != name {
			t.Errorf("channel %s has the address %s", name, ch.Address)
		}
		channels[name] = slices.Sorted(maps.Keys(ch.Messages))
		for key, message := range ch.Messages {
			if message.Ref != "#/components/messages/"+key {
				t.Errorf("channel %s: message %s is %s", name, key, message.Ref)
			}
		}
	}
	if diff := cmp.Diff(wantChannels, channels); diff != "" {
		t.Errorf("channels (-want +got):\n%s", diff)
	}

	var operations []string
	for name, op := range doc.Operations {
		if len(op.Tags) != 1 {
			t.Errorf("operation %s: its one tag is the service, it has %v", name, op.Tags)
			continue
		}
		topic := strings.TrimPrefix(op.Channel.Ref, "#/channels/")
		for _, message := range op.Messages {
			key := strings.TrimPrefix(message.Ref, op.Channel.Ref+"/messages/")
			operations = append(operations, fmt.Sprint(op.Tags[0].Name, " ", op.Action, " ", topic, " ", key))
		}
	}
	slices.Sort(operations)
	if diff := cmp.Diff(wantOperations, operations); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

func TestAsyncAPIMessages(t *testing.T) {
	messages := readAsyncAPI(t).Components.Messages
	if diff := cmp.Diff(versions(), slices.Sorted(maps.Keys(messages))); diff != "" {
		t.Fatalf("messages (-want +got):\n%s", diff)
	}
	for name, m := range messages {
		t.Run(name, func(t *testing.T) {
			if want := strings.TrimSuffix(name, path.Ext(name)); m.Name != want {
				t.Errorf("name is %s, want %s", m.Name, want)
			}
			if m.ContentType != events.ContentType {
				t.Errorf("contentType is %s", m.ContentType)
			}
			if len(m.Examples) != 1 || m.Examples[0].Payload.Ref != "./examples/"+name+".json" {
				t.Errorf("examples are %v", m.Examples)
			}
			payload := schema(t, "asyncapi.yaml#/components/messages/"+name+"/payload")
			for _, other := range versions() { // an event is of one message and no other
				err := payload.Validate(readJSON(t, "examples/"+other+".json"))
				if (err == nil) != (other == name) {
					t.Errorf("example %s: %v", other, err)
				}
			}
			bare := readJSON(t, "examples/"+name+".json").(map[string]any)
			delete(bare, "datacontenttype")
			delete(bare, "data")
			if err := payload.Validate(bare); (err == nil) != !slices.Contains(withData, m.Name) {
				t.Errorf("without data: %v", err)
			}
		})
	}
}

// A reader in another language needs nothing of this repository, and neither does
// this package: it can be vendored by whoever talks to the services.
func TestOnlyTheStandardLibraryIsImported(t *testing.T) {
	p, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Imports) == 0 {
		t.Fatal("no imports found")
	}
	for _, name := range p.Imports {
		if dep, err := build.Import(name, ".", build.FindOnly); err != nil || !dep.Goroot {
			t.Errorf("%v imports %s", p.ImportPos[name], name)
		}
	}
}

// The schemas' compiler reads from this directory only, so that a reference to
// anything outside fails.
const here = "file:///events/"

type loader struct{}

func (loader) Load(url string) (any, error) {
	name, ok := strings.CutPrefix(url, here)
	if !ok {
		return nil, fmt.Errorf("%s is outside of the contract", url)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if path.Ext(name) == ".yaml" {
		var doc any
		err := yaml.Unmarshal(b, &doc)
		return doc, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(b))
}

// schema compiles a file, or the part of it after '#'. Formats are not asserted,
// as the specification leaves it: the patterns say all that is meant.
func schema(t testing.TB, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.UseLoader(loader{})
	s, err := c.Compile(here + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readJSON(t testing.TB, name string) any {
	t.Helper()
	return parsed(t, read(t, name))
}

// parsed keeps numbers as they are written.
func parsed(t testing.TB, b []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
