package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"orderflow/tools/internal/runfile"
)

// selectComponents puts the chosen broker and store in the place of those that
// the run file names, and the secrets store that reads environment variables in
// the place of the one that reads a file: in a path that ends in
// components/<kind>/<name>, the name.
func selectComponents(apps []runfile.App, broker, state string) error {
	chosen := map[string]string{"broker": broker, "state": state, "secrets": "env"}
	for i := range apps {
		for j, path := range apps[i].ResourcesPaths {
			kindDir := filepath.Dir(path)
			kind := filepath.Base(kindDir)
			name, ok := chosen[kind]
			if !ok || filepath.Base(filepath.Dir(kindDir)) != "components" {
				continue
			}
			replacement := filepath.Join(kindDir, name)
			if info, err := os.Stat(replacement); name == "" || err != nil || !info.IsDir() {
				return fmt.Errorf("%s %q: there is no such folder in %s; there are: %s", kind, name, kindDir, strings.Join(folders(kindDir), ", "))
			}
			apps[i].ResourcesPaths[j] = replacement
		}
	}
	return nil
}

func folders(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names
}

// writeConfiguration derives the sidecars' Configuration from the one at source:
// the same, but they find each other through a SQLite file. Dapr's default is
// multicast DNS, which containers, VPNs and firewalls tend not to let through.
// A source that isn't there counts as an empty one: the CLI's default file is
// only there after `dapr init`.
func writeConfiguration(source, target, namesFile string) error {
	configuration := map[string]any{
		"apiVersion": "dapr.io/v1alpha1",
		"kind":       "Configuration",
		"metadata":   map[string]any{"name": "orderflow"},
	}
	content, err := os.ReadFile(source)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := yaml.Unmarshal(content, &configuration); err != nil {
		return fmt.Errorf("configuration %s: %w", source, err)
	}
	spec, ok := configuration["spec"].(map[string]any)
	if !ok {
		spec = map[string]any{}
		configuration["spec"] = spec
	}
	if mtls, ok := spec["mtls"].(map[string]any); ok && mtls["enabled"] == true {
		return fmt.Errorf("configuration %s: spec.mtls.enabled needs the sentry service, which the launcher doesn't start; use the Dapr CLI", source)
	}
	spec["nameResolution"] = map[string]any{
		"component": "sqlite",
		"version":   "v1",
		"configuration": map[string]any{
			"connectionString": sqliteURI(namesFile),
			// The default of 800 ms is short for sidecars that all register at the
			// same moment on a busy machine; the timeout has to be the longer one.
			"busyTimeout": "2s",
			"timeout":     "3s",
		},
	}
	if content, err = yaml.Marshal(configuration); err != nil {
		return fmt.Errorf("configuration %s: %w", source, err)
	}
	return os.WriteFile(target, content, 0o600)
}
