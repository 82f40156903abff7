package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.yaml.in/yaml/v3"
)

func TestConfigurationKeepsEverythingElse(t *testing.T) {
	dir := t.TempDir()
	source, target := filepath.Join(dir, "source.yaml"), filepath.Join(dir, "target.yaml")
	read := func() map[string]any {
		t.Helper()
		content, err := os.ReadFile(target)
		if err != nil {
			t.Fatal(err)
		}
		var configuration map[string]any
		if err := yaml.Unmarshal(content, &configuration); err != nil {
			t.Fatal(err)
		}
		return configuration["spec"].(map[string]any)
	}

	if err := os.WriteFile(source, []byte("kind: Configuration\nspec: {features: [{name: HotReload, enabled: false}], nameResolution: {component: consul}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeConfiguration(source, target, "/data dir/names.db"); err != nil {
		t.Fatal(err)
	}
	spec := read()
	resolution := spec["nameResolution"].(map[string]any)
	if resolution["component"] != "sqlite" || resolution["configuration"].(map[string]any)["connectionString"] != "file:/data%20dir/names.db" {
		t.Errorf("name resolution %v", resolution)
	}
	if features, ok := spec["features"].([]any); !ok || len(features) != 1 {
		t.Errorf("features %v", spec["features"])
	}

	if err := writeConfiguration(filepath.Join(dir, "none.yaml"), target, "names.db"); err != nil {
		t.Errorf("without a source: %v", err)
	}
	if read()["nameResolution"] == nil {
		t.Error("without a source: no name resolution")
	}

	if err := os.WriteFile(source, []byte("spec: {mtls: {enabled: true}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeConfiguration(source, target, "names.db"); err == nil || !strings.Contains(err.Error(), "sentry") {
		t.Errorf("mTLS without a sentry: got %v", err)
	}
}

// Launchers that start side by side choose their ports before any of their servers
// listens.
func TestPortsBelongToOneLauncher(t *testing.T) {
	owner := map[int]*portPicker{}
	for range 10 {
		ports := newPortPicker()
		defer ports.close()
		for range 2 * blockSize { // so that one block is not enough
			port, err := ports.pick()
			if err != nil {
				t.Fatal(err)
			}
			if owner[port] != nil {
				t.Fatalf("port %d was given twice", port)
			}
			owner[port] = ports
		}
	}
}

// What is published stays over a restart, and a repetition is recognised only for
// as long as the window says.
func TestBrokerKeepsMessages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	var log synchronised
	ports := newPortPicker()
	defer ports.close()
	port, err := ports.pick()
	if err != nil {
		t.Fatal(err)
	}
	address := newBrokerURL(port)
	open := func() (*server.Server, jetstream.JetStream) {
		t.Helper()
		ns, err := serveBroker(dir, address, brokerLog{func(line string) { fmt.Fprintln(&log, line) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := awaitStreams(t.Context(), &process{}, address); err != nil {
			t.Fatal(err)
		}
		conn, err := nats.Connect(address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		return ns, js
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	ns, js := open()
	for _, topic := range []string{"order-events", "inventory-events", "dead-letters"} {
		for range 2 { // the second is a duplicate in its stream; the topics don't know of each other
			if _, err := js.Publish(ctx, topic, []byte("{}"), jetstream.WithMsgID("1")); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeBroker(ns)

	ns, js = open()
	defer closeBroker(ns)
	for _, topic := range []string{"order-events", "inventory-events", "dead-letters"} {
		stream, err := js.Stream(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		info := stream.CachedInfo()
		if info.State.Msgs != 1 {
			t.Errorf("%s has %d messages, want 1", topic, info.State.Msgs)
		}
		if info.Config.Duplicates != duplicateWindow || info.Config.Storage != jetstream.FileStorage || info.Config.MaxBytes <= 0 || info.Config.MaxAge <= 0 {
			t.Errorf("%s: %+v", topic, info.Config)
		}
	}
	if _, err := nats.Connect(strings.Replace(address, "orderflow:", "orderflow:x", 1)); err == nil {
		t.Error("a wrong password is let in")
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the store: %v, %v", info.Mode(), err)
	}
}

func TestLines(t *testing.T) {
	var got []string
	l := &lines{each: func(line string) { got = append(got, line) }}
	for _, part := range []string{"one\ntw", "o\r\n\nthr", "ee", strings.Repeat("x", maxLine), "\nlast"} {
		if n, err := l.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	l.flush()
	want := []string{"one", "two", "", "three" + strings.Repeat("x", maxLine), "", "last"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %.200q", got)
	}
	for range 100 {
		if _, err := l.Write([]byte("more\n")); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.last()); n != tailLines {
		t.Errorf("%d lines are remembered, want %d", n, tailLines)
	}
}

func TestComplaints(t *testing.T) {
	for line, want := range map[string]bool{
		`time="x" level=info msg="component loaded. level=errors"`: false,
		`time="x" level=warning msg="mTLS is disabled"`:            false,
		`time="x" level=error msg="no stream"`:                     true,
		`time="x" level=fatal msg="no component"`:                  true,
		`{"level":"error","msg":"no stream"}`:                      true,
		`panic: runtime error`:                                     true,
	} {
		if isComplaint(line) != want {
			t.Errorf("%s: %t", line, !want)
		}
	}
}

func TestColoursOnlyOnATerminal(t *testing.T) {
	var out bytes.Buffer
	none := func(string) string { return "" }
	c := newConsole(&out, none)
	c.announce("order", "inventory")
	c.line("order", "hello")
	if out.String() != "order     | hello\n" {
		t.Errorf("got %q", out.String())
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if newConsole(null, none).colour {
		t.Error("the null device is no terminal")
	}
}
