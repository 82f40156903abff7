// Package tour runs the commands of docs/failure-tour.md, so that the tour stays
// true.
package tour

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"orderflow/test/system"
)

// stepTimeout is how long the commands of one block may take.
const stepTimeout = 90 * time.Second

// block finds a block of commands and, right after it, what they print.
var block = regexp.MustCompile("(?s)```sh\n(.*?)```\n(?:\n```text\n(.*?)```)?")

// The blocks run one after the other in one shell, as a reader types them, against
// a system that the test starts. Each must succeed and print what the page says,
// where … stands for anything.
func TestTour(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(system.Root(t), "docs", "failure-tour.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := block.FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 10 {
		t.Fatalf("%d blocks of commands are found, which are too few to be all", len(blocks))
	}
	s := system.Start(t, system.Options{Broker: os.Getenv("BROKER"), State: os.Getenv("STATE"), Keep: true})
	dir := t.TempDir()
	vars := filepath.Join(dir, "vars")
	for i, b := range blocks {
		commands, want := b[1], b[2]
		// What a block has set, the next one knows.
		script := fmt.Sprintf("set -euo pipefail; set -a; if [ -e '%[1]s' ]; then . '%[1]s'; fi\n%[2]s\n{ declare -p EVENT LETTER LOST OTHER FIRST GENERATION 2>/dev/null || true; declare -f pid await; } > '%[1]s'\n", vars, commands)
		ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
		cmd := exec.CommandContext(ctx, "bash", "-c", script)
		cmd.WaitDelay = time.Second
		cmd.Env = append(os.Environ(), "DATA="+s.Data, "ORDER="+s.Order.URL, "INVENTORY="+s.Inventory.URL, "CONSOLE="+s.Console.URL,
			"SIDECAR="+s.Inventory.Sidecar, "APP="+s.AppToken, "TOKEN="+s.APIToken)
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("block %d: %v\n%s\nprinted:\n%s", i+1, err, commands, out)
		}
		if !matches(string(out), want) {
			t.Fatalf("block %d:\n%s\nprinted:\n%s\nbut the page says:\n%s", i+1, commands, out, want)
		}
	}
}

// matches says whether what was printed is what the page says. Spaces at the ends
// of lines are of no matter.
func matches(got, want string) bool {
	if want == "" {
		return true
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(want)), "…", ".*")
	return regexp.MustCompile("(?s)^" + pattern + "$").MatchString(strings.TrimSpace(got))
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		got, want string
		ok        bool
	}{
		{"one\n", "one", true},
		{"one\ntwo\n", "one", false},
		{"{\"a\":1,\"b\":2}\n", "…\"b\":2…", true},
		{"{\"a\":1,\"b\":3}\n", "…\"b\":2…", false},
		{"a.b\n", "a.b", true},
		{"axb\n", "a.b", false},
	} {
		if ok := matches(tt.got, tt.want); ok != tt.ok {
			t.Errorf("%q against %q: %t", tt.got, tt.want, ok)
		}
	}
}
