package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// edit is a change to one file of a good set. What it replaces must be there.
type edit struct {
	file     string // of the broker's folder, or shared/..., or configuration.yaml
	old, new string
}

// brokers are the folders of testdata with one set each.
var brokers = []string{"redis", "jetstream", "rabbitmq", "kafka", "snssqs", "mqtt"}

func TestGoodSetsHaveNoFindings(t *testing.T) {
	for _, broker := range brokers {
		t.Run(broker, func(t *testing.T) {
			if found := examine(t, broker); len(found) > 0 {
				t.Errorf("found %+v", found)
			}
		})
	}
}

// examine checks the good set of a broker after some changes to it.
func examine(t *testing.T, broker string, edits ...edit) []Finding {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{broker, "shared", "configuration.yaml"} {
		copyTo(t, filepath.Join("testdata", name), filepath.Join(dir, name))
	}
	for _, e := range edits {
		file := filepath.Join(dir, e.file)
		if !strings.Contains(e.file, "/") && e.file != "configuration.yaml" {
			file = filepath.Join(dir, broker, e.file)
		}
		replace(t, file, e.old, e.new)
	}
	set, err := FromDirs([]string{filepath.Join(dir, broker), filepath.Join(dir, "shared")}, filepath.Join(dir, "configuration.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found, err := set.Check()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// replace edits a file, or makes it if old is empty and there is none.
func replace(t *testing.T, file, old, new string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if os.IsNotExist(err) && old == "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
	} else if err != nil {
		t.Fatal(err)
	} else if !strings.Contains(string(content), old) {
		t.Fatalf("%s has no %q to replace", file, old)
	}
	if old != "" {
		new = strings.Replace(string(content), old, new, 1)
	}
	if err := os.WriteFile(file, []byte(new), 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if info.IsDir() {
		err = os.CopyFS(to, os.DirFS(from))
	} else {
		var content []byte
		if content, err = os.ReadFile(from); err == nil {
			err = os.WriteFile(to, content, 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rules are the rules of findings, each once.
func rules(found []Finding) []string {
	var ids []string
	for _, f := range found {
		ids = append(ids, f.Rule)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func value(name, v string) string { return "    - name: " + name + "\n      value: \"" + v + "\"\n" }

// A sidecar compares names before scopes, but keeps only the names in its scope: one
// that is read before and belongs to another app is no hindrance.
func TestANameOfAnotherAppBeforeOnesOwn(t *testing.T) {
	dir := t.TempDir()
	const store = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: statestore}\nspec: {type: state.sqlite, version: v1}\n"
	replace(t, filepath.Join(dir, "a.yaml"), "", store+"scopes: [stock]\n")
	replace(t, filepath.Join(dir, "b.yaml"), "", store+"scopes: [shop]\n")
	for app, want := range map[string][]string{"shop": nil, "stock": {"name-repeated"}} {
		set, err := newSet([]appFiles{{id: app, dir: dir, paths: []string{dir}}})
		if err != nil {
			t.Fatal(err)
		}
		found, err := set.Check()
		if err != nil {
			t.Fatal(err)
		}
		if got := rules(found); !slices.Equal(got, want) {
			t.Errorf("for %s: found %v, want %v", app, got, want)
		}
	}
}
