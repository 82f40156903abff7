package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain makes this test program a sidecar of another build when it is asked for
// its version.
func TestMain(m *testing.M) {
	if version := os.Getenv("BUILD_TEST_VERSION"); version != "" && len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(version)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestUsable(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"1.17.9": "it is version 1.17.9, not 1.18.0",
		"edge":   "it is version edge, not 1.18.0",
		"1.18.4": "built without the JetStream",
	} {
		t.Setenv("BUILD_TEST_VERSION", version)
		if err := usable(self, "1.18.0"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("version %s: got %v, want %s", version, err, want)
		}
	}
}

func TestPinnedVersion(t *testing.T) {
	version, err := pinnedVersion("../daprd")
	if err != nil || minor(version) != "1.18" {
		t.Errorf("got %q, %v", version, err)
	}
}

func TestIsCurrent(t *testing.T) {
	dir := t.TempDir()
	built := filepath.Join(dir, "daprd")
	now := time.Now()
	touch := func(path string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, source := range []string{"main.go", "go.mod", "go.sum"} {
		touch(filepath.Join(dir, source), now)
	}
	if isCurrent(built, dir) {
		t.Error("what is not there is not current")
	}
	touch(built, now.Add(time.Minute))
	if !isCurrent(built, dir) {
		t.Error("newer than all sources, but not current")
	}
	touch(filepath.Join(dir, "go.mod"), now.Add(time.Hour))
	if isCurrent(built, dir) {
		t.Error("a source is newer, but current")
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(built, link); err != nil {
		t.Fatal(err)
	}
	touch(filepath.Join(dir, "go.mod"), now)
	if isCurrent(link, dir) {
		t.Error("a link to an installed sidecar has to be looked at each time")
	}
}

func TestProgress(t *testing.T) {
	p := newProgress("sidecar")
	defer p.close()
	for line, progress := range map[string]bool{
		"go: downloading github.com/dapr/dapr v1.18.0": true,
		"github.com/dapr/dapr/cmd/daprd/app":           true,
		"# orderflow/services/order":                   false,
		"services/order/main.go:7:2: undefined: x":     false,
		"go: no such tool":                             false,
	} {
		if p.take(line) != progress {
			t.Errorf("%s: %t", line, !progress)
		}
	}
	if got := p.String(); got != "sidecar: 1 packages compiled, 0s" {
		t.Error(got)
	}
	p.expect(2000)
	if got := p.String(); got != "sidecar: 1 of at most 2000 packages compiled, 0s" {
		t.Error(got)
	}
}
