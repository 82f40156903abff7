package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestExternalServers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{"REDIS_HOST": listener.Addr().String(), "REDIS_PASSWORD": "secret"}
	lookup := func(name string) (string, bool) { value, ok := set[name]; return value, ok }

	env, err := checkExternal(t.Context(), "redis", lookup)
	if err != nil || env["REDIS_HOST"] != set["REDIS_HOST"] || env["REDIS_PASSWORD"] != "secret" {
		t.Errorf("got %v, %v", env, err)
	}
	if env, err := checkExternal(t.Context(), "nats", lookup); err != nil || len(env) != 0 {
		t.Errorf("nats is started here: got %v, %v", env, err)
	}
	set["RABBITMQ_URL"] = "amqp://user:secret@" + listener.Addr().String() + "/"
	if env, err := checkExternal(t.Context(), "rabbitmq", lookup); err != nil || env["RABBITMQ_URL"] != set["RABBITMQ_URL"] {
		t.Errorf("got %v, %v", env, err)
	}
	listener.Close()
	if _, err := checkExternal(t.Context(), "redis", lookup); err == nil || !strings.Contains(err.Error(), "nothing answers for redis at "+set["REDIS_HOST"]) || !strings.Contains(err.Error(), "set REDIS_HOST") {
		t.Errorf("got %v", err)
	}
	if _, err := checkExternal(t.Context(), "rabbitmq", lookup); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	set["AWS_ENDPOINT_URL_SNS"] = ""
	if env, err := checkExternal(t.Context(), "snssqs", lookup); err != nil || env["AWS_REGION"] == "" {
		t.Errorf("AWS itself: got %v, %v", env, err)
	}
}

func TestFirstHost(t *testing.T) {
	for address, want := range map[string]string{
		"localhost:6379":                       "localhost:6379",
		"one:9092,two:9092":                    "one:9092",
		"amqp://user:password@host:5673/vhost": "host:5673",
		"amqps://host/":                        "host:5671",
		"mqtt://host":                          "host:1883",
		"postgres://u:p@host/db?sslmode=off":   "host:5432",
		"mongodb://u:p@one:27018,two/?x=y":     "one:27018",
		"http://[::1]":                         "[::1]:80",
	} {
		if got, err := firstHost(address); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", address, got, err, want)
		}
	}
	for _, address := range []string{"", "host", "amqp://user:secret@/", "unknown://host"} {
		if got, err := firstHost(address); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %q, %v", address, got, err)
		}
	}
}

// Whatever secret a component wants, the launcher and the Dapr CLI's file have.
func TestSecretsOfEveryFolder(t *testing.T) {
	content, err := os.ReadFile("../../components/secrets/file.json")
	if err != nil {
		t.Fatal(err)
	}
	var inFile map[string]string
	if err := json.Unmarshal(content, &inFile); err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile(`secretKeyRef:\n\s+name: (\w+)\n\s+key: (\w+)\n`)
	files, err := filepath.Glob("../../components/*/*/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	byLauncher := []string{brokerURL, "SQLITE_FILE"}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range wanted.FindAllStringSubmatch(string(content), -1) {
			name, folder := match[1], filepath.Base(filepath.Dir(file))
			if match[2] != name {
				t.Errorf("%s: secret %s has the key %s", file, name, match[2])
			}
			if _, ok := inFile[name]; !ok {
				t.Errorf("%s: %s is not in components/secrets/file.json", file, name)
			}
			if _, ok := externals[folder].defaults[name]; !ok && !slices.Contains(byLauncher, name) {
				t.Errorf("%s: the launcher does not give %s to sidecars with %s", file, name, folder)
			}
		}
	}
}
