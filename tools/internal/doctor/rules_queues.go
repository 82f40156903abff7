package doctor

import (
	"fmt"
	"slices"
	"strings"
)

const (
	rabbit = "pubsub.rabbitmq"
	kafka  = "pubsub.kafka"
	snssqs = "pubsub.aws.snssqs"
	mqtt   = "pubsub.mqtt3"
)

// maxPrefetch is what RabbitMQ's prefetchCount has room for.
const maxPrefetch = 255

var rabbitRules = []Rule{
	{
		ID: "rabbitmq-durable", Severity: Loses, On: rabbit,
		What:   "`durable: false`",
		Source: "components-contrib pubsub/rabbitmq/metadata.go",
		check:  must(rabbit, "durable", true, true, "Exchange and queue, with what is in them, are gone after a restart of the broker."),
	},
	{
		ID: "rabbitmq-deleted-when-unused", Severity: Loses, On: rabbit,
		What:   "`deletedWhenUnused` is not `false` (true if left out)",
		Source: "components-contrib pubsub/rabbitmq/metadata.go",
		check:  readers(must(rabbit, "deletedWhenUnused", false, true, "When the last sidecar of a subscriber goes, its queue goes with all that waits in it, and until it is back nothing is kept for it.")),
	},
	{
		ID: "rabbitmq-delivery-mode", Severity: Loses, On: rabbit,
		What:   "`deliveryMode` is not 2 (transient if left out)",
		Source: "components-contrib pubsub/rabbitmq/metadata.go",
		check: eachComponent(rabbit, func(_ *sidecar, c *component, report reporter) {
			if mode, known := c.number("deliveryMode", 0); known && mode != 2 {
				report(c.place("deliveryMode"), line("deliveryMode", "2"), "Messages are transient: a restart of the broker loses them, from durable queues too.")
			}
		}),
	},
	{
		ID: "rabbitmq-requeue", Severity: Loses, On: rabbit,
		What:   "`requeueInFailure` is not `true` (false if left out), and there is no `enableDeadLetter: true`",
		Source: "components-contrib pubsub/rabbitmq/rabbitmq.go handleMessage",
		check: refusing(func(c *component) bool {
			return !truthy(c.value("enableDeadLetter", "")) && !c.hides("enableDeadLetter")
		},
			"What is under way when a sidecar is stopped, or fails, is refused without being put back: the broker drops it."),
	},
	{
		ID: "rabbitmq-dead-letter-queue", Severity: Risk, On: rabbit,
		What:   "`enableDeadLetter: true` without `requeueInFailure: true`",
		Source: "components-contrib pubsub/rabbitmq/rabbitmq.go prepareSubscription, handleMessage",
		check: refusing(func(c *component) bool { return truthy(c.value("enableDeadLetter", "")) },
			"What is under way when a sidecar is stopped, or fails, is refused without being put back, and RabbitMQ puts it into the queue dlq-<consumerID>-<topic>. Dapr reads no such queue: somebody has to move each event back."),
	},
	{
		ID: "rabbitmq-publisher-confirm", Severity: Loses, On: rabbit,
		What:   "`publisherConfirm` is not `true` (false if left out)",
		Source: "components-contrib pubsub/rabbitmq/rabbitmq.go",
		check:  must(rabbit, "publisherConfirm", true, false, "A publish is reported done when it is written to the connection; what the broker never got is lost."),
	},
	{
		ID: "rabbitmq-auto-ack", Severity: Loses, On: rabbit,
		What:   "`autoAck: true`",
		Source: "components-contrib pubsub/rabbitmq/rabbitmq.go",
		check:  readers(must(rabbit, "autoAck", false, false, "A message is acknowledged when it is sent: what a sidecar holds when it dies is lost.")),
	},
	{
		ID: "rabbitmq-prefetch-unlimited", Severity: Risk, On: rabbit,
		What:   "no `prefetchCount`, or 0",
		Source: "components-contrib pubsub/rabbitmq/rabbitmq.go",
		check: readers(eachComponent(rabbit, func(_ *sidecar, c *component, report reporter) {
			if n, known := c.number("prefetchCount", 0); known && n == 0 {
				report(c.place("prefetchCount"), line("prefetchCount", "64"), "After an outage the whole backlog comes to one sidecar at once, a call to the app for each message, and other replicas get none.")
			}
		})),
	},
	{
		ID: "rabbitmq-prefetch-range", Severity: Stalls, On: rabbit,
		What:   "`prefetchCount` above 255, or no number",
		Source: "components-contrib pubsub/rabbitmq/metadata.go: uint8",
		check: eachComponent(rabbit, func(_ *sidecar, c *component, report reporter) {
			if n, known := c.number("prefetchCount", 0); known && (n < 0 || n > maxPrefetch) {
				report(c.place("prefetchCount"), line("prefetchCount", fmt.Sprint(maxPrefetch)), "The component refuses the value and the sidecar stops at its start.")
			}
		}),
	},
	{
		ID: "rabbitmq-concurrency-name", Severity: Risk, On: rabbit,
		What:   "`concurrency` in place of `concurrencyMode`",
		Source: "components-contrib pubsub/rabbitmq/metadata.go",
		check: eachComponent(rabbit, func(_ *sidecar, c *component, report reporter) {
			if s, ok := c.get("concurrency"); ok {
				report(c.place("concurrency"), line("concurrencyMode", s.value), "This name is not read, and deliveries are parallel.")
			}
		}),
	},
}

var kafkaRules = []Rule{
	{
		ID: "kafka-initial-offset", Severity: Loses, On: kafka,
		What:   "`initialOffset` is not `oldest` (newest if left out)",
		Source: "components-contrib common/component/kafka/utils.go",
		check: readers(eachComponent(kafka, func(_ *sidecar, c *component, report reporter) {
			if !c.hides("initialOffset") && !strings.EqualFold(c.value("initialOffset", "newest"), "oldest") {
				report(c.place("initialOffset"), line("initialOffset", "oldest"), "A subscriber misses what was published before its first commit in a partition: before its first start, and in every partition that is added later.")
			}
		})),
	},
	{
		ID: "kafka-consume-retry", Severity: Loses, On: kafka,
		What:   "`consumeRetryEnabled: false`",
		Source: "components-contrib common/component/kafka/consumer.go",
		check:  readers(must(kafka, "consumeRetryEnabled", true, true, "An event that failed is logged, and the next one that succeeds commits past it.")),
	},
	{
		ID: "kafka-backoff-ends", Severity: Loses, On: kafka,
		What:   "`backOffMaxRetries`, or `backOffPolicy: exponential` without `backOffMaxElapsedTime: 0`",
		Source: "components-contrib common/component/kafka/kafka.go; dapr/kit retry/retry.go",
		check: readers(eachComponent(kafka, func(_ *sidecar, c *component, report reporter) {
			if n, known := c.number("backOffMaxRetries", -1); known && n >= 0 {
				report(c.place("backOffMaxRetries"), line("backOffMaxRetries", "-1"), "After so many retries the next event that succeeds commits past the one that failed.")
			}
			if strings.EqualFold(c.value("backOffPolicy", ""), "exponential") && !c.hides("backOffMaxElapsedTime") && !slices.Contains([]string{"0", "0s"}, c.value("backOffMaxElapsedTime", "")) {
				report(c.place("backOffPolicy"), line("backOffMaxElapsedTime", "0"), "Exponential retries end after 15 minutes, and the next event that succeeds commits past the one that failed.")
			}
		})),
	},
	{
		ID: "kafka-auth-type-missing", Severity: Stalls, On: kafka,
		What:   "no `authType` (nor `authRequired`, its older form)",
		Source: "components-contrib common/component/kafka/metadata.go",
		check: eachComponent(kafka, func(_ *sidecar, c *component, report reporter) {
			_, now := c.get("authType")
			if _, before := c.get("authRequired"); !now && !before {
				report(c.place("authType"), line("authType", "none"), "The component wants to be told, and the sidecar stops at its start.")
			}
		}),
	},
	{
		ID: "kafka-bulk", Severity: Stalls, On: kafka,
		What:   "`bulkSubscribe`",
		Source: "components-contrib common/component/kafka/consumer.go, utils.go",
		check: on(kafka, func(_ *sidecar, sub *subscription, _ *component, report reporter) {
			if sub.bulk {
				report(sub.at("bulkSubscribe"), "bulkSubscribe:\n  enabled: false", "The component holds one lock over the call to the app: batches of all partitions and topics wait for each other, and one that fails stops all. A batch that does not fill waits for maxAwaitDurationMs to pass (10 s if left out).")
			}
		}),
	},
	{
		ID: "kafka-sasl-mechanism", Severity: Risk, On: kafka,
		What:   "`saslMechanism` is not exactly `SHA-256` or `SHA-512`, nor a word for PLAIN, with `authType: password`",
		Source: "components-contrib common/component/kafka/auth.go updatePasswordAuthInfo",
		check: eachComponent(kafka, func(_ *sidecar, c *component, report reporter) {
			s, ok := c.get("saslMechanism")
			if !ok || s.secret() || !strings.EqualFold(c.value("authType", "password"), "password") {
				return
			}
			if !slices.Contains([]string{"SHA-256", "SHA-512", "PLAIN", "PLAINTEXT"}, s.value) {
				report(c.place("saslMechanism"), line("saslMechanism", "SHA-512"), "A name that the component doesn't know is taken for PLAIN without a word: the password is sent as it is, and brokers that want SCRAM refuse it.")
			}
		}),
	},
}

var snssqsRules = []Rule{
	{
		ID: "snssqs-retry-limit", Severity: Loses, On: snssqs,
		What:   "neither `disableDeleteOnRetryLimit: true` nor an SQS dead-letter queue",
		Source: "components-contrib pubsub/aws/snssqs/snssqs.go validateMessage",
		check: readers(eachComponent(snssqs, func(_ *sidecar, c *component, report reporter) {
			if _, dead := c.get("sqsDeadLettersQueueName"); !dead && !c.hides("disableDeleteOnRetryLimit") && !truthy(c.value("disableDeleteOnRetryLimit", "false")) {
				report(c.place("disableDeleteOnRetryLimit"), line("disableDeleteOnRetryLimit", "true"), "A message that was received messageRetryLimit times (10) is deleted. Each lapse of messageVisibilityTimeout (10 s) counts, also while the sidecar is still retrying: an outage of two minutes empties the queue.")
			}
		})),
	},
	{
		ID: "snssqs-dead-letter-pair", Severity: Stalls, On: snssqs,
		What:   "one of `sqsDeadLettersQueueName` and `messageReceiveLimit` without the other, or with `disableDeleteOnRetryLimit`",
		Source: "components-contrib pubsub/aws/snssqs/metadata.go getSnsSqsMetadata",
		check: eachComponent(snssqs, func(_ *sidecar, c *component, report reporter) {
			_, queue := c.get("sqsDeadLettersQueueName")
			limit, known := c.number("messageReceiveLimit", 0)
			if known && queue != (limit > 0) || queue && truthy(c.value("disableDeleteOnRetryLimit", "false")) {
				report(c.place("sqsDeadLettersQueueName"), "# neither sqsDeadLettersQueueName nor messageReceiveLimit\n"+line("disableDeleteOnRetryLimit", "true"), "The component refuses the combination and the sidecar stops at its start.")
			}
		}),
	},
	{
		ID: "snssqs-shared-queue", Severity: Loses, On: snssqs,
		What:   "an app subscribes through two components with one `consumerID` (the app id if left out)",
		Source: "components-contrib pubsub/aws/snssqs/snssqs.go callHandler, Subscribe",
		check: sharedConsumer(snssqs, (*sidecar).subscribes,
			"consumerID names the queue. Components that read one queue take each other's messages, have no handler for them, and after messageRetryLimit of that they are deleted."),
	},
	{
		ID: "snssqs-visibility", Severity: Risk, On: snssqs,
		What:   "`messageVisibilityTimeout` (10 s if left out) not above the inbound timeout",
		Source: "components-contrib pubsub/aws/snssqs/snssqs.go consumeSubscription",
		check: on(snssqs, func(s *sidecar, _ *subscription, c *component, report reporter) {
			handler := int(s.policies.of(c, "inbound").timeout.duration().Seconds())
			if visible, known := c.number("messageVisibilityTimeout", 10); known && visible > 0 && handler >= visible {
				report(c.place("messageVisibilityTimeout"), line("messageVisibilityTimeout", fmt.Sprint(2*handler)),
					fmt.Sprintf("One attempt may take %d s, and after %d s SQS gives the message to another: it is handled twice at the same time, and counts as received again.", handler, visible))
			}
		}),
	},
	{
		ID: "snssqs-concurrency-unlimited", Severity: Risk, On: snssqs,
		What:   "no `concurrencyLimit`, in `concurrencyMode: parallel` (which it is if left out)",
		Source: "components-contrib pubsub/aws/snssqs/snssqs.go consumeSubscription",
		check: readers(eachComponent(snssqs, func(_ *sidecar, c *component, report reporter) {
			if limit, known := c.number("concurrencyLimit", 0); known && limit == 0 && c.concurrent() {
				report(c.place("concurrencyLimit"), line("concurrencyLimit", "64"), "After an outage the whole backlog comes to one sidecar at once, a call to the app for each message, and is received again while it waits.")
			}
		})),
	},
}

var mqttRules = []Rule{
	{
		ID: "mqtt-qos", Severity: Loses, On: mqtt,
		What:   "`qos` is not 1 or 2 (1 if left out)",
		Source: "components-contrib pubsub/mqtt3/mqtt.go Publish",
		check: eachComponent(mqtt, func(_ *sidecar, c *component, report reporter) {
			if qos, known := c.number("qos", 1); known && qos != 1 && qos != 2 {
				report(c.place("qos"), line("qos", "1"), "With 0 nobody acknowledges anything: what is under way when a connection breaks is lost. Above 2 there is nothing in MQTT, though the component takes it.")
			}
		}),
	},
	{
		ID: "mqtt-clean-session", Severity: Loses, On: mqtt,
		What:   "`cleanSession: true`",
		Source: "components-contrib pubsub/mqtt3/mqtt.go createClientOptions",
		check:  must(mqtt, "cleanSession", false, false, "The broker keeps nothing for a subscriber that is away, and forgets what it had not acknowledged."),
	},
	{
		ID: "mqtt-session-name", Severity: Loses, On: mqtt,
		What:   "`consumerID` with `{uuid}`",
		Source: "components-contrib pubsub/mqtt3/mqtt.go connect: the client id",
		check: avoid(mqtt, "consumerID", func(v string) bool { return strings.Contains(v, "{uuid}") },
			line("consumerID", "{appID}"), "Each start is a new session: what waited in the one before, and what was unacknowledged there, is not delivered."),
	},
	{
		ID: "mqtt-shared-client", Severity: Stalls, On: mqtt,
		What:   "two components of one sidecar with one `consumerID` (the app id if left out)",
		Source: "components-contrib pubsub/mqtt3/mqtt.go connect: the client id",
		check: sharedConsumer(mqtt, func(*sidecar, *component) bool { return true },
			"consumerID is the client id, and a broker closes the older connection of a client id for the newer one: the components throw each other out without end."),
	},
}

// refusing finds a RabbitMQ component of a reader, of the kind that is asked for, that
// does not put back what its app fails at.
func refusing(ofKind func(*component) bool, why string) func(*sidecar, reporter) {
	return readers(func(s *sidecar, report reporter) {
		must(rabbit, "requeueInFailure", true, false, why)(s.with(ofKind), report)
	})
}

// sharedConsumer finds components of a kind that have a consumerID in common with
// an earlier one of the sidecar, among those that connect under it.
func sharedConsumer(kind string, connects func(*sidecar, *component) bool, why string) func(*sidecar, reporter) {
	return func(s *sidecar, report reporter) {
		seen := map[string]bool{}
		for _, c := range s.components {
			if c.kind != kind || !connects(s, c) {
				continue
			}
			id := strings.ReplaceAll(c.value("consumerID", s.app), "{appID}", s.app)
			if seen[id] {
				report(c.place("consumerID"), line("consumerID", "{appID}-"+c.name), why)
			}
			seen[id] = true
		}
	}
}

func (s *sidecar) subscribes(c *component) bool { return len(s.reads(c)) > 0 }
