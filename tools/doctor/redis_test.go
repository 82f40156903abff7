//go:build redis

// On a Redis server, started here: `make doctor-live`. Apart from the unit tests,
// which need nothing but Go.
package main

import (
	"context"
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"orderflow/tools/internal/doctor"
)

const password = "for-this-test"

func TestLiveRedis(t *testing.T) {
	tests := map[string]struct {
		arguments []string
		code      int
		want      []string
	}{
		"keeps what it acknowledged": {[]string{"--appendonly", "yes"}, clean, nil},
		"its defaults":               {nil, found, []string{"redis-append-only"}},
		"evicts":                     {[]string{"--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}, found, []string{"redis-evicts"}},
		"evicts what has an end":     {[]string{"--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"}, found, []string{"redis-evicts-expiring"}},
		"has no CONFIG":              {[]string{"--appendonly", "yes", "--rename-command", "CONFIG", ""}, found, []string{"redis-not-asked"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			environment := map[string]string{"REDIS_HOST": startRedis(t, test.arguments), "REDIS_PASSWORD": password}
			code, out, complaint := call(t, environment, "-f", runFile, "-broker", "redis", "-state", "redis", "-live", "-json")
			if got := ruleIDs(t, out); code != test.code || !slices.Equal(got, test.want) {
				t.Errorf("code %d, found %v, want %d, %v; %s", code, got, test.code, test.want, complaint)
			}
		})
	}
	t.Run("with the wrong password", func(t *testing.T) {
		environment := map[string]string{"REDIS_HOST": startRedis(t, nil), "REDIS_PASSWORD": "another"}
		code, _, complaint := call(t, environment, "-f", runFile, "-broker", "redis", "-state", "redis", "-live")
		if code != unreadable || !strings.Contains(complaint, "WRONGPASS") {
			t.Errorf("code %d: %s", code, complaint)
		}
	})
}

func ruleIDs(t *testing.T, out string) []string {
	t.Helper()
	var findings []doctor.Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var ids []string
	for _, f := range findings {
		ids = append(ids, f.Rule)
	}
	return ids
}

// startRedis starts a server with a password that ends with the test.
func startRedis(t *testing.T, arguments []string) (address string) {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("redis-server is not installed (Debian: apt-get install redis-server): %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	server := exec.Command(program, slices.Concat([]string{"--bind", "127.0.0.1", "--port", port, "--requirepass", password,
		"--dir", t.TempDir(), "--save", "", "--logfile", filepath.Join(t.TempDir(), "log")}, arguments)...)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill() // fails only if it has ended
		_ = server.Wait()
	})

	client := goredis.NewClient(&goredis.Options{Addr: address, Password: password})
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for client.Ping(ctx).Err() != nil {
		select {
		case <-ctx.Done():
			t.Fatalf("redis-server does not answer at %s", address)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return address
}
