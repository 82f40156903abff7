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
			if s.maySubscribeInCode(c) {
				look(s, &subscription{resource: c.resource, pubsub: c.name}, c, report)
			}
		}
	}
}

// maySubscribeInCode says whether the component is one that nobody subscribes to in
// YAML, and that the app may read.
func (s *sidecar) maySubscribeInCode(c *component) bool {
	may, limited := appTopics(c.value("subscriptionScopes", ""))[s.app]
	return c.isPubsub() && !s.set.reads(c.name) && (len(may) > 0 || !limited)
}

// readers keeps a check of components to those that the app reads, as eachReader
// takes it: what only a consumer uses does no harm to an app that publishes.
func readers(check func(*sidecar, reporter)) func(*sidecar, reporter) {
	return func(s *sidecar, report reporter) {
		check(s.with(func(c *component) bool { return s.subscribes(c) || s.maySubscribeInCode(c) }), report)
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
		if !c.hides(name) && truthy(c.value(name, word[otherwise])) != want {
			report(c.place(name), line(name, word[want]), why)
		}
	})
}

// avoid makes a check of a setting with values that do harm.
func avoid(kind, name string, bad func(value string) bool, write, why string) func(*sidecar, reporter) {
	return eachComponent(kind, func(_ *sidecar, c *component, report reporter) {
		if value, ok := c.get(name); ok && !value.secret() && bad(value.value) {
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
