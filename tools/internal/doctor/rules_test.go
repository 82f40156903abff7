package doctor

import (
	"slices"
	"strings"
	"testing"
)

// specs ends the settings of a component: what is put before it is one more.
const specs = "scopes: [shop"

const (
	orders     = "orders.yaml"
	letters    = "dead-letters.yaml"
	sub        = "shared/subscription-orders.yaml"
	subLetters = "shared/subscription-dead-letters.yaml"
	resiliency = "shared/resiliency.yaml"
	state      = "shared/statestore.yaml"
	config     = "configuration.yaml"
)

// one is a list of one edit.
func one(file, old, new string) []edit { return []edit{{file, old, new}} }

// drop takes a setting out of a component, set gives it another value, add gives
// it one more.
func drop(file, name, v string) []edit       { return one(file, value(name, v), "") }
func set(file, name, old, new string) []edit { return one(file, value(name, old), value(name, new)) }
func add(file, name, v string) []edit        { return one(file, specs, value(name, v)+specs) }
func both(sets ...[]edit) []edit             { return slices.Concat(sets...) }
func bulk(file string, options string) []edit {
	return one(file, "  routes:", "  bulkSubscribe:\n    enabled: true\n"+options+"  routes:")
}
func retries(old, new string) []edit { return one(resiliency, old, new) }

const (
	forever    = "        duration: 1s\n        maxRetries: -1\n"
	noLetters  = "  deadLetterTopic: dead-letters\n"
	ordersIn   = "          timeout: handler\n          retry: deliver\n"
	batchOf    = "    maxMessagesCount: "
	cardinal   = "  metrics:\n    http:\n      increasedCardinality: false\n"
	secondSub  = "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: second}\nspec:\n  pubsubname: orders\n  topic: TOPIC\n  routes: {default: /second}\nscopes: [APP]\n"
	resilience = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: other}\nspec:\n  targets: {components: {orders: {inbound: {timeout: handler, retry: deliver}}}}\n"
)

// extra is one more component, which no YAML subscribes to.
func extra(kind string, settings ...string) []edit {
	return one("extra.yaml", "", "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: extra}\nspec:\n  type: "+kind+"\n  version: v1\n  metadata:\n"+strings.Join(settings, ""))
}

// hidden is a setting whose value is a secret.
func hidden(name string) string {
	return "    - name: " + name + "\n      secretKeyRef: {name: HIDDEN, key: HIDDEN}\n"
}

// noReader are the scopes of a component that every app may publish to and none may read.
var noReader = value("subscriptionScopes", "shop=;stock=;desk=")

// letterReader has stock read the dead letters through their own component.
var letterReader = strings.Replace(second("dead-letters", "stock"), "pubsubname: orders", "pubsubname: dead-letters", 1)

// bare takes the dead-letter topic away.
var bare = one(sub, noLetters, "")

func second(topic, app string) string {
	return strings.NewReplacer("TOPIC", topic, "APP", app).Replace(secondSub)
}

// TestRules changes good sets in one way each and wants the rule that speaks against
// it, or none, and no other.
func TestRules(t *testing.T) {
	tests := []struct {
		rule   string // one, or those that can't but go together; "" if the change is harmless
		broker string
		why    string
		edits  []edit
	}{
		// Subscriptions.
		{"subscription-pubsub-unknown", "kafka", "a name that is not there", both(bare, one(sub, "pubsubname: orders", "pubsubname: order"))},
		{"subscription-pubsub-unknown", "kafka", "out of the app's scope", both(bare, one(orders, "[shop, stock, desk]", "[shop, desk]"))},
		{"subscription-pubsub-unknown", "kafka", "no pub/sub", both(bare, one(sub, "pubsubname: orders", "pubsubname: statestore"))},
		{"subscription-forbidden", "kafka", "not in the app's scope", one(orders, "stock=orders;", "stock=;")},
		{"subscription-forbidden", "kafka", "not allowed to anybody", one(orders, "value: orders,dead-letters", "value: dead-letters")},
		{"", "kafka", "no lists at all", one(orders, "    - name: allowedTopics\n      value: orders,dead-letters\n    - name: protectedTopics\n      value: orders,dead-letters\n    - name: publishingScopes\n      value: shop=orders;stock=dead-letters;desk=\n    - name: subscriptionScopes\n      value: shop=;stock=orders;desk=\n", "")},
		{"subscription-repeated", "kafka", "the same again", one("shared/second.yaml", "", second("orders", "stock"))},
		{"route-default-missing", "kafka", "rules alone", one(sub, "    default: /events/orders", "    rules:\n      - match: event.type == \"A\"\n        path: /a")},
		{"", "kafka", "rules and a default", one(sub, "    default: /events/orders", "    default: /events/orders\n    rules:\n      - match: event.type == \"A\"\n        path: /a")},
		{"", "kafka", "the older version, whose route is the default", both(one(sub, "v2alpha1", "v1alpha1"), one(sub, "  routes:\n    default: /events/orders", "  route: /events/orders"))},
		{"bulk-route-default-missing", "rabbitmq", "rules alone", both(bare, bulk(sub, batchOf+"20\n"), one(sub, "    default: /events/orders", "    rules:\n      - match: event.type == \"A\"\n        path: /a"))},
		{"bulk-dead-letter-routes", "rabbitmq", "rules and a default", both(bulk(sub, batchOf+"20\n"), one(sub, "    default: /events/orders", "    default: /events/orders\n    rules:\n      - match: event.type == \"A\"\n        path: /a"))},
		{"", "rabbitmq", "bulk with one route", bulk(sub, batchOf+"20\n")},
		{"dead-letter-unread", "rabbitmq", "no such subscription", one(subLetters, "topic: dead-letters", "topic: other")},
		{"dead-letter-unread subscription-forbidden", "redis", "a reader who may not", one(letters, specs, "    - name: subscriptionScopes\n      value: desk=other\n"+specs)},
		{"dead-letter-forbidden", "redis", "not among the app's topics", one(orders, "stock=dead-letters;", "stock=;")},
		{"dead-letter-forbidden", "kafka", "protected, and no scope for the app", one(orders, "stock=dead-letters;", "")},
		{"dead-letter-is-topic", "kafka", "itself", both(one(sub, "deadLetterTopic: dead-letters", "deadLetterTopic: orders"), one(orders, "stock=dead-letters;", "stock=orders;"))},
		{"consumer-shared", "kafka", "a name without the app in it", both(set(orders, "consumerGroup", "{appID}-orders", "orders"), one("shared/second.yaml", "", second("orders", "desk")), one(orders, "stock=orders;desk=", "stock=orders;desk=orders"))},
		{"consumer-shared", "jetstream", "the durable", both(set(orders, "durableName", "{appID}-orders", "orders"), one("shared/second.yaml", "", second("orders", "desk")), one(orders, "stock=orders;desk=", "stock=orders;desk=orders"))},
		{"", "kafka", "two apps, two names", both(one("shared/second.yaml", "", second("orders", "desk")), one(orders, "stock=orders;desk=", "stock=orders;desk=orders"))},
		{"", "kafka", "one name, one reader", set(orders, "consumerGroup", "{appID}-orders", "orders")},
		{"bulk-concurrency", "redis", "100 by default, 64 workers", bulk(sub, "")},
		{"bulk-concurrency", "rabbitmq", "prefetch 64", bulk(sub, batchOf+"65\n")},
		{"bulk-concurrency", "rabbitmq", "single", both(add(orders, "concurrencyMode", "single"), bulk(sub, batchOf+"20\n"))},
		{"bulk-concurrency", "snssqs", "limit 64", bulk(sub, batchOf+"65\n")},
		{"", "redis", "as many as there are workers", bulk(sub, batchOf+"64\n")},

		// Resiliency.
		{"resiliency-not-alone", "kafka", "after another document", one("shared/a.yaml", "", "apiVersion: v1\nkind: ConfigMap\n---\n"+resilience)},
		{"", "kafka", "before another document", one(resiliency, "        inbound: *inbound\n", "        inbound: *inbound\n---\napiVersion: v1\nkind: ConfigMap\n")},
		{"resiliency-not-loaded", "kafka", "in a folder below", one("shared/more/a.yaml", "", resilience)},
		{"resiliency-target-unknown", "kafka", "a slip", retries("      dead-letters:\n", "      dead-leters:\n        inbound: *inbound\n      dead-letters:\n")},
		{"inbound-retry-missing", "redis", "lost on Redis", both(bare, retries(ordersIn, "          timeout: handler\n"), retries("        inbound: *inbound\n", "        inbound: {timeout: handler, retry: deliver}\n"))},
		{"inbound-retry-missing", "redis", "subscribed to in code, it seems", extra("pubsub.redis", value("redisHost", "db"), value("queueDepth", "10"), value("streamTTL", "1h"))},
		{"", "redis", "nobody may subscribe", extra("pubsub.redis", value("redisHost", "db"), value("queueDepth", "10"), value("streamTTL", "1h"), value("subscriptionScopes", "shop=;stock=;desk="))},
		{"", "kafka", "in code, where Kafka retries", extra("pubsub.kafka", value("authType", "none"), value("initialOffset", "oldest"))},
		{"inbound-retry-missing", "mqtt", "stuck on MQTT", both(bare, retries(ordersIn, "          timeout: handler\n"), retries("        inbound: *inbound\n", "        inbound: {timeout: handler, retry: deliver}\n"))},
		{"inbound-retry-missing", "kafka", "dead letters at the first failure", retries(ordersIn, "          timeout: handler\n")},
		{"inbound-retry-missing", "kafka", "a policy that is not defined", retries(ordersIn, "          timeout: handler\n          retry: delivery\n")},
		{"", "kafka", "Kafka retries by itself", both(bare, retries(ordersIn, "          timeout: handler\n"))},
		{"", "redis", "by the name of the default", both(one(resiliency, "      deliver:", "      DefaultPubsubComponentInboundRetryPolicy:"), one(resiliency, "      handler: 15s", "      handler: 15s\n      DefaultTimeoutPolicy: 15s"), one(resiliency, "      orders:\n        inbound: &inbound\n"+ordersIn+"        outbound:\n          timeout: publish\n          retry: publish\n      dead-letters:\n        inbound: *inbound\n", "      {}\n"))},
		{"inbound-retry-ends", "redis", "three times", retries(forever, "        duration: 1s\n        maxRetries: 3\n")},
		{"", "kafka", "an end, after which Kafka retries", both(bare, retries(forever, "        maxRetries: 3\n"))},
		{"", "redis", "infinite by default", retries(forever, "        duration: 1s\n")},
		{"inbound-retry-exponential", "kafka", "15 minutes", retries("policy: constant\n        duration: 1s\n", "policy: exponential\n")},
		{"inbound-retry-exponential", "kafka", "in another case", retries("policy: constant\n        duration: 1s\n", "policy: Exponential\n")},
		{"inbound-retry-matching", "kafka", "a list of codes", retries(forever, forever+"        matching:\n          httpStatusCodes: 500-599\n")},
		{"inbound-circuit-breaker", "kafka", "on the subscription", both(retries("  policies:\n", "  policies:\n    circuitBreakers:\n      breaker: {trip: consecutiveFailures > 5}\n"), retries(ordersIn, ordersIn+"          circuitBreaker: breaker\n"))},
		{"", "kafka", "a breaker on an app", both(retries("  policies:\n", "  policies:\n    circuitBreakers:\n      breaker: {trip: consecutiveFailures > 5}\n"), retries("  targets:\n", "  targets:\n    apps:\n      stock: {circuitBreaker: breaker}\n"))},
		{"inbound-timeout-missing", "kafka", "no timeout", retries(ordersIn, "          retry: deliver\n")},
		{"state-retry", "kafka", "on the store", retries("      dead-letters:\n", "      statestore: {outbound: {retry: publish}}\n      dead-letters:\n")},
		{"", "kafka", "a timeout on the store", retries("      dead-letters:\n", "      statestore: {outbound: {timeout: publish}}\n      dead-letters:\n")},

		// Redis.
		{"redis-redelivery-off", "redis", "never abandoned", set(orders, "processingTimeout", "30s", "0")},
		{"redis-redelivery-off", "redis", "never looked for", set(orders, "redeliverInterval", "5000", "0")},
		{"redis-redeliver-interval", "redis", "with a unit", set(orders, "redeliverInterval", "5000", "5s")},
		{"redis-processing-timeout", "redis", "as long as an attempt", set(orders, "processingTimeout", "30s", "15000")},
		{"", "redis", "the default of 60 s", drop(orders, "processingTimeout", "30s")},
		{"", "redis", "a secret for an interval", one(orders, value("redeliverInterval", "5000"), hidden("redeliverInterval"))},
		{"redis-unbounded", "redis", "no bound", drop(orders, "maxLenApprox", "100000")},
		{"", "redis", "bounded by age", one(orders, value("maxLenApprox", "100000"), value("streamTTL", "168h"))},
		{"redis-queue-depth", "redis", "the default of 100 for 10 workers", both(drop(orders, "concurrency", "64"), drop(orders, "queueDepth", "64"))},
		{"", "redis", "twice the workers", set(orders, "queueDepth", "64", "128")},
		{"", "redis", "as it is by default, and only to publish", extra(redis, value("redisHost", "db"), value("streamTTL", "1h"), noReader)},

		// JetStream.
		{"jetstream-parallel", "jetstream", "by the one name", add(orders, "concurrency", "parallel")},
		{"jetstream-parallel", "jetstream", "by the other", add(orders, "concurrencyMode", "parallel")},
		{"", "jetstream", "single", add(orders, "concurrency", "single")},
		{"", "jetstream", "the one is overruled by the other", one(orders, specs, value("concurrency", "parallel")+value("concurrencyMode", "single")+specs)},
		{"jetstream-parallel", "jetstream", "the one overrules the other", one(orders, specs, value("concurrency", "single")+value("concurrencyMode", "parallel")+specs)},
		{"", "jetstream", "all that is for readers, and only to publish", extra(jetstream, value("natsURL", "nats"), value("concurrency", "parallel"), value("deliverPolicy", "new"), value("ackPolicy", "none"), value("maxDeliver", "5"), noReader)},
		{"", "jetstream", "a durable without a group, and only to publish", extra(jetstream, value("natsURL", "nats"), value("durableName", "extra"), noReader)},
		{"jetstream-ack-wait-missing jetstream-durable-missing", "jetstream", "the same, if it may be read in code", extra(jetstream, value("natsURL", "nats"))},
		{"", "jetstream", "a secret for what is delivered", one(orders, value("deliverPolicy", "all"), hidden("deliverPolicy")+hidden("maxDeliver"))},
		{"jetstream-durable-missing", "jetstream", "ephemeral", drop(orders, "durableName", "{appID}-orders")},
		{"jetstream-queue-group-missing", "jetstream", "one replica", drop(orders, "queueGroupName", "{appID}-orders")},
		{"jetstream-durable-topics", "jetstream", "two topics", both(one("shared/second.yaml", "", second("dead-letters", "stock")), one(orders, "stock=orders;", "stock=orders,dead-letters;"), one(sub, noLetters, ""))},
		{"jetstream-ack-wait-missing", "jetstream", "no pause", drop(orders, "ackWait", "8s")},
		{"jetstream-backoff-brackets", "jetstream", "as in its own example", add(orders, "backOff", "[1s, 2s]")},
		{"", "jetstream", "a bare list", add(orders, "backOff", "1s,2s")},
		{"jetstream-deliver-policy", "jetstream", "new", set(orders, "deliverPolicy", "all", "new")},
		{"", "jetstream", "all by default", drop(orders, "deliverPolicy", "all")},
		{"jetstream-ack-policy", "jetstream", "none", add(orders, "ackPolicy", "none")},
		{"jetstream-max-deliver", "jetstream", "five times", add(orders, "maxDeliver", "5")},
		{"", "jetstream", "without end", add(orders, "maxDeliver", "-1")},
		{"jetstream-bulk", "jetstream", "one at a time", bulk(sub, "")},
		{"jetstream-dead-letter-stream", "jetstream", "one stream for both", set(letters, "streamName", "dead-letters", "orders")},

		// RabbitMQ.
		{"rabbitmq-durable", "rabbitmq", "off", set(orders, "durable", "true", "false")},
		{"", "rabbitmq", "on by default", drop(orders, "durable", "true")},
		{"rabbitmq-deleted-when-unused", "rabbitmq", "on by default", drop(orders, "deletedWhenUnused", "false")},
		{"rabbitmq-delivery-mode", "rabbitmq", "transient by default", drop(orders, "deliveryMode", "2")},
		{"rabbitmq-requeue", "rabbitmq", "off by default", drop(orders, "requeueInFailure", "true")},
		{"rabbitmq-dead-letter-queue", "rabbitmq", "refused into RabbitMQ's own dead letters", one(orders, value("requeueInFailure", "true"), value("enableDeadLetter", "true"))},
		{"", "rabbitmq", "its own dead letters, and put back all the same", add(orders, "enableDeadLetter", "true")},
		{"", "rabbitmq", "the defaults of readers, and only to publish", extra(rabbit, value("deliveryMode", "2"), value("publisherConfirm", "true"), value("autoAck", "true"), noReader)},
		{"rabbitmq-deleted-when-unused rabbitmq-prefetch-unlimited rabbitmq-requeue", "rabbitmq", "the same, if it may be read in code", extra(rabbit, value("deliveryMode", "2"), value("publisherConfirm", "true"))},
		{"", "rabbitmq", "a secret for a number", one(orders, value("deliveryMode", "2"), hidden("deliveryMode"))},
		{"", "rabbitmq", "a secret for a range", one(orders, value("prefetchCount", "64"), hidden("prefetchCount"))},
		{"", "rabbitmq", "a secret for a word", one(orders, value("publisherConfirm", "true"), hidden("publisherConfirm"))},
		{"rabbitmq-publisher-confirm", "rabbitmq", "off by default", drop(orders, "publisherConfirm", "true")},
		{"", "rabbitmq", "another word for true", set(orders, "publisherConfirm", "true", "yes")},
		{"rabbitmq-auto-ack", "rabbitmq", "on", add(orders, "autoAck", "true")},
		{"rabbitmq-prefetch-unlimited", "rabbitmq", "none", drop(orders, "prefetchCount", "64")},
		{"rabbitmq-prefetch-range", "rabbitmq", "256", set(orders, "prefetchCount", "64", "256")},
		{"rabbitmq-concurrency-name", "rabbitmq", "the wrong name", add(orders, "concurrency", "single")},
		{"", "rabbitmq", "the right name", add(orders, "concurrencyMode", "single")},

		// Kafka.
		{"kafka-initial-offset", "kafka", "newest by default", drop(orders, "initialOffset", "oldest")},
		{"", "kafka", "in another case", set(orders, "initialOffset", "oldest", "Oldest")},
		{"", "kafka", "a secret for an offset", one(orders, value("initialOffset", "oldest"), hidden("initialOffset"))},
		{"", "kafka", "newest by default, and only to publish", extra(kafka, value("authType", "none"), value("consumeRetryEnabled", "false"), noReader)},
		{"kafka-consume-retry", "kafka", "off", add(orders, "consumeRetryEnabled", "false")},
		{"kafka-backoff-ends", "kafka", "after ten", add(orders, "backOffMaxRetries", "10")},
		{"kafka-backoff-ends", "kafka", "after 15 minutes", add(orders, "backOffPolicy", "exponential")},
		{"kafka-backoff-ends", "kafka", "in another case", add(orders, "backOffPolicy", "Exponential")},
		{"", "kafka", "exponential without end", one(orders, specs, value("backOffPolicy", "exponential")+value("backOffMaxElapsedTime", "0")+specs)},
		{"kafka-auth-type-missing", "kafka", "left out", drop(orders, "authType", "none")},
		{"", "kafka", "the older form", one(orders, value("authType", "none"), value("authRequired", "false"))},
		{"kafka-bulk", "kafka", "on", bulk(sub, "")},
		{"kafka-sasl-mechanism", "kafka", "as Kafka itself names it", one(orders, value("authType", "none"), value("authType", "password")+value("saslMechanism", "SCRAM-SHA-512"))},
		{"kafka-sasl-mechanism", "kafka", "in another case", one(orders, value("authType", "none"), value("authType", "Password")+value("saslMechanism", "sha-256"))},
		{"", "kafka", "by its name", one(orders, value("authType", "none"), value("authType", "password")+value("saslMechanism", "SHA-256"))},
		{"", "kafka", "PLAIN, and said so", one(orders, value("authType", "none"), value("authType", "password")+value("saslMechanism", "PLAINTEXT"))},
		{"", "kafka", "a secret for a mechanism", one(orders, value("authType", "none"), value("authType", "password")+hidden("saslMechanism"))},
		{"", "kafka", "a name that is not read", add(orders, "saslMechanism", "SCRAM-SHA-512")},

		// SNS/SQS.
		{"snssqs-retry-limit", "snssqs", "deleted after ten", drop(orders, "disableDeleteOnRetryLimit", "true")},
		{"", "snssqs", "a queue for them", one(orders, value("disableDeleteOnRetryLimit", "true"), value("sqsDeadLettersQueueName", "dead")+value("messageReceiveLimit", "8"))},
		{"", "snssqs", "a secret for a switch", one(orders, value("disableDeleteOnRetryLimit", "true"), hidden("disableDeleteOnRetryLimit"))},
		{"", "snssqs", "a secret for a limit", one(orders, value("disableDeleteOnRetryLimit", "true"), value("sqsDeadLettersQueueName", "dead")+hidden("messageReceiveLimit"))},
		{"snssqs-dead-letter-pair", "snssqs", "half of it", one(orders, value("disableDeleteOnRetryLimit", "true"), value("sqsDeadLettersQueueName", "dead"))},
		{"snssqs-dead-letter-pair", "snssqs", "with its contrary", one(orders, specs, value("sqsDeadLettersQueueName", "dead")+value("messageReceiveLimit", "8")+specs)},
		{"snssqs-shared-queue", "snssqs", "the app id for both", both(drop(orders, "consumerID", "{appID}-orders"), set(letters, "consumerID", "{appID}-dead-letters", "{appID}"), one("shared/second.yaml", "", letterReader))},
		{"", "snssqs", "the app id for both, of which it reads one", both(drop(orders, "consumerID", "{appID}-orders"), set(letters, "consumerID", "{appID}-dead-letters", "{appID}"))},
		{"", "snssqs", "the app id for one", drop(orders, "consumerID", "{appID}-orders")},
		{"snssqs-visibility", "snssqs", "the default of 10 s", drop(orders, "messageVisibilityTimeout", "30")},
		{"snssqs-concurrency-unlimited", "snssqs", "none", drop(orders, "concurrencyLimit", "64")},
		{"", "snssqs", "the defaults of readers, and only to publish", extra(snssqs, value("region", "eu"), noReader)},
		{"", "snssqs", "one at a time", one(orders, value("concurrencyLimit", "64"), value("concurrencyMode", "single"))},

		// MQTT.
		{"mqtt-qos", "mqtt", "fire and forget", set(orders, "qos", "1", "0")},
		{"mqtt-qos", "mqtt", "no such", set(orders, "qos", "1", "3")},
		{"", "mqtt", "1 by default", drop(orders, "qos", "1")},
		{"", "mqtt", "a secret for it", one(orders, value("qos", "1"), hidden("qos"))},
		{"mqtt-clean-session", "mqtt", "on", add(orders, "cleanSession", "true")},
		{"mqtt-session-name", "mqtt", "a new one each time", set(orders, "consumerID", "{appID}-orders", "{uuid}")},
		{"mqtt-shared-client", "mqtt", "the app id for both", both(drop(orders, "consumerID", "{appID}-orders"), drop(letters, "consumerID", "{appID}-dead-letters"))},

		// State, names, configuration.
		{"state-outbox", "kafka", "on SQLite", one(state, "    - name: keyPrefix", value("outboxPublishPubsub", "orders")+"    - name: keyPrefix")},
		{"state-outbox-redis", "kafka", "on Redis", both(one(state, "    - name: keyPrefix", value("outboxPublishPubsub", "orders")+"    - name: keyPrefix"), one(state, "state.sqlite", "state.redis"))},
		{"sqlite-synchronous", "kafka", "NORMAL", one(state, "file:shop.db", "file:shop.db?_pragma=synchronous(NORMAL)")},
		{"", "kafka", "FULL", one(state, "file:shop.db", "file:shop.db?_pragma=synchronous(FULL)")},
		{"name-repeated", "kafka", "two stores", one("shared/z.yaml", "", "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: statestore}\nspec: {type: state.redis, version: v1}\n")},
		{"name-repeated", "kafka", "the second of another app", one("shared/z.yaml", "", "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: statestore}\nspec: {type: state.redis, version: v1}\nscopes: [stock]\n")},
		{"password-in-plain", "redis", "a password", add(orders, "redisPassword", "hunter2")},
		{"", "redis", "an empty one", add(orders, "redisPassword", "")},
		{"password-in-plain", "kafka", "one within an address", one(state, "file:shop.db", "postgres://shop:hunter2@db/shop")},
		{"broker-in-memory dead-letter-unread", "kafka", "for tests", one(letters, "pubsub.kafka", "pubsub.in-memory")},
		{"hot-reload", "kafka", "on by default", one(config, "  features:\n    - name: HotReload\n      enabled: false\n", "")},
		{"hot-reload", "kafka", "on", one(config, "enabled: false\n", "enabled: true\n")},
		{"tracing-cut", "kafka", "0", one(config, "\"1\"", "\"0\"")},
		{"", "kafka", "left out", one(config, "  tracing:\n    samplingRate: \"1\"\n", "")},
		{"metrics-cardinality", "kafka", "on by default", one(config, "    http:\n      increasedCardinality: false\n", "    enabled: true\n")},
		{"", "kafka", "off, by the other name", one(config, cardinal, strings.Replace(cardinal, "metrics", "metric", 1))},
		{"", "kafka", "no metrics, by the other name", one(config, cardinal, "  metric: {enabled: false}\n")},
		{"", "kafka", "the one name says nothing of it, the other does", one(config, cardinal, "  metrics: {enabled: true}\n"+strings.Replace(cardinal, "metrics", "metric", 1))},
		{"metrics-cardinality", "kafka", "both, of which the first counts", one(config, cardinal, strings.Replace(cardinal, "metrics", "metric", 1)+"  metrics: {http: {increasedCardinality: true}}\n")},
		{"metrics-cardinality", "kafka", "on by default, by the other name", one(config, cardinal, "  metric: {http: {}}\n")},
	}
	tried := map[string]bool{}
	for _, test := range tests {
		want := strings.Fields(test.rule)
		for _, id := range want {
			tried[id] = true
		}
		t.Run(test.rule+"/"+test.broker+"/"+test.why, func(t *testing.T) {
			found := examine(t, test.broker, test.edits...)
			if got := rules(found); !slices.Equal(got, want) {
				t.Errorf("found %v, want %v: %+v", got, want, found)
			}
		})
	}
	for _, rule := range Rules() {
		if rule.check != nil && !tried[rule.ID] {
			t.Errorf("no test breaks %s", rule.ID)
		}
	}
}
