package doctor

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"orderflow/tools/internal/runfile"
)

// root is the project's.
const root = "../../.."

// project reads what dapr.yaml in dir runs, with a broker and a store.
func project(t *testing.T, dir, broker, state string) []Finding {
	t.Helper()
	apps, err := runfile.Load(filepath.Join(dir, "dapr.yaml"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := runfile.SelectComponents(apps, broker, state); err != nil {
		t.Fatal(err)
	}
	set, err := FromApps(apps)
	if err != nil {
		t.Fatal(err)
	}
	found, err := set.Check()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestEveryBrokerAndStoreOfTheProjectIsClean(t *testing.T) {
	for _, broker := range projectFolders(t, "broker") {
		for _, state := range projectFolders(t, "state") {
			for _, f := range project(t, root, broker, state) {
				t.Errorf("%s with %s: %s:%d %s: %s", broker, state, f.File, f.Line, f.Rule, f.Reason)
			}
		}
	}
}

func projectFolders(t *testing.T, kind string) []string {
	t.Helper()
	names := runfile.Folders(filepath.Join(root, "components", kind))
	if len(names) == 0 {
		t.Fatalf("no folders in components/%s", kind)
	}
	return names
}

// change is what is done to a setting of a component: another value, or "" to take
// it out.
type change struct{ name, value, rule string }

// harm is what each kind of broker can be harmed with.
var harm = map[string][]change{
	redis: {
		{"processingTimeout", "0", "redis-redelivery-off"},
		{"processingTimeout", "15s", "redis-processing-timeout"},
		{"redeliverInterval", "5s", "redis-redeliver-interval"},
		{"maxLenApprox", "", "redis-unbounded"},
		{"queueDepth", "1000", "redis-queue-depth"},
	},
	jetstream: {
		{"concurrency", "parallel", "jetstream-parallel"},
		{"durableName", "", "jetstream-durable-missing"},
		{"queueGroupName", "", "jetstream-queue-group-missing"},
		{"durableName", "one", "consumer-shared"},
		{"ackWait", "", "jetstream-ack-wait-missing"},
		{"deliverPolicy", "new", "jetstream-deliver-policy"},
		{"streamName", "dead-letters", "jetstream-dead-letter-stream"},
	},
	rabbit: {
		{"durable", "false", "rabbitmq-durable"},
		{"deletedWhenUnused", "", "rabbitmq-deleted-when-unused"},
		{"deliveryMode", "", "rabbitmq-delivery-mode"},
		{"requeueInFailure", "", "rabbitmq-requeue"},
		{"publisherConfirm", "", "rabbitmq-publisher-confirm"},
		{"prefetchCount", "", "rabbitmq-prefetch-unlimited"},
		{"prefetchCount", "1000", "rabbitmq-prefetch-range"},
		{"autoAck", "true", "rabbitmq-auto-ack"},
	},
	kafka: {
		{"initialOffset", "", "kafka-initial-offset"},
		{"consumeRetryEnabled", "false", "kafka-consume-retry"},
		{"authType", "", "kafka-auth-type-missing"},
	},
	snssqs: {
		{"disableDeleteOnRetryLimit", "", "snssqs-retry-limit"},
		{"messageVisibilityTimeout", "", "snssqs-visibility"},
	},
	mqtt: {
		{"qos", "0", "mqtt-qos"},
		{"cleanSession", "true", "mqtt-clean-session"},
	},
}

func TestHarmToTheProjectsOwnFilesIsFound(t *testing.T) {
	for _, broker := range projectFolders(t, "broker") {
		file := filepath.Join("components", "broker", broker, "order-events.yaml")
		resources, err := readFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range harm[newComponent(resources[0]).kind] {
			t.Run(broker+"/"+c.name+"="+c.value, func(t *testing.T) {
				dir := copyProject(t)
				harmSetting(t, filepath.Join(dir, file), c)
				if got := rules(project(t, dir, broker, "sqlite")); !slices.Equal(got, []string{c.rule}) {
					t.Errorf("found %v, want %s", got, c.rule)
				}
			})
		}
	}

	// What all brokers have in common.
	tests := map[string]struct {
		rule, file string
		old, new   string
	}{
		"no inbound retry":        {"inbound-retry-missing", "shared/resiliency.yaml", "          retry: deliver\n", ""},
		"no inbound timeout":      {"inbound-timeout-missing", "shared/resiliency.yaml", "          timeout: handler\n", ""},
		"retries end":             {"inbound-retry-ends", "shared/resiliency.yaml", "maxRetries: -1", "maxRetries: 10"},
		"exponential":             {"inbound-retry-exponential", "shared/resiliency.yaml", "policy: constant\n        duration: 1s", "policy: exponential"},
		"a breaker":               {"inbound-circuit-breaker", "shared/resiliency.yaml", "          retry: deliver\n", "          retry: deliver\n          circuitBreaker: DefaultBreaker\n"},
		"not alone":               {"resiliency-not-alone", "shared/resiliency.yaml", "apiVersion: dapr.io/v1alpha1", "kind: List\n---\napiVersion: dapr.io/v1alpha1"},
		"nobody reads letters":    {"dead-letter-unread", "shared/subscription-dead-letters.yaml", "scopes: [console]", "scopes: [nobody]"},
		"a route by type":         {"route-default-missing", "shared/subscription-order-events.yaml", "    default: /events/order-events", "    rules:\n      - match: event.type == \"ORDER_CREATED\"\n        path: /events/order-events"},
		"hot reload":              {"hot-reload", "configuration.yaml", "- name: HotReload\n      enabled: false", "- name: HotReload\n      enabled: true"},
		"a series of each path":   {"metrics-cardinality", "configuration.yaml", "increasedCardinality: false", "increasedCardinality: true"},
		"letters not to be sent":  {"dead-letter-forbidden folders-differ", "broker/redis/order-events.yaml", "inventory=dead-letters;", "inventory=;"},
		"a scope is out of step":  {"folders-differ", "broker/nats/order-events.yaml", "scopes: [order, inventory, notification, console]", "scopes: [order, inventory, notification]"},
		"a right is out of step":  {"folders-differ", "broker/nats/order-events.yaml", "order=order-events;", "order=order-events,dead-letters;"},
		"a name is out of step":   {"folders-differ", "state/sqlite/statestore.yaml", "name: statestore", "name: store"},
		"a list in another order": {"", "broker/nats/order-events.yaml", "console=order-events,dead-letters", "console=dead-letters,order-events"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := copyProject(t)
			if test.rule == "inbound-circuit-breaker" {
				replace(t, filepath.Join(dir, "components/shared/resiliency.yaml"), "  policies:\n", "  policies:\n    circuitBreakers:\n      DefaultBreaker: {trip: consecutiveFailures > 5}\n")
			}
			replace(t, filepath.Join(dir, "components", test.file), test.old, test.new)
			found := rules(project(t, dir, "redis", "redis"))
			if test.rule == "resiliency-not-alone" {
				// Without its Resiliency the project lacks all that is in it.
				found = slices.DeleteFunc(found, func(id string) bool { return strings.HasPrefix(id, "inbound-") })
			}
			if want := strings.Fields(test.rule); !slices.Equal(found, want) {
				t.Errorf("found %v, want %v", found, want)
			}
		})
	}
}

func TestAnAlternativeWithoutAComponentIsFound(t *testing.T) {
	dir := copyProject(t)
	if err := os.Remove(filepath.Join(dir, "components/broker/nats/replay.yaml")); err != nil {
		t.Fatal(err)
	}
	if got := rules(project(t, dir, "redis", "redis")); !slices.Equal(got, []string{"folders-differ"}) {
		t.Errorf("found %v", got)
	}
}

func copyProject(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"dapr.yaml", "components"} {
		copyTo(t, filepath.Join(root, name), filepath.Join(dir, name))
	}
	return dir
}

// harmSetting changes a setting of a component's file, or adds it.
func harmSetting(t *testing.T, file string, c change) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`(?m)^    - name: ` + c.name + "\n(      .*\n)+")
	changed := ""
	if c.value != "" {
		changed = value(c.name, c.value)
	}
	if !entry.Match(content) {
		entry, changed = regexp.MustCompile(`(?m)^  metadata:\n`), "  metadata:\n"+changed
	}
	place := entry.FindIndex(content)
	if place == nil {
		t.Fatalf("%s has no metadata", file)
	}
	content = slices.Concat(content[:place[0]], []byte(changed), content[place[1]:])
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
