package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	redis     = "pubsub.redis"
	jetstream = "pubsub.jetstream"
)

var redisRules = []Rule{
	{
		ID: "redis-redelivery-off", Severity: Loses, On: redis,
		What:   "`processingTimeout` or `redeliverInterval` is 0",
		Source: "components-contrib pubsub/redis/redis.go reclaimPendingMessagesLoop",
		check: eachComponent(redis, func(_ *sidecar, c *component, report reporter) {
			for name, write := range map[string]string{"processingTimeout": "30s", "redeliverInterval": "5000"} {
				if s, ok := c.get(name); ok && c.duration(name, time.Second) == 0 {
					report(place{c.resource, s.line}, line(name, write), "0 switches the search for abandoned events off: what a killed sidecar held is never delivered again.")
				}
			}
		}),
	},
	{
		ID: "redis-redeliver-interval", Severity: Risk, On: redis,
		What:   "`redeliverInterval` is not a bare number of milliseconds",
		Source: "components-contrib common/component/redis/settings.go",
		check: eachComponent(redis, func(_ *sidecar, c *component, report reporter) {
			s, ok := c.get("redeliverInterval")
			if !ok || s.secret() {
				return
			}
			if _, err := strconv.Atoi(s.value); err != nil {
				report(place{c.resource, s.line}, line("redeliverInterval", "5000"), "Anything but a bare number is ignored without a word, and 15 s are taken.")
			}
		}),
	},
	{
		ID: "redis-processing-timeout", Severity: Risk, On: redis,
		What:   "`processingTimeout` (60 s if left out) not above the inbound timeout",
		Source: "components-contrib pubsub/redis/redis.go",
		check: on(redis, func(s *sidecar, _ *subscription, c *component, report reporter) {
			handler := s.policies.of(c, "inbound").timeout.duration()
			if limit := c.duration("processingTimeout", time.Minute); limit > 0 && handler >= limit {
				report(c.place("processingTimeout"), line("processingTimeout", (2*handler).String()),
					fmt.Sprintf("One attempt may take %s, and after %s the event is given to another worker as abandoned: it is handled twice at the same time.", handler, limit))
			}
		}),
	},
	{
		ID: "redis-unbounded", Severity: Risk, On: redis,
		What:   "neither `maxLenApprox` nor `streamTTL`",
		Source: "components-contrib pubsub/redis/redis.go Publish",
		check: eachComponent(redis, func(_ *sidecar, c *component, report reporter) {
			_, ttl := c.get("streamTTL")
			if length, known := c.number("maxLenApprox", 0); known && length == 0 && !ttl {
				report(c.place("maxLenApprox"), line("maxLenApprox", "1000000"), "What is acknowledged stays in the stream: Redis fills up, and then refuses writes or evicts.")
			}
		}),
	},
	{
		ID: "redis-queue-depth", Severity: Risk, On: redis,
		What:   "`queueDepth` (100 if left out) more than twice `concurrency` (10)",
		Source: "components-contrib common/component/redis/redis.go",
		check: readers(eachComponent(redis, func(_ *sidecar, c *component, report reporter) {
			workers, _ := c.number("concurrency", 10)
			if depth, _ := c.number("queueDepth", 100); workers > 0 && depth > 2*workers {
				report(c.place("queueDepth"), line("queueDepth", strconv.Itoa(workers)),
					fmt.Sprintf("%d events wait in the sidecar for %d workers. The clock of processingTimeout runs meanwhile, so they are delivered twice, and no other replica can have them.", depth, workers))
			}
		})),
	},
}

var jetstreamRules = []Rule{
	{
		ID: "jetstream-parallel", Severity: Loses, On: jetstream,
		What:   "`concurrencyMode` is `parallel`, or `concurrency` is and there is no `concurrencyMode`",
		Source: "components-contrib pubsub/jetstream/jetstream.go Subscribe, without nats.ManualAck; metadata.go: concurrencyMode wins",
		check: readers(eachComponent(jetstream, func(_ *sidecar, c *component, report reporter) {
			name := "concurrency"
			if _, ok := c.get("concurrencyMode"); ok {
				name = "concurrencyMode"
			}
			if c.value(name, "") == "parallel" {
				report(c.place(name), line(name, "single"), "The client acknowledges an event before its handler has run: what is under way when a process dies is lost. More replicas make it faster.")
			}
		})),
	},
	{
		ID: "jetstream-durable-missing", Severity: Stalls, On: jetstream,
		What:   "no `durableName`",
		Source: "components-contrib pubsub/jetstream/jetstream.go",
		check:  readers(needs(jetstream, "durableName", "{appID}-topic", "Without it each start of a sidecar reads the stream from its beginning, or, with deliverPolicy new, misses what was published meanwhile.")),
	},
	{
		ID: "jetstream-queue-group-missing", Severity: Stalls, On: jetstream,
		What:   "`durableName` without `queueGroupName`",
		Source: "nats.go js.go: consumer is already bound to a subscription",
		check: readers(eachComponent(jetstream, func(_ *sidecar, c *component, report reporter) {
			durable, ok := c.get("durableName")
			if _, group := c.get("queueGroupName"); ok && !group {
				report(c.place("durableName"), line("queueGroupName", durable.value), "The second replica of an app is refused, as the durable consumer is bound already, and gets no events, not even when the first one dies.")
			}
		})),
	},
	{
		ID: "jetstream-durable-topics", Severity: Stalls, On: jetstream,
		What:   "one `durableName` for subscriptions to several topics",
		Source: "nats.go js.go: subject does not match consumer",
		check: eachComponent(jetstream, func(s *sidecar, c *component, report reporter) {
			read := s.reads(c)
			if _, ok := c.get("durableName"); ok && len(read) > 1 && read[0].topic != read[len(read)-1].topic {
				report(c.place("durableName"), "# a component for each topic, with a durableName of its own",
					fmt.Sprintf("A durable consumer reads one subject. Of the %d subscriptions of %s the first gets events and the others are refused for ever.", len(read), s.app))
			}
		}),
	},
	{
		ID: "jetstream-ack-wait-missing", Severity: Risk, On: jetstream,
		What:   "no `ackWait`",
		Source: "components-contrib pubsub/jetstream/jetstream.go",
		check:  readers(needs(jetstream, "ackWait", "8s", "The component also takes it for the pause before a refused event comes again; without it there is none, and a failing event goes round as fast as it can.")),
	},
	{
		ID: "jetstream-backoff-brackets", Severity: Stalls, On: jetstream,
		What:   "`backOff` with brackets",
		Source: "dapr/kit metadata/string_decoders.go",
		check: avoid(jetstream, "backOff", func(v string) bool { return strings.ContainsAny(v, "[]") },
			line("backOff", "1s,5s,30s"), "The list is read without brackets; with them the component fails to start, and the sidecar with it."),
	},
	{
		ID: "jetstream-deliver-policy", Severity: Loses, On: jetstream,
		What:   "`deliverPolicy` other than `all`",
		Source: "components-contrib pubsub/jetstream/jetstream.go",
		check: readers(avoid(jetstream, "deliverPolicy", func(v string) bool { return v != "all" },
			line("deliverPolicy", "all"), "What was published before a subscriber's first start is not delivered to it.")),
	},
	{
		ID: "jetstream-ack-policy", Severity: Loses, On: jetstream,
		What:   "`ackPolicy` other than `explicit`",
		Source: "components-contrib pubsub/jetstream/metadata.go",
		check: readers(avoid(jetstream, "ackPolicy", func(v string) bool { return v == "none" || v == "all" },
			line("ackPolicy", "explicit"), "With none an event counts as done when it is sent; with all one that is done takes those before it along.")),
	},
	{
		ID: "jetstream-max-deliver", Severity: Loses, On: jetstream,
		What:   "`maxDeliver` with an end",
		Source: "components-contrib pubsub/jetstream/jetstream.go",
		check: readers(eachComponent(jetstream, func(_ *sidecar, c *component, report reporter) {
			if n, known := c.number("maxDeliver", -1); known && n > 0 {
				report(c.place("maxDeliver"), line("maxDeliver", "-1"), "After so many deliveries, those to killed sidecars included, the server stops delivering the event, and nothing takes it.")
			}
		})),
	},
	{
		ID: "jetstream-bulk", Severity: Stalls, On: jetstream,
		What:   "`bulkSubscribe`",
		Source: "dapr pkg/runtime/pubsub/default_bulksub.go",
		check: on(jetstream, func(_ *sidecar, sub *subscription, _ *component, report reporter) {
			if sub.bulk {
				report(sub.at("bulkSubscribe"), "bulkSubscribe:\n  enabled: false", "The component delivers one event at a time, so a batch is one event, and each waits the whole maxAwaitDurationMs (1 s).")
			}
		}),
	},
	{
		ID: "jetstream-dead-letter-stream", Severity: Loses, On: jetstream,
		What:   "a `deadLetterTopic` in the stream of the topic",
		Source: "components-contrib pubsub/jetstream/jetstream.go Publish: Nats-Msg-Id",
		check: on(jetstream, func(s *sidecar, sub *subscription, c *component, report reporter) {
			stream := c.value("streamName", "")
			if sub.deadLetters == "" || stream == "" {
				return
			}
			if d, reader := s.set.reader(jetstream, sub.deadLetters); reader != nil && d.value("streamName", "") == stream {
				report(d.place("streamName"), line("streamName", sub.deadLetters)+"\n# and a stream of that name, with "+sub.deadLetters+" as its subject",
					"A dead letter has the id of its event. Within the stream's duplicate window (2 minutes) it is acknowledged as a repetition and dropped.")
			}
		}),
	},
}
