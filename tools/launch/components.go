package main

import (
	"fmt"
	"os"

	"go.yaml.in/yaml/v3"
)

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
