package doctor

import (
	"fmt"
	"strings"
)

var subscriptionRules = []Rule{
	{
		ID: "subscription-pubsub-unknown", Severity: Stalls, On: "Subscription",
		What:   "`pubsubname` is no pub/sub component that the app's sidecar loads",
		Source: "dapr pkg/runtime/processor/subscriber",
		check: func(s *sidecar, report reporter) {
			for _, sub := range s.subscriptions {
				if c := s.component(sub.pubsub); c == nil || !c.isPubsub() {
					report(sub.at("pubsubname"), "pubsubname: "+strings.Join(s.pubsubs(), " | "),
						fmt.Sprintf("The sidecar of %s has no pub/sub component %q, by name or by scope; it logs that and never subscribes.", s.app, sub.pubsub))
				}
			}
		},
	},
	{
		ID: "subscription-forbidden", Severity: Stalls, On: "Subscription",
		What:   "the component's `allowedTopics`, `protectedTopics` or `subscriptionScopes` refuse the topic to the app",
		Source: "dapr pkg/runtime/pubsub/adapter.go IsOperationAllowed",
		check: eachSubscription(func(s *sidecar, sub *subscription, c *component, report reporter) {
			if !c.maySubscribe(s.app, sub.topic) {
				report(c.place("subscriptionScopes"), line("subscriptionScopes", s.app+"="+sub.topic),
					fmt.Sprintf("%s may not read %s through this component: the sidecar leaves the subscription out, and the events wait for nobody.", s.app, sub.topic))
			}
		}),
	},
	{
		ID: "subscription-repeated", Severity: Risk, On: "Subscription",
		What:   "two subscriptions of one app to the same topic of the same component",
		Source: "dapr pkg/runtime/compstore/subscriptions.go",
		check: func(s *sidecar, report reporter) {
			for i, sub := range s.subscriptions {
				for _, earlier := range s.subscriptions[:i] {
					if sub.pubsub == earlier.pubsub && sub.topic == earlier.topic {
						report(sub.at("topic"), "# one Subscription, with rules under routes",
							"The sidecar keeps the first of them, "+earlier.name+", and ignores the routes of this one.")
					}
				}
			}
		},
	},
	{
		ID: "route-default-missing", Severity: Loses, On: "Subscription",
		What:   "`routes` with rules and no `default`",
		Source: "dapr pkg/runtime/subscription/subscription.go",
		check: eachSubscription(func(_ *sidecar, sub *subscription, _ *component, report reporter) {
			if sub.rules > 0 && sub.fallback == "" && !sub.bulk {
				report(sub.at("routes"), "routes:\n  default: /events/"+sub.topic,
					"An event that no rule matches, a new type for one, is acknowledged unseen, or goes to the dead letters if there is a deadLetterTopic.")
			}
		}),
	},
	{
		ID: "bulk-route-default-missing", Severity: Loses, On: "Subscription",
		What:   "`bulkSubscribe` without a default route",
		Source: "dapr pkg/runtime/subscription/bulksubscription.go",
		check: eachSubscription(func(_ *sidecar, sub *subscription, _ *component, report reporter) {
			if sub.bulk && sub.fallback == "" {
				report(sub.at("routes"), "routes:\n  default: /events/"+sub.topic,
					"What no rule matches in a batch is given up and posted to an empty path besides.")
			}
		}),
	},
	{
		ID: "bulk-dead-letter-routes", Severity: Risk, On: "Subscription",
		What:   "`bulkSubscribe` with a `deadLetterTopic` and several routes",
		Source: "dapr pkg/runtime/subscription/bulksubscription.go",
		check: eachSubscription(func(_ *sidecar, sub *subscription, _ *component, report reporter) {
			if sub.bulk && sub.deadLetters != "" && sub.rules > 0 {
				report(sub.at("bulkSubscribe"), "bulkSubscribe:\n  enabled: false",
					"An app that answers DROP to one entry of a batch that was split over routes has another one dead-lettered, or the sidecar panics: it counts the entries of the whole batch in the part of one route.")
			}
		}),
	},
	{
		ID: "dead-letter-unread", Severity: Loses, On: "Subscription",
		What:   "a `deadLetterTopic` that no app of the set subscribes to, through a component of the same type",
		Source: "dapr pkg/runtime/subscription/subscription.go; components-contrib pubsub/rabbitmq/rabbitmq.go",
		check: eachSubscription(func(s *sidecar, sub *subscription, c *component, report reporter) {
			if sub.deadLetters == "" {
				return
			}
			if _, reader := s.set.reader(c.kind, sub.deadLetters); reader == nil {
				why := "Nobody subscribes to " + sub.deadLetters + ": what is put there is acknowledged and never seen again."
				if c.kind == rabbit {
					why = "Nobody subscribes to " + sub.deadLetters + ", so it has no queue, and RabbitMQ drops what is published there without a word."
				}
				report(sub.at("deadLetterTopic"), fmt.Sprintf("apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata:\n  name: %[1]s\nspec:\n  pubsubname: %[2]s\n  topic: %[1]s\n  routes:\n    default: /%[1]s\n  metadata:\n    rawPayload: \"true\"", sub.deadLetters, sub.pubsub), why)
			}
		}),
	},
	{
		ID: "dead-letter-forbidden", Severity: Loses, On: "Subscription",
		What:   "a `deadLetterTopic` that the subscriber may not publish to",
		Source: "dapr pkg/runtime/pubsub/publisher/publisher.go",
		check: eachSubscription(func(s *sidecar, sub *subscription, c *component, report reporter) {
			if sub.deadLetters != "" && !c.mayPublish(s.app, sub.deadLetters) {
				report(c.place("publishingScopes"), line("publishingScopes", s.app+"="+sub.deadLetters)+"\n# and "+sub.deadLetters+" in allowedTopics, if there is such a list",
					fmt.Sprintf("The sidecar of %s publishes its dead letters in the app's name and is refused: on Redis the event is lost, elsewhere it is delivered for ever.", s.app))
			}
		}),
	},
	{
		ID: "dead-letter-is-topic", Severity: Stalls, On: "Subscription",
		What:   "a `deadLetterTopic` that is the topic itself",
		Source: "dapr pkg/runtime/subscription/subscription.go",
		check: eachSubscription(func(_ *sidecar, sub *subscription, _ *component, report reporter) {
			if sub.deadLetters != "" && sub.deadLetters == sub.topic {
				report(sub.at("deadLetterTopic"), "deadLetterTopic: dead-letters", "What the app gives up comes back to it, for ever.")
			}
		}),
	},
	{
		ID: "consumer-shared", Severity: Loses, On: "pub/sub Component",
		What:   "two apps read a topic under one consumer name (`consumerID`, `consumerGroup`, `durableName`)",
		Source: "components-contrib pubsub/*: consumerID; dapr pkg/runtime/meta/meta.go for {appID}",
		check: eachSubscription(func(s *sidecar, sub *subscription, c *component, report reporter) {
			name, fixed := c.consumer()
			if !fixed || sub.topic == "" {
				return
			}
			for _, other := range s.set.sidecars {
				if other.app == s.app {
					continue
				}
				for _, theirs := range other.subscriptions {
					d := other.component(theirs.pubsub)
					if theirs.topic != sub.topic || d == nil || d.kind != c.kind {
						continue
					}
					if consumer, _ := d.consumer(); consumer.value == name.value {
						report(c.place(name.name), line(name.name, "{appID}-"+sub.topic),
							"For the broker apps with one consumer name are replicas of each other: each event reaches one app only.")
						return
					}
				}
			}
		}),
	},
	{
		ID: "bulk-concurrency", Severity: Stalls, On: "Subscription",
		What:   "`bulkSubscribe` with `maxMessagesCount` above what the component delivers at once",
		Source: "dapr pkg/runtime/pubsub/default_bulksub.go",
		check: eachSubscription(func(_ *sidecar, sub *subscription, c *component, report reporter) {
			if !sub.bulk {
				return
			}
			setting, most := c.atOnce()
			if most == 0 || most >= sub.batch {
				return
			}
			why := fmt.Sprintf("A batch holds up to %d events and the component delivers %d at a time: no batch gets full, and each waits the whole maxAwaitDurationMs.", sub.batch, most)
			switch {
			case setting == "concurrencyMode":
				report(c.place(setting), line(setting, "parallel"), why)
			case c.kind == rabbit && sub.batch > maxPrefetch:
				report(sub.at("bulkSubscribe", "maxMessagesCount"), fmt.Sprintf("bulkSubscribe:\n  maxMessagesCount: %d\n# and in the component %s:\n%s", maxPrefetch, c.name, line(setting, fmt.Sprint(maxPrefetch))), why)
			default:
				report(c.place(setting), line(setting, fmt.Sprint(sub.batch)), why)
			}
		}),
	},
}

func (s *sidecar) pubsubs() []string {
	var names []string
	for _, c := range s.components {
		if c.isPubsub() {
			names = append(names, c.name)
		}
	}
	return names
}

// consumer is the setting that names the component's consumer to the broker, and
// whether it is the same for every app.
func (c *component) consumer() (name setting, fixed bool) {
	names := []string{"consumerID"}
	switch c.kind {
	case kafka:
		names = []string{"consumerGroup", "consumerID"}
	case jetstream:
		names = []string{"durableName"}
	}
	for _, n := range names {
		if s, ok := c.get(n); ok && !s.secret() {
			for _, own := range []string{"{appID}", "{uuid}", "{podName}"} {
				if strings.Contains(s.value, own) {
					return s, false
				}
			}
			return s, true
		}
	}
	return setting{}, false
}

// atOnce is how many deliveries a component makes at the same time, by which
// setting; 0 is any number, or one that is not known.
func (c *component) atOnce() (setting string, most int) {
	switch c.kind {
	case redis:
		setting = "concurrency"
		most, _ = c.number(setting, 10)
	case rabbit, snssqs:
		if !c.concurrent() {
			return "concurrencyMode", 1
		}
		setting = map[string]string{rabbit: "prefetchCount", snssqs: "concurrencyLimit"}[c.kind]
		most, _ = c.number(setting, 0)
	}
	return setting, max(most, 0)
}
