package doctor

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestJudgeRedis(t *testing.T) {
	tests := map[string]struct {
		appendOnly, maxMemory, policy string
		want                          []string
	}{
		"safe":                          {"yes", "0", "noeviction", nil},
		"bounded, refuses writes":       {"yes", "100000000", "noeviction", nil},
		"a policy that nothing awakens": {"yes", "0", "allkeys-lru", nil},
		"snapshots only":                {"no", "0", "noeviction", []string{"redis-append-only"}},
		"evicts":                        {"yes", "100000000", "allkeys-lru", []string{"redis-evicts"}},
		"evicts what has an end":        {"yes", "100000000", "volatile-ttl", []string{"redis-evicts-expiring"}},
		"both":                          {"no", "1", "allkeys-lfu", []string{"redis-append-only", "redis-evicts"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, v := range judgeRedis(map[string]string{"appendonly": test.appendOnly, "maxmemory": test.maxMemory, "maxmemory-policy": test.policy}) {
				got = append(got, v.rule.ID)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestWhereRedisIs(t *testing.T) {
	const (
		secret  = "- {name: redisHost, secretKeyRef: {name: HOST, key: HOST}}"
		envRef  = "- {name: redisHost, envRef: HOST}"
		noStore = ""
		byEnv   = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: secrets}\nspec: {type: secretstores.local.env, version: v1}\n"
		byFile  = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: secrets}\nspec:\n  type: secretstores.local.file\n  version: v1\n  metadata:\n    - {name: secretsFile, value: secrets.json}\n"
		vault   = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: secrets}\nspec: {type: secretstores.hashicorp.vault, version: v1}\n"
	)
	tests := map[string]struct {
		store, setting string
		want           string // the address, or a part of the error
	}{
		"as it is written":    {noStore, "- {name: redisHost, value: 'db:6380'}", "db:6380"},
		"the usual port":      {noStore, "- {name: redisHost, value: db}", "db:6379"},
		"a port of its own":   {noStore, "- {name: redisHost, value: db}\n    - {name: redisPort, value: '7000'}", "db:7000"},
		"one of a cluster":    {noStore, "- {name: redisHost, value: 'a:1,b:2'}", "a:1"},
		"a variable":          {byEnv, secret, "from-env:1"},
		"a reference":         {noStore, envRef, "from-env:1"},
		"a file":              {byFile, secret, "from-file:1"},
		"a variable unset":    {byEnv, strings.ReplaceAll(secret, "HOST", "OTHER"), "set OTHER"},
		"not in the file":     {byFile, strings.ReplaceAll(secret, "HOST", "OTHER"), `no text "OTHER"`},
		"a store out of here": {vault, secret, "is not read here"},
		"no store":            {noStore, secret, "no secret store"},
		"TLS":                 {noStore, "- {name: redisHost, value: db}\n    - {name: enableTLS, value: 'true'}", "TLS"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			replace(t, filepath.Join(dir, "secrets.json"), "", `{"HOST": "from-file:1"}`)
			replace(t, filepath.Join(dir, "yaml", "state.yaml"), "", "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: statestore}\nauth: {secretStore: secrets}\nspec:\n  type: state.redis\n  version: v1\n  metadata:\n    "+test.setting+"\n")
			if test.store != noStore {
				replace(t, filepath.Join(dir, "yaml", "secrets.yaml"), "", test.store)
			}
			set, err := newSet([]appFiles{{id: "shop", dir: dir, paths: []string{filepath.Join(dir, "yaml")}}})
			if err != nil {
				t.Fatal(err)
			}
			s := set.sidecars[0]
			got := ""
			if options, err := s.redisOptions(s.component("statestore"), func(name string) (string, bool) { return "from-env:1", name == "HOST" }); err != nil {
				got = err.Error()
			} else {
				got = options.Addr
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// What can't be asked is told, as a risk; what is out of order stops the asking.
func TestAServerThatIsNotAsked(t *testing.T) {
	const vault = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: secrets}\nspec: {type: secretstores.hashicorp.vault, version: v1}\n---\n"
	tests := map[string]struct {
		before, setting string
		answer          string // of the server, to all that it is asked
		want            string // a part of the reason, or of the error
		risk            bool
	}{
		"TLS":                 {"", "{name: enableTLS, value: 'true'}", "", "could not be asked: it wants TLS", true},
		"no CONFIG":           {"", "{name: redisUsername, value: ''}", "-ERR unknown command 'CONFIG'", "could not be asked: CONFIG is not for", true},
		"not for this user":   {"", "{name: redisUsername, value: ''}", "-NOPERM this user has no permissions to run the 'config|get' command", "NOPERM", true},
		"a store out of here": {vault, "{name: redisPassword, secretKeyRef: {name: P, key: P}}", "", "could not be asked: redisPassword is in a secretstores.hashicorp.vault", true},
		"a wrong password":    {"", "{name: redisPassword, value: other}", "-WRONGPASS invalid username-password pair", "WRONGPASS", false},
		"no password":         {"", "{name: redisUsername, value: ''}", "-NOAUTH Authentication required.", "NOAUTH", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			replace(t, filepath.Join(dir, "state.yaml"), "", test.before+"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: statestore}\nauth: {secretStore: secrets}\nspec:\n  type: state.redis\n  version: v1\n  metadata:\n    - {name: redisHost, value: '"+answering(t, test.answer)+"'}\n    - "+test.setting+"\n")
			set, err := newSet([]appFiles{{id: "shop", dir: dir, paths: []string{dir}}})
			if err != nil {
				t.Fatal(err)
			}
			found, err := set.CheckLive(t.Context(), func(string) (string, bool) { return "", false })
			switch {
			case !test.risk:
				if err == nil || len(found) > 0 || !strings.Contains(err.Error(), test.want) {
					t.Errorf("found %+v, and error %v, want the error alone, with %q", found, err, test.want)
				}
			case err != nil:
				t.Fatal(err)
			case len(found) != 1 || found[0].Rule != "redis-not-asked" || found[0].Severity != Risk || !strings.Contains(found[0].Reason, test.want):
				t.Errorf("found %+v, want that it %s", found, test.want)
			}
		})
	}
}

// answering starts a server that says the same to each command.
func answering(t *testing.T, answer string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // the test is over
			}
			go func() {
				defer connection.Close()
				// A command is a line *N and N texts, each a line $LENGTH and a line.
				for lines := bufio.NewScanner(connection); lines.Scan(); {
					if strings.HasPrefix(lines.Text(), "*") {
						if _, err := fmt.Fprint(connection, answer, "\r\n"); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func TestTheDocumentListsTheRules(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "docs/doctor.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), Table()) {
		t.Error("the table in docs/doctor.md is not the one that `bin/doctor -rules` prints")
	}
}
