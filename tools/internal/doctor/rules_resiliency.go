package doctor

import "fmt"

var resiliencyRules = []Rule{
	{
		ID: "resiliency-not-alone", Severity: Loses, On: "Resiliency",
		What:   "a Resiliency that is not the first document of its file",
		Source: "dapr pkg/resiliency/resiliency.go loadLocalResiliencyPath",
		check: func(s *sidecar, report reporter) {
			for _, r := range s.ignored {
				report(place{r, r.line}, "# in a file of its own, in the same folder",
					"A sidecar takes a file for a Resiliency by its first document; this one is ignored without a word, and with it every retry and timeout.")
			}
		},
	},
	{
		ID: "resiliency-not-loaded", Severity: Loses, On: "Resiliency",
		What:   "a Resiliency that no sidecar loads, in a folder below the loaded ones, or beside them in `components` or where several are loaded",
		Source: "dapr pkg/resiliency/resiliency.go: a path's own files, no folders below it",
		check: func(s *sidecar, report reporter) {
			for _, r := range s.set.others {
				report(place{r, r.line}, "# move it into a folder of resourcesPaths, or add its folder there",
					"No sidecar is given this folder, so none of its retries and timeouts exists.")
			}
		},
	},
	{
		ID: "resiliency-target-unknown", Severity: Risk, On: "Resiliency",
		What:   "a target that is no component of any app",
		Source: "dapr pkg/resiliency/resiliency.go",
		check: func(s *sidecar, report reporter) {
			for name, target := range s.policies.targets {
				if !s.set.has(name) {
					report(target.place, "# the name of a component in place of "+name,
						fmt.Sprintf("No app has a component %q: nothing is governed by this.", name))
				}
			}
		},
	},
	{
		ID: "inbound-retry-missing", Severity: Loses, On: "Resiliency",
		What:   "no inbound retry for a subscription on Redis or MQTT, or with a `deadLetterTopic`",
		Source: "components-contrib pubsub/redis/redis.go processMessage; dapr pkg/runtime/subscription/subscription.go",
		check: eachReader(func(s *sidecar, sub *subscription, c *component, report reporter) {
			p := s.policies.of(c, "inbound")
			if end := givenUp(sub, c); end != "" && p.retry == nil {
				report(p.at.or(sub.at("pubsubname")), inboundTarget(c), "An event is tried once, so a restart of the app is enough: "+end+".")
			}
		}),
	},
	{
		ID: "inbound-retry-ends", Severity: Loses, On: "Resiliency",
		What:   "an inbound retry with `maxRetries`, for the same subscriptions",
		Source: "dapr/kit retry/retry.go",
		check: eachReader(func(s *sidecar, sub *subscription, c *component, report reporter) {
			r := s.policies.of(c, "inbound").retry
			if end := givenUp(sub, c); end != "" && r != nil && !r.exponential && r.max >= 0 {
				report(r.lineOf("maxRetries"), "maxRetries: -1", "An outage that outlasts the retries empties the topic: "+end+". Have the app answer DROP to what is bad in itself.")
			}
		}),
	},
	{
		ID: "inbound-retry-exponential", Severity: Loses, On: "Resiliency",
		What:   "an inbound retry with `policy: exponential`, for the same subscriptions",
		Source: "dapr/kit retry/retry.go: MaxElapsedTime, which a Resiliency can't set",
		check: eachReader(func(s *sidecar, sub *subscription, c *component, report reporter) {
			r := s.policies.of(c, "inbound").retry
			if end := givenUp(sub, c); end != "" && r != nil && r.exponential {
				report(r.lineOf("policy"), "policy: constant\nduration: 1s\nmaxRetries: -1", "Exponential retries end after 15 minutes, whatever maxRetries says: "+end+".")
			}
		}),
	},
	{
		ID: "inbound-retry-matching", Severity: Risk, On: "Resiliency",
		What:   "an inbound retry with `matching`, for the same subscriptions",
		Source: "dapr pkg/resiliency/policy.go",
		check: eachReader(func(s *sidecar, sub *subscription, c *component, report reporter) {
			r := s.policies.of(c, "inbound").retry
			if end := givenUp(sub, c); end != "" && r != nil && r.matching {
				report(r.lineOf("matching"), "# no matching; the app answers DROP to what is bad in itself",
					"It lists the codes that are retried. At one that was forgotten, a 401 while tokens change, a sound event is given up: "+end+".")
			}
		}),
	},
	{
		ID: "inbound-circuit-breaker", Severity: Loses, On: "Resiliency",
		What:   "a circuit breaker on inbound",
		Source: "dapr pkg/resiliency/policy.go, resiliency.go componentCBs",
		check: eachReader(func(s *sidecar, sub *subscription, c *component, report reporter) {
			p := s.policies.of(c, "inbound")
			if p.breaker == nil {
				return
			}
			end := givenUp(sub, c)
			if end == "" {
				end = "the broker delivers it again at once, in a hot loop"
			}
			report(p.at, "# no circuitBreaker under inbound", "While it is open each delivery counts as failed for good: "+end+". Both directions of a component share one, so publishing stops too.")
		}),
	},
	{
		ID: "inbound-timeout-missing", Severity: Risk, On: "Resiliency",
		What:   "a subscription whose component has no inbound timeout",
		Source: "dapr pkg/resiliency/policy.go",
		check: eachSubscription(func(s *sidecar, sub *subscription, c *component, report reporter) {
			p := s.policies.of(c, "inbound")
			if p.timeout == nil {
				report(p.at.or(sub.at("pubsubname")), inboundTarget(c), "An app that hangs holds its event for ever, and on JetStream and Kafka everything behind it.")
			}
		}),
	},
	{
		ID: "state-retry", Severity: Risk, On: "Resiliency",
		What:   "an outbound retry on a state store",
		Source: "dapr pkg/components/state/bulk.go; pkg/api/grpc/grpc.go ExecuteStateTransaction",
		check: func(s *sidecar, report reporter) {
			for _, c := range s.components {
				if p := s.policies.of(c, "outbound"); c.isState() && p.retry != nil {
					report(p.at, "# no retry for "+c.name+"; the app reads again and decides again",
						"A transaction that timed out may have been done; the same again, with the ETag of before, is refused as if somebody else had been faster.")
				}
			}
		},
	},
}

func (s *Set) has(component string) bool {
	for _, sc := range s.sidecars {
		if sc.component(component) != nil {
			return true
		}
	}
	return false
}

// or is another place for something that has none.
func (p place) or(other place) place {
	if p.resource == nil {
		return other
	}
	return p
}

// givenUp says what becomes of an event when the sidecar gives up, or "" where the
// broker keeps it and delivers it again.
func givenUp(sub *subscription, c *component) string {
	switch {
	case sub.deadLetters != "":
		return "it goes to the dead letters"
	case c.kind == redis:
		return "the Redis component acknowledges an event that failed, and it is lost"
	case c.kind == mqtt:
		return "the MQTT component neither acknowledges nor refuses it, and it comes again only after a new connection"
	}
	return ""
}

func inboundTarget(c *component) string {
	return fmt.Sprintf(`spec:
  policies:
    timeouts:
      handler: 15s
    retries:
      deliver: {policy: constant, duration: 1s, maxRetries: -1}
  targets:
    components:
      %s:
        inbound: {timeout: handler, retry: deliver}`, c.name)
}
