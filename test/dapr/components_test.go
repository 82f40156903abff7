// Package dapr runs Dapr's own conformance suites for pub/sub and state components
// against the files of components/broker and components/state, as they are, on real
// servers: what the project builds on is what it was promised to be. BROKER and
// STATE choose the file; which server that needs is started by the test.
package dapr

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"orderflow/test/brokers"
)

// root is the directory of the project.
const root = "../.."

// appID is in whose name the components are used.
const appID = "conformance"

// component is a component file, with its secrets resolved: what a sidecar gives
// the component at its start.
type component struct {
	kind       string // pubsub.kafka
	version    string
	properties map[string]string
}

// load reads a component file and resolves its secrets from env, as the secret
// store of components/secrets/env does; without env it leaves them out.
func load(tb testing.TB, file string, env []string) component {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join(root, "components", file))
	if err != nil {
		tb.Fatal(err)
	}
	var doc struct {
		Spec struct {
			Type     string
			Version  string
			Metadata []struct {
				Name         string
				Value        string
				SecretKeyRef struct{ Name string } `yaml:"secretKeyRef"`
			}
		}
	}
	if err := yaml.Unmarshal(content, &doc); err != nil {
		tb.Fatalf("%s: %v", file, err)
	}
	secrets := map[string]string{}
	for _, each := range env {
		name, value, _ := strings.Cut(each, "=")
		secrets[name] = value
	}
	c := component{kind: doc.Spec.Type, version: doc.Spec.Version, properties: map[string]string{"consumerID": appID}}
	for _, m := range doc.Spec.Metadata {
		value := strings.ReplaceAll(m.Value, "{appID}", appID) // as the runtime does in every value
		if m.SecretKeyRef.Name != "" && env != nil {
			secret, ok := secrets[m.SecretKeyRef.Name]
			if !ok {
				tb.Fatalf("%s wants the secret %s, and no server of the test has it", file, m.SecretKeyRef.Name)
			}
			value = secret
		}
		c.properties[m.Name] = value
	}
	return c
}

// secretsOf starts what a folder of components needs, and answers its secrets.
func secretsOf(tb testing.TB, folder string) []string {
	tb.Helper()
	switch folder {
	case "sqlite":
		return []string{"SQLITE_FILE=file:" + filepath.Join(tb.TempDir(), "state.db")}
	case "nats":
		return startNATS(tb)
	}
	return brokers.Start(tb, brokers.ServerOf(folder)).Env
}

// chosen is the value of a variable, which must be set: a run of these tests is
// about one component.
func chosen(tb testing.TB, variable string) string {
	tb.Helper()
	value := os.Getenv(variable)
	if value == "" {
		tb.Fatalf("%s must name a folder of components/%s", variable, map[string]string{"BROKER": "broker", "STATE": "state"}[variable])
	}
	return value
}

func (c component) String() string { return fmt.Sprintf("%s/%s", c.kind, c.version) }
