package doctor

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"orderflow/tools/internal/runfile"
)

// TestAdvice holds what is said of a finding: how grave it is, why, and what to write.
func TestAdvice(t *testing.T) {
	tests := map[string]struct {
		rule, broker string
		edits        []edit
		severity     Severity
		why, write   string // parts of each
	}{
		"single has a contrary": {"bulk-concurrency", "rabbitmq", both(add(orders, "concurrencyMode", "single"), bulk(sub, "")), Stalls,
			"delivers 1 at a time", line("concurrencyMode", "parallel")},
		"single has a contrary on SQS": {"bulk-concurrency", "snssqs", both(add(orders, "concurrencyMode", "single"), bulk(sub, "")), Stalls,
			"delivers 1 at a time", line("concurrencyMode", "parallel")},
		"a batch within what RabbitMQ can deliver": {"bulk-concurrency", "rabbitmq", bulk(sub, batchOf+"200\n"), Stalls,
			"up to 200", line("prefetchCount", "200")},
		"a batch above what RabbitMQ can deliver": {"bulk-concurrency", "rabbitmq", bulk(sub, batchOf+"300\n"), Stalls,
			"up to 300", "bulkSubscribe:\n  maxMessagesCount: 255\n"},
		"Redis has no such bound": {"bulk-concurrency", "redis", bulk(sub, batchOf+"300\n"), Stalls,
			"up to 300", line("concurrency", "300")},
		"a handler without a timeout": {"inbound-timeout-missing", "kafka", retries(ordersIn, "          retry: deliver\n"), Risk,
			"for ever", "timeout: handler"},
		"a batch waits as it is told to": {"kafka-bulk", "kafka", bulk(sub, "    maxAwaitDurationMs: 500\n"), Stalls,
			"waits for maxAwaitDurationMs to pass (10 s if left out)", "enabled: false"},
		"RabbitMQ's own dead letters": {"rabbitmq-dead-letter-queue", "rabbitmq", one(orders, value("requeueInFailure", "true"), value("enableDeadLetter", "true")), Risk,
			"dlq-<consumerID>-<topic>", line("requeueInFailure", "true")},
		"a mechanism that is none": {"kafka-sasl-mechanism", "kafka", one(orders, value("authType", "none"), value("authType", "password")+value("saslMechanism", "SCRAM-SHA-512")), Risk,
			"PLAIN", line("saslMechanism", "SHA-512")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			found := examine(t, test.broker, test.edits...)
			if !slices.Equal(rules(found), []string{test.rule}) {
				t.Fatalf("found %+v, want %s alone", found, test.rule)
			}
			if f := found[0]; f.Severity != test.severity || !strings.Contains(f.Reason, test.why) || !strings.Contains(f.Write, test.write) {
				t.Errorf("found %+v, want %s, because %q, and to write %q", f, test.severity, test.why, test.write)
			}
		})
	}
}

// A large batch on RabbitMQ is mended by doing what is advised.
func TestTheAdviceForALargeBatchMendsIt(t *testing.T) {
	edits := both(bulk(sub, batchOf+"255\n"), set(orders, "prefetchCount", "64", "255"))
	if found := examine(t, "rabbitmq", edits...); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
}

// Where policies lie is looked for near what is loaded, and not all over a project.
func TestPoliciesThatNobodyLoads(t *testing.T) {
	tests := map[string]struct {
		paths []string
		file  string
		found bool
	}{
		"below what is loaded":                {[]string{"shop/yaml"}, "shop/yaml/more/resiliency.yaml", true},
		"beside the only folder":              {[]string{"shop/yaml"}, "shop/k8s/resiliency.yaml", false},
		"beside the components of a project":  {[]string{"components"}, "k8s/resiliency.yaml", false},
		"beside one of several":               {[]string{"shop/yaml", "shop/topics"}, "shop/policies/resiliency.yaml", true},
		"beside a folder of components":       {[]string{"components/shared"}, "components/policies/resiliency.yaml", true},
		"an alternative of what is loaded":    {[]string{"components/broker/nats"}, "components/broker/kafka/resiliency.yaml", false},
		"in what is loaded":                   {[]string{"shop/yaml", "shop/topics"}, "shop/topics/resiliency.yaml", false},
		"two folders, each alone in its own":  {[]string{"shop/yaml", "stock/yaml"}, "stock/k8s/resiliency.yaml", false},
		"one folder, given to the app twice":  {[]string{"shop/yaml", "shop/yaml"}, "shop/k8s/resiliency.yaml", false},
		"below the second of several folders": {[]string{"shop/yaml", "stock/yaml"}, "stock/yaml/more/resiliency.yaml", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			app := runfile.App{AppID: "shop", AppDirPath: dir}
			for _, path := range test.paths {
				path = filepath.Join(dir, path)
				replace(t, filepath.Join(path, "store.yaml"), "", "kind: none\n")
				app.ResourcesPaths = append(app.ResourcesPaths, path)
			}
			replace(t, filepath.Join(dir, test.file), "", "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: shop}\n")
			set, err := FromApps([]runfile.App{app})
			if err != nil {
				t.Fatal(err)
			}
			found, err := set.Check()
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(rules(found), "resiliency-not-loaded"); got != test.found {
				t.Errorf("found %+v", found)
			}
		})
	}
}
