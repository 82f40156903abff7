package dapr

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"
	"time"
)

// suiteTimeout is what one suite may take: most of it is its own waiting.
const suiteTimeout = 10 * time.Minute

// inChild says that this process is one that run started.
const inChild = "ORDERFLOW_SUITE"

// run runs a suite in a process of its own, which is the only way to see which of
// its tests fail without failing with them, and wants exactly those to fail that
// are known to, each with the reason why that is no harm here. Known failures that
// do not occur are complaints too: the reason is out of date then.
func run(t *testing.T, known map[string]string, suite func(*testing.T)) {
	if os.Getenv(inChild) != "" {
		suite(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+suiteTimeout.String())
	cmd.Env = append(os.Environ(), inChild+"=1")
	cmd.WaitDelay = time.Minute
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.CombinedOutput()
	passed, failed := outcomes(out, "PASS"), outcomes(out, "FAIL")
	if len(passed)+len(failed) < 5 {
		t.Fatalf("the suite did not run (%v):\n%s", err, out)
	}
	for _, name := range failed {
		if reason, ok := known[name]; ok {
			t.Logf("fails as it is known to: %s: %s", name, reason)
			continue
		}
		t.Errorf("fails: %s", name)
	}
	for name, reason := range known {
		if !slices.Contains(failed, name) {
			t.Errorf("does not fail any more: %s (%s)", name, reason)
		}
	}
	if err == nil && len(failed) > 0 || err != nil && len(failed) == 0 {
		t.Errorf("the suite ended with %v, %d of its tests failed", err, len(failed))
	}
	t.Logf("%d tests of the suite passed, %d failed", len(passed), len(failed))
	if t.Failed() {
		t.Logf("the suite said:\n%s", out)
	}
}

// outcomes are the names of the suite's tests, without that of the suite, with an
// outcome.
func outcomes(out []byte, outcome string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^ +--- `+outcome+`: [^/\s]+/(\S+) `).FindAllSubmatch(out, -1) {
		names = append(names, string(bytes.TrimSpace(m[1])))
	}
	return names
}
