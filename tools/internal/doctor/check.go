package doctor

// eachComponent makes a check of something that is looked for in every component
// of a kind.
func eachComponent(kind string, look func(s *sidecar, c *component, report reporter)) func(*sidecar, reporter) {
	return func(s *sidecar, report reporter) {
		for _, c := range s.components {
			if c.kind == kind {
				look(s, c, report)
			}
		}
	}
}

// eachSubscription makes a check of every subscription to a pub/sub component
// that the sidecar has.
func eachSubscription(look func(s *sidecar, sub *subscription, c *component, report reporter)) func(*sidecar, reporter) {
	return func(s *sidecar, report reporter) {
		for _, sub := range s.subscriptions {
			if c := s.component(sub.pubsub); c != nil && c.isPubsub() {
				look(s, sub, c, report)
			}
		}
	}
}

// eachReader is eachSubscription, and also takes a component that no YAML of the set
// subscribes to for one that its apps subscribe to in code, unless they may not.
func eachReader(look func(s *sidecar, sub *subscription, c *component, report reporter)) func(*sidecar, reporter) {
	return func(s *sidecar, report reporter) {
		eachSubscription(look)(s, report)
		for _, c := range s.components {
			may, limited := appTopics(c.value("subscriptionScopes", ""))[s.app]
			if c.isPubsub() && !s.set.reads(c.name) && (len(may) > 0 || !limited) {
				look(s, &subscription{resource: c.resource, pubsub: c.name}, c, report)
			}
		}
	}
}

// on keeps a check of subscriptions to one kind of component.
func on(kind string, look func(s *sidecar, sub *subscription, c *component, report reporter)) func(*sidecar, reporter) {
	return eachSubscription(func(s *sidecar, sub *subscription, c *component, report reporter) {
		if c.kind == kind {
			look(s, sub, c, report)
		}
	})
}

// must makes a check of a setting that has to be true (or not), whatever else the
// component takes when it is left out.
func must(kind, name string, want, otherwise bool, why string) func(*sidecar, reporter) {
	word := map[bool]string{true: "true", false: "false"}
	return eachComponent(kind, func(_ *sidecar, c *component, report reporter) {
		if truthy(c.value(name, word[otherwise])) != want {
			report(c.place(name), line(name, word[want]), why)
		}
	})
}

// avoid makes a check of a setting with values that do harm.
func avoid(kind, name string, bad func(value string) bool, write, why string) func(*sidecar, reporter) {
	return eachComponent(kind, func(_ *sidecar, c *component, report reporter) {
		if value, ok := c.get(name); ok && bad(value.value) {
			report(c.place(name), write, why)
		}
	})
}

// needs makes a check of a setting that has to be there.
func needs(kind, name, example, why string) func(*sidecar, reporter) {
	return eachComponent(kind, func(_ *sidecar, c *component, report reporter) {
		if _, ok := c.get(name); !ok {
			report(c.place(name), line(name, example), why)
		}
	})
}
