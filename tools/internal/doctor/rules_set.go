package doctor

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var stateRules = []Rule{
	{
		ID: "state-outbox", Severity: Risk, On: "state Component",
		What:   "`outboxPublishPubsub` on a store other than Redis",
		Source: "dapr pkg/runtime/pubsub/outbox.go",
		check:  outbox(false, "Dapr's outbox sleeps a second for each event, in a worker of the subscription, and gives no order; after a conflict of ETags a message without a state goes round."),
	},
	{
		ID: "state-outbox-redis", Severity: Loses, On: "state.redis",
		What:   "`outboxPublishPubsub` on Redis",
		Source: "dapr pkg/runtime/pubsub/outbox.go; components-contrib state/redis/redis.go Multi",
		check:  outbox(true, "A transaction on Redis doesn't roll back, so an event is published for a write that was refused; on a Redis broker a relay that fails is acknowledged, and the event is lost with its state committed."),
	},
	{
		ID: "sqlite-synchronous", Severity: Loses, On: "state.sqlite",
		What:   "`synchronous(NORMAL)` or `(OFF)` in `connectionString`",
		Source: "sqlite.org/pragma.html#pragma_synchronous",
		check: avoid("state.sqlite", "connectionString", regexp.MustCompile(`(?i)synchronous[(=](NORMAL|OFF|0|1)`).MatchString,
			"# connectionString without _pragma=synchronous(...)", "A power cut takes back commits that callers were told of."),
	},
}

func outbox(onRedis bool, why string) func(*sidecar, reporter) {
	return func(s *sidecar, report reporter) {
		for _, c := range s.components {
			if _, ok := c.get("outboxPublishPubsub"); ok && c.isState() && (c.kind == "state.redis") == onRedis {
				report(c.place("outboxPublishPubsub"), "# no outbox... settings: keep the events in the state that they belong to, and publish them until they have taken effect", why)
			}
		}
	}
}

var setRules = []Rule{
	{
		ID: "name-repeated", Severity: Stalls, On: "all",
		What:   "two resources of a kind and name in what one sidecar loads",
		Source: "dapr pkg/internal/loader/disk/disk.go filterManifests",
		check: func(s *sidecar, report reporter) {
			taken := map[string]*resource{}
			for _, r := range s.loaded {
				if r.kind != "Component" && r.kind != "Subscription" {
					continue
				}
				key := r.kind + " " + r.name
				if earlier := taken[key]; earlier != nil {
					report(place{r, r.lineOf("metadata", "name")}, "name: "+r.name+"-2",
						"The name is taken, by "+earlier.file+": the sidecar refuses to start.")
				} else if r.inScope(s.app) {
					taken[key] = r // one out of scope is no hindrance to those after it
				}
			}
		},
	},
	{
		ID: "folders-differ", Severity: Stalls, On: "components/<kind>/<name>",
		What:   "the folders of one kind differ in names, scopes or rights to topics",
		Source: "the promise that one can take the place of another",
	},
	{
		ID: "password-in-plain", Severity: Risk, On: "Component",
		What:   "a password, token or key that is written out",
		Source: "dapr pkg/runtime/processor/secret",
		check: func(s *sidecar, report reporter) {
			for _, c := range s.components {
				for _, set := range c.settings {
					if set.value != "" && (secretName.MatchString(set.name) || secretValue.MatchString(set.value)) {
						report(place{c.resource, set.line}, fmt.Sprintf("- name: %s\n  secretKeyRef:\n    name: %s\n    key: %[2]s\n# and at the end of the component:\nauth:\n  secretStore: <a secretstores component>", set.name, strings.ToUpper(set.name)),
							"Whoever may read this file, or the history of its repository, has the password.")
					}
				}
			}
		},
	},
	{
		ID: "broker-in-memory", Severity: Loses, On: "pubsub.in-memory",
		What:   "the broker is the sidecar's own memory",
		Source: "components-contrib pubsub/in-memory",
		check: eachComponent("pubsub.in-memory", func(_ *sidecar, c *component, report reporter) {
			report(place{c.resource, c.lineOf("spec", "type")}, "type: pubsub.redis", "Events never leave the sidecar: other apps don't get them and a restart loses them.")
		}),
	},
	{
		ID: "hot-reload", Severity: Risk, On: "Configuration",
		What:   "`HotReload` is not switched off (on if left out)",
		Source: "dapr pkg/config/configuration.go; pkg/runtime/processor/components.go",
		check: configured(func(c *resource, report reporter) {
			if features := find(c.root, "spec", "features"); features != nil {
				for _, f := range features.Content {
					if text(f, "name") == "HotReload" && text(f, "enabled") == "false" {
						return
					}
				}
			}
			report(place{c, c.lineOf("spec", "features")}, "features:\n  - name: HotReload\n    enabled: false",
				"A running sidecar exits when a component file is saved half written, and restarts, breaking off what is under way, when a Resiliency is.")
		}),
	},
	{
		ID: "tracing-cut", Severity: Risk, On: "Configuration",
		What:   "`samplingRate` is 0",
		Source: "dapr pkg/diagnostics/http_tracing.go",
		check: configured(func(c *resource, report reporter) {
			rate := text(c.root, "spec", "tracing", "samplingRate")
			if n, err := strconv.ParseFloat(rate, 64); err == nil && n == 0 {
				report(place{c, c.lineOf("spec", "tracing", "samplingRate")}, "# no samplingRate, or a small one: \"0.0001\"",
					"With 0 the caller's trace context is not put into the event either: the trace ends at the publisher.")
			}
		}),
	},
	{
		ID: "metrics-cardinality", Severity: Risk, On: "Configuration",
		What:   "`metrics.http.increasedCardinality` is not `false` (true if left out); `metric` is read too",
		Source: "dapr pkg/config/configuration.go sortMetricsSpec",
		check: configured(func(c *resource, report reporter) {
			// Each field of metrics that is there takes the place of metric's, http as
			// a whole.
			off := cmp.Or(text(c.root, "spec", "metrics", "enabled"), text(c.root, "spec", "metric", "enabled")) == "false"
			spec := "metrics"
			if http := find(c.root, "spec", spec, "http"); (http == nil || http.Tag == "!!null") && find(c.root, "spec", "metric", "http") != nil {
				spec = "metric"
			}
			if off || text(c.root, "spec", spec, "http", "increasedCardinality") == "false" {
				return
			}
			report(place{c, c.lineOf("spec", spec, "http", "increasedCardinality")}, spec+":\n  http:\n    increasedCardinality: false",
				"Each path is a time series of its own, so each state key and each id in a path is: memory and scrapes grow with them.")
		}),
	},
}

var (
	secretName  = regexp.MustCompile(`(?i)(password|secret|secretKey|accessKey|accountKey|sharedAccessKey|apiKey|seedKey|privateKey|token|jwt)$`)
	secretValue = regexp.MustCompile(`(?i)://[^/@:\s]*:[^/@\s]+@|\bpassword=\S|\bSharedAccessKey=\S|\bAccountKey=\S`)
)

func configured(look func(c *resource, report reporter)) func(*sidecar, reporter) {
	return func(s *sidecar, report reporter) {
		if s.configuration != nil {
			look(s.configuration, report)
		}
	}
}
