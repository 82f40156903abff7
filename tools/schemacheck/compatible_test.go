package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const base = `{"title":"T","type":"object","required":["a","b"],
	"properties":{"a":{"description":"x","type":"string","enum":["X","Y"]},"b":{"$ref":"#/$defs/d"},"c":{"type":"array","items":{"type":"object","required":["k"],"properties":{"k":{"type":"integer","maximum":5}}}}},
	"if":{"properties":{"a":{"const":"X"}}},"then":{"required":["c"]},
	"$defs":{"d":{"type":"string","pattern":"^x"}}}`

func TestDifferences(t *testing.T) {
	for name, tt := range map[string]struct {
		from, to string // in base
		want     []string
	}{
		"nothing":                           {"", "", nil},
		"another description":               {`"description":"x"`, `"description":"y"`, nil},
		"another title":                     {`"title":"T"`, `"title":"U"`, nil},
		"required in another order":         {`["a","b"]`, `["b","a"]`, nil},
		"a new optional field":              {`"b":{`, `"n":{"type":"string"},"b":{`, nil},
		"one called description":            {`"b":{`, `"description":{"type":"string"},"b":{`, nil},
		"a new optional field of an item":   {`"k":{`, `"n":{},"k":{`, nil},
		"a new definition":                  {`"$defs":{`, `"$defs":{"e":{},`, nil},
		"a new required field":              {`["a","b"]`, `["a","b","c"]`, []string{"#/required was [a b], is [a b c]"}},
		"a required field becomes optional": {`["a","b"]`, `["a"]`, []string{"#/required was [a b], is [a]"}},
		"a field is gone":                   {`"b":{"$ref":"#/$defs/d"},`, ``, []string{"#/properties/b is gone"}},
		"another type":                      {`"type":"string","enum"`, `"type":"integer","enum"`, []string{"#/properties/a/type was string, is integer"}},
		"a value more":                      {`["X","Y"]`, `["X","Y","Z"]`, []string{"#/properties/a/enum was [X Y], is [X Y Z]"}},
		"a tighter bound":                   {`"maximum":5`, `"maximum":4`, []string{"#/properties/c/items/properties/k/maximum was 5, is 4"}},
		"a new bound":                       {`"maximum":5`, `"maximum":5,"minimum":1`, []string{"#/properties/c/items/properties/k/minimum is new"}},
		"a bound less":                      {`,"maximum":5`, ``, []string{"#/properties/c/items/properties/k/maximum is gone"}},
		"another pattern behind a name":     {`^x`, `^y`, []string{"#/$defs/d/pattern was ^x, is ^y"}},
		"a definition is gone":              {`"d":{"type":"string","pattern":"^x"}`, ``, []string{"#/$defs/d is gone"}},
		"another condition":                 {`"const":"X"`, `"const":"Y"`, []string{"#/if was map[properties:map[a:map[const:X]]], is map[properties:map[a:map[const:Y]]]"}},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(base, tt.from) {
				t.Fatalf("%s is not in the schema", tt.from)
			}
			got, err := differences([]byte(base), []byte(strings.Replace(base, tt.from, tt.to, 1)))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// The whole history counts, and so does what is not committed yet.
func TestHistory(t *testing.T) {
	dir := t.TempDir()
	day := "2026-01-01T00:00:00Z"
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE="+day)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	schemas := filepath.Join(dir, "schemas")
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(schemas, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(schemas, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	published := ""
	want := func(compared int, problems ...string) {
		t.Helper()
		n, got, err := check(schemas, published)
		if err != nil {
			t.Fatal(err)
		}
		if n != compared || len(got) != len(problems) {
			t.Fatalf("compared %d, found %q; want %d, %q", n, got, compared, problems)
		}
		for i, p := range problems {
			if !strings.HasPrefix(got[i], p) {
				t.Errorf("found %q, want %q", got[i], p)
			}
		}
	}
	run("init", "-q")
	write("A.v1.json", base)
	write("B.v1.json", base)
	run("add", ".")
	run("commit", "-q", "-m", "1")
	want(2)
	write("A.v1.json", strings.Replace(base, `"b":{`, `"n":{"type":"string"},"b":{`, 1))
	day = "2026-01-03T00:00:00Z"
	run("commit", "-q", "-a", "-m", "2")
	want(3)
	write("A.v1.json", base) // what came in commit 2 was promised too
	want(3, "A.v1.json: since ")
	if err := os.Remove(filepath.Join(schemas, "B.v1.json")); err != nil {
		t.Fatal(err)
	}
	want(2, "A.v1.json: since ", "B.v1.json: is gone")
	write("B.v1.json", base)

	draft := strings.Replace(base, `"maximum":5`, `"maximum":6`, 1)
	write("A.v1.json", draft)
	want(3, "A.v1.json: since ", "A.v1.json: since ", "A.v1.json: since ")
	day = "2026-01-05T00:00:00Z"
	run("commit", "-q", "-a", "-m", "3")
	published = "2026-01-04T00:00:00Z"
	want(3, "A.v1.json: since ", "A.v1.json: since ") // of commit 2, which was the last by then
	published = "2026-01-06T00:00:00Z"
	want(2)
}
