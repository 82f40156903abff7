package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

var liveRules = []Rule{
	{
		ID: "redis-append-only", Severity: Loses, On: "a Redis server (`-live`)",
		What:   "`appendonly` is `no`",
		Source: "redis.io/docs: persistence",
	},
	{
		ID: "redis-evicts", Severity: Loses, On: "a Redis server (`-live`)",
		What:   "`maxmemory` with a `maxmemory-policy` of `allkeys-...`",
		Source: "redis.io/docs: eviction",
	},
	{
		ID: "redis-evicts-expiring", Severity: Risk, On: "a Redis server (`-live`)",
		What:   "`maxmemory` with a `maxmemory-policy` of `volatile-...`",
		Source: "redis.io/docs: eviction",
	},
	{
		ID: "redis-not-asked", Severity: Risk, On: "a Redis server (`-live`)",
		What:   "it can't be asked for its settings: TLS, no CONFIG (as with many providers), a password in a store that is not read here",
		Source: "redis.io/docs: CONFIG GET",
	},
}

// notAsked says why a server can't be asked for its settings, where that is for no
// fault of it.
type notAsked struct{ why string }

func (e notAsked) Error() string { return e.why }

// lookYourself is what to do about it.
const lookYourself = "# look yourself, in the provider's console or with redis-cli config get: appendonly yes, maxmemory-policy noeviction"

// liveTimeout is how long a server may take to answer.
const liveTimeout = 5 * time.Second

// CheckLive asks the Redis servers that components point to, each once. Secrets are looked
// up as the components' stores would: variables with getenv, files on disk. A server
// that does not answer, or refuses the password, is an error; one that can't be asked
// is a finding.
func (s *Set) CheckLive(ctx context.Context, getenv func(string) (string, bool)) ([]Finding, error) {
	var all []Finding
	type answer struct {
		verdicts []verdict
		at       place // the component that named the server first
	}
	asked := map[string]answer{}
	for _, sc := range s.sidecars {
		for _, c := range sc.components {
			if _, ok := c.get("redisHost"); !ok || !strings.HasSuffix(c.kind, ".redis") {
				continue
			}
			options, err := sc.redisOptions(c, getenv)
			if no, ok := errors.AsType[notAsked](err); ok {
				all = append(all, liveRule("redis-not-asked").at(c.place("redisHost"), sc.app, lookYourself,
					fmt.Sprintf("The server of %s could not be asked: %s.", c.name, no.why)))
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("component %s: %w", c.name, err)
			}
			server, ok := asked[options.Addr]
			if !ok {
				config, err := askRedis(ctx, options)
				server = answer{judgeRedis(config), c.place("redisHost")}
				if no, ok := errors.AsType[notAsked](err); ok {
					server.verdicts = []verdict{{liveRule("redis-not-asked"), lookYourself, "could not be asked: " + no.why + "."}}
				} else if err != nil {
					return nil, fmt.Errorf("component %s: Redis at %s: %w", c.name, options.Addr, err)
				}
				asked[options.Addr] = server
			}
			for _, v := range server.verdicts {
				all = append(all, v.rule.at(server.at, sc.app, v.write, fmt.Sprintf("The server at %s %s", options.Addr, v.why)))
			}
		}
	}
	return Merge(all), nil
}

type verdict struct {
	rule       Rule
	write, why string
}

func liveRule(id string) Rule {
	return liveRules[slices.IndexFunc(liveRules, func(r Rule) bool { return r.ID == id })]
}

// judgeRedis says what is wrong with a server's settings.
func judgeRedis(config map[string]string) []verdict {
	var all []verdict
	if config["appendonly"] == "no" {
		all = append(all, verdict{liveRule("redis-append-only"), "redis-cli config set appendonly yes   # and in redis.conf: appendonly yes",
			"keeps a snapshot of every few minutes: a restart loses the events and the state since the last one."})
	}
	const refuse = "redis-cli config set maxmemory-policy noeviction   # and in redis.conf: maxmemory-policy noeviction"
	policy := config["maxmemory-policy"]
	switch {
	case config["maxmemory"] == "0":
	case strings.HasPrefix(policy, "allkeys-"):
		all = append(all, verdict{liveRule("redis-evicts"), refuse,
			"makes room by dropping keys (" + policy + "): streams and state among them."})
	case strings.HasPrefix(policy, "volatile-"):
		all = append(all, verdict{liveRule("redis-evicts-expiring"), refuse,
			"makes room by dropping keys that expire (" + policy + "): streams and most state do not, but state that is saved with a time to live goes before it is over."})
	}
	return all
}

func askRedis(ctx context.Context, options *goredis.Options) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	client := goredis.NewClient(options)
	defer client.Close()
	config := map[string]string{}
	for _, name := range []string{"appendonly", "maxmemory", "maxmemory-policy"} {
		got, err := client.ConfigGet(ctx, name).Result()
		if _, unreachable := errors.AsType[*net.OpError](err); unreachable {
			return nil, fmt.Errorf("nothing answers (%w): start one (redis-server --appendonly yes), or say where one is", err)
		} else if refused, ok := errors.AsType[goredis.Error](err); ok && withoutConfig(refused.Error()) {
			return nil, notAsked{"CONFIG is not for this user, or not on this server (" + refused.Error() + ")"}
		} else if err != nil {
			return nil, fmt.Errorf("asking for %s: %w", name, err)
		}
		config[name] = got[name]
	}
	return config, nil
}

// withoutConfig says whether an answer tells that CONFIG is taken away, from everybody
// or from this user.
func withoutConfig(answer string) bool {
	return strings.HasPrefix(answer, "NOPERM") || strings.Contains(answer, "unknown command")
}

func (s *sidecar) redisOptions(c *component, getenv func(string) (string, bool)) (*goredis.Options, error) {
	values := map[string]string{}
	for _, name := range []string{"redisHost", "redisPassword", "redisUsername", "enableTLS"} {
		set, ok := c.get(name)
		if !ok {
			continue
		}
		value, err := s.reveal(c, set, getenv)
		if err != nil {
			return nil, err
		}
		values[name] = value
	}
	if truthy(values["enableTLS"]) {
		return nil, notAsked{"it wants TLS, which is not spoken here"}
	}
	address, _, _ := strings.Cut(values["redisHost"], ",") // of a cluster, one stands for all
	if !strings.Contains(address, ":") {
		address += ":" + c.value("redisPort", "6379")
	}
	return &goredis.Options{Addr: address, Username: values["redisUsername"], Password: values["redisPassword"], DisableIdentity: true, MaxRetries: -1, DialerRetries: 1}, nil
}

// reveal is the value of a setting, from where its secret is kept if it has one.
func (s *sidecar) reveal(c *component, set setting, getenv func(string) (string, bool)) (string, error) {
	variable := set.envRef
	if set.secretKey != "" {
		store := s.component(c.store)
		if store == nil {
			return "", fmt.Errorf("%s: there is no secret store %q", set.name, c.store)
		}
		switch store.kind {
		case "secretstores.local.env":
			variable = store.value("prefix", "") + set.secretKey
		case "secretstores.local.file":
			return s.fromFile(store, set)
		default:
			return "", notAsked{fmt.Sprintf("%s is in a %s, which is not read here", set.name, store.kind)}
		}
	}
	if variable == "" {
		return set.value, nil
	}
	value, ok := getenv(variable)
	if !ok {
		return "", fmt.Errorf("%s: set %s", set.name, variable)
	}
	return value, nil
}

func (s *sidecar) fromFile(store *component, set setting) (string, error) {
	file := store.value("secretsFile", "")
	if !filepath.IsAbs(file) {
		file = filepath.Join(s.dir, file)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var secrets map[string]any
	if err := json.Unmarshal(content, &secrets); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	value, ok := secrets[set.secretName].(string)
	if !ok {
		return "", fmt.Errorf("%s: %s has no text %q", set.name, file, set.secretName)
	}
	return value, nil
}
