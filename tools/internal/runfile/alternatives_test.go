package runfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSelectComponents(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"broker/redis", "broker/nats", "state/redis", "state/sqlite", "secrets/file", "secrets/env", "shared"} {
		if err := os.MkdirAll(filepath.Join(dir, "components", path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		broker, state string
		want          string // paths, or the error
	}{
		"the embedded ones":  {"nats", "sqlite", "broker/nats state/sqlite secrets/env shared"},
		"those of the file":  {"redis", "redis", "broker/redis state/redis secrets/env shared"},
		"no such broker":     {"kafka", "sqlite", "broker \"kafka\": there is no such folder"},
		"what there is":      {"kafka", "sqlite", "there are: nats, redis"},
		"no such store":      {"nats", "postgres", "state \"postgres\": there is no such folder"},
		"an empty selection": {"", "sqlite", "broker \"\": there is no such folder"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var apps [1]App
			for _, path := range []string{"broker/redis", "state/redis", "secrets/file", "shared"} {
				apps[0].ResourcesPaths = append(apps[0].ResourcesPaths, filepath.Join(dir, "components", path))
			}
			got := ""
			if err := SelectComponents(apps[:], test.broker, test.state); err != nil {
				got = err.Error()
			} else {
				got = strings.ReplaceAll(strings.Join(apps[0].ResourcesPaths, " "), dir+"/components/", "")
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
