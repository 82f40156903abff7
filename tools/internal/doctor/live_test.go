package doctor

import (
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
		"both":                          {"no", "1", "volatile-ttl", []string{"redis-append-only", "redis-evicts"}},
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
		"a store out of here": {vault, secret, "are not read here"},
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

func TestTheDocumentListsTheRules(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "docs/doctor.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), Table()) {
		t.Error("the table in docs/doctor.md is not the one that `bin/doctor -rules` prints")
	}
}
