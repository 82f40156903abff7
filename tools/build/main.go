// Command build makes everything that runs, into bin/, and shows how far it is:
// the sidecar is a few thousand packages, which take minutes on a machine that
// sees them for the first time. It needs nothing but Go.
//
//	go -C tools run ./build            everything
//	go -C tools run ./build sidecar    one part: sidecar, services or tools
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

type part struct {
	name  string
	build func(root string) error
}

// parts in the order in which they are made: what is quick, and fails if somebody
// broke it, comes first.
var parts = []part{
	{"services", func(root string) error {
		return goBuild{label: "services", dir: root, out: filepath.Join(root, "bin"), packages: []string{"./services/..."}}.run()
	}},
	{"tools", func(root string) error {
		return goBuild{label: "tools", dir: filepath.Join(root, "tools"), out: filepath.Join(root, "bin"), packages: []string{"./launch", "./doctor", "./demo", "./mailsink/..."}}.run()
	}},
	{"sidecar", buildSidecar},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(names []string) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("no part %q; there are: services, tools, sidecar", name)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		return err
	}
	for _, part := range parts {
		if len(names) > 0 && !slices.Contains(names, part.name) {
			continue
		}
		if err := part.build(root); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// findRoot walks up to the directory that has the run file.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "dapr.yaml")); err == nil {
			return dir, nil
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return "", errors.New("no dapr.yaml here or above")
	}
}
