package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// buildSidecar puts a sidecar of the pinned Dapr version at bin/daprd: a link to
// an installed one if that will do, else one built from tools/daprd. A build that
// is newer than its sources stays.
func buildSidecar(root string) error {
	source, target := filepath.Join(root, "tools", "daprd"), filepath.Join(root, "bin", "daprd")
	version, err := pinnedVersion(source)
	if err != nil {
		return err
	}
	if isCurrent(target, source) {
		return nil
	}
	for _, candidate := range installed() {
		if err := usable(candidate, version); err != nil {
			fmt.Printf("sidecar: not using %s: %v\n", candidate, err)
			continue
		}
		if link, err := os.Readlink(target); err == nil && link == candidate {
			return nil
		}
		fmt.Printf("sidecar: using the installed %s\n", candidate)
		if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Symlink(candidate, target)
	}
	fmt.Printf("sidecar: building Dapr %s, once; this takes some minutes\n", version)
	// Under another name first: at target there may be a link to an installed
	// program, or one that is running.
	draft := target + ".new"
	err = goBuild{
		label: "sidecar", dir: source, out: draft, packages: []string{"."},
		count: true,
		flags: []string{
			"-tags", "stablecomponents",
			"-ldflags", "-s -w -X github.com/dapr/dapr/pkg/buildinfo.version=" + version +
				" -X github.com/dapr/kit/logger.DaprVersion=" + version,
		},
	}.run()
	if err != nil {
		return err
	}
	return os.Rename(draft, target)
}

var pin = regexp.MustCompile(`(?m)^\s*github\.com/dapr/dapr v(\S+)`)

// pinnedVersion is the one that tools/daprd/go.mod requires, without its v.
func pinnedVersion(source string) (string, error) {
	content, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	match := pin.FindSubmatch(content)
	if match == nil {
		return "", fmt.Errorf("%s/go.mod requires no github.com/dapr/dapr", source)
	}
	return string(match[1]), nil
}

// isCurrent reports whether target is a build of ours, not a link, and none of
// its sources is newer.
func isCurrent(target, source string) bool {
	built, err := os.Lstat(target)
	if err != nil || !built.Mode().IsRegular() {
		return false
	}
	for _, name := range []string{"main.go", "go.mod", "go.sum"} {
		file, err := os.Stat(filepath.Join(source, name))
		if err != nil || file.ModTime().After(built.ModTime()) {
			return false
		}
	}
	return true
}

// installed lists the sidecars that are on this machine: in PATH, and where the
// Dapr CLI puts its own.
func installed() []string {
	var found []string
	if path, err := exec.LookPath("daprd"); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			found = append(found, path)
		}
	}
	home, _ := os.UserHomeDir() // no home: nothing there
	for _, dir := range []string{os.Getenv("DAPR_RUNTIME_PATH"), home} {
		if dir == "" {
			continue
		}
		path := filepath.Join(dir, ".dapr", "bin", "daprd")
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}

// usable says why the program at path can't take the place of ours: it must be
// of the same minor version, and have the components that only Dapr's full build
// has. The official downloads and `dapr init` have them; a build with
// stablecomponents hasn't.
func usable(path, version string) error {
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return fmt.Errorf("--version: %w", err)
	}
	if got := strings.TrimSpace(string(out)); minor(got) != minor(version) {
		return fmt.Errorf("it is version %s, not %s", got, version)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	for _, setting := range info.Settings {
		if setting.Key == "-tags" && strings.Contains(setting.Value, "allcomponents") {
			return nil
		}
	}
	return errors.New("it was built without the JetStream and SQLite name resolution components")
}

// minor cuts 1.18.3 to 1.18.
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}
