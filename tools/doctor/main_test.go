package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"orderflow/tools/internal/doctor"
)

const (
	runFile    = "../../dapr.yaml"
	components = "../../components/"
)

// call runs the program with an environment.
func call(t *testing.T, environment map[string]string, args ...string) (code int, out, complaint string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, &stdout, &stderr, func(name string) (string, bool) {
		value, ok := environment[name]
		return value, ok
	})
	return code, stdout.String(), stderr.String()
}

func TestExitCodes(t *testing.T) {
	bad := t.TempDir()
	write(t, filepath.Join(bad, "kafka.yaml"), "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: orders}\nspec:\n  type: pubsub.kafka\n  version: v1\n  metadata:\n    - name: initialOffset\n      value: newest\n    - name: authType\n      value: none\n")
	risky := t.TempDir()
	write(t, filepath.Join(risky, "configuration.yaml"), "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: shop}\nspec:\n  metrics: {enabled: false}\n")
	broken := t.TempDir()
	write(t, filepath.Join(broken, "broken.yaml"), "a: [")
	tests := map[string]struct {
		args []string
		code int
		want string // in what is printed
	}{
		"the project":              {[]string{"-f", runFile}, clean, "nothing found"},
		"all of it":                {[]string{"-f", runFile, "-all"}, clean, "nothing found"},
		"as the launcher runs it":  {[]string{"-f", runFile, "-broker", "nats", "-state", "sqlite"}, clean, "nothing found"},
		"folders":                  {[]string{components + "broker/redis", components + "state/redis", components + "shared"}, clean, "nothing found"},
		"something that loses":     {[]string{bad}, found, "kafka.yaml:8: loses events: Component orders [kafka-initial-offset]"},
		"the line to write":        {[]string{bad}, found, "        - name: initialOffset\n          value: \"oldest\"\n"},
		"risks count":              {[]string{risky}, found, "1 × risk"},
		"risks allowed":            {[]string{"-allow-risks", risky}, clean, "1 × risk"},
		"allowed are risks only":   {[]string{"-allow-risks", bad}, found, "1 × loses events"},
		"a rule not applied":       {[]string{"-ignore", "hot-reload", risky}, clean, "nothing found"},
		"no such rule":             {[]string{"-ignore", "hot-relaod", risky}, unreadable, "no rule"},
		"no arguments":             {nil, unreadable, "give a run file"},
		"too many":                 {[]string{"-f", runFile, bad}, unreadable, "not both"},
		"a flag without its file":  {[]string{"-all", bad}, unreadable, "-f"},
		"an unknown flag":          {[]string{"-x"}, unreadable, "-x"},
		"no such folder":           {[]string{"nowhere"}, unreadable, "nowhere"},
		"nothing of Dapr's":        {[]string{"../../docs"}, unreadable, "no Dapr resources"},
		"no such broker":           {[]string{"-f", runFile, "-broker", "pigeon"}, unreadable, "no such folder"},
		"YAML that isn't":          {[]string{broken}, unreadable, "broken.yaml"},
		"a server that is not":     {[]string{"-f", runFile, "-broker", "redis", "-state", "redis", "-live"}, unreadable, "Redis at 127.0.0.1:1: nothing answers"},
		"servers that are not our": {[]string{"-f", runFile, "-broker", "nats", "-state", "sqlite", "-live"}, clean, "nothing found"},
		"help":                     {[]string{"-help"}, clean, "Exit code"},
		"the rules":                {[]string{"-rules"}, clean, "| `jetstream-parallel` | loses events |"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			code, out, complaint := call(t, map[string]string{"REDIS_HOST": "127.0.0.1:1"}, test.args...)
			if code != test.code || !strings.Contains(out+complaint, test.want) {
				t.Errorf("code %d, want %d with %q:\n%s%s", code, test.code, test.want, out, complaint)
			}
		})
	}
}

func TestQuietAboutNothing(t *testing.T) {
	if code, out, complaint := call(t, nil, "-quiet", "-f", runFile); code != clean || out+complaint != "" {
		t.Errorf("code %d: %s%s", code, out, complaint)
	}
}

func TestJSON(t *testing.T) {
	if _, out, _ := call(t, nil, "-json", "-f", runFile); strings.TrimSpace(out) != "[]" {
		t.Errorf("nothing found is %s", out)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: orders}\nspec:\n  type: pubsub.jetstream\n  metadata:\n    - {name: durableName, value: a}\n    - {name: queueGroupName, value: a}\n    - {name: ackWait, value: 8s}\n    - {name: concurrency, value: parallel}\nscopes: [b, a]\n")
	_, out, _ := call(t, nil, "-json", dir)
	var findings []doctor.Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil {
		t.Fatal(err)
	}
	if len(findings) != 1 {
		t.Fatalf("found %s", out)
	}
	f := findings[0]
	if f.Rule != "jetstream-parallel" || f.Severity != doctor.Loses || f.Line != 10 || filepath.Base(f.File) != "a.yaml" ||
		!slices.Equal(f.Apps, []string{"a", "b"}) || f.Reason == "" || f.Source == "" || f.Write != "- name: concurrency\n  value: \"single\"" {
		t.Errorf("found %+v", f)
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
