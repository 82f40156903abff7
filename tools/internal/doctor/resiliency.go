package doctor

import (
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// policies are the Resiliency resources of one sidecar, put together as it does:
// what is read later wins.
type policies struct {
	timeouts, retries, breakers map[string]definition
	targets                     map[string]definition // by component
	any                         *resource             // one of them, to write into; nil if there is none
}

// definition is a named part of a Resiliency, and where it stands.
type definition struct {
	place
	node *yaml.Node
}

func newPolicies(resources []*resource) *policies {
	p := &policies{map[string]definition{}, map[string]definition{}, map[string]definition{}, map[string]definition{}, nil}
	for _, r := range resources {
		p.any = r
		for into, path := range map[*map[string]definition][]string{
			&p.timeouts: {"spec", "policies", "timeouts"},
			&p.retries:  {"spec", "policies", "retries"},
			&p.breakers: {"spec", "policies", "circuitBreakers"},
			&p.targets:  {"spec", "targets", "components"},
		} {
			entries(r.root, path, func(key, value *yaml.Node) {
				(*into)[key.Value] = definition{place{r, key.Line}, value}
			})
		}
	}
	return p
}

// policy is what governs one direction of a component. Its parts are nil if there
// is none.
type policy struct {
	at      place // where it is, or belongs; of no resource if there is no Resiliency
	retry   *retry
	timeout *definition
	breaker *definition
}

type retry struct {
	definition
	exponential bool
	max         int // -1 has no end
	matching    bool
}

// of finds the policy of a component in a direction, "inbound" or "outbound". A
// component without a target of its own gets the defaults that go by their names;
// of one with a target, what the target leaves out stays out.
func (p *policies) of(c *component, direction string) policy {
	var found policy
	var retryName, timeoutName, breakerName string
	if target, ok := p.targets[c.name]; ok {
		found.at = target.place
		if key, value := entry(target.node, direction); key != nil {
			found.at.line = key.Line
			retryName, timeoutName, breakerName = text(value, "retry"), text(value, "timeout"), text(value, "circuitBreaker")
		}
	} else {
		if p.any != nil {
			found.at = place{p.any, p.any.lineOf("spec", "targets", "components")}
		}
		retryName = defaultName(p.retries, c, direction, "RetryPolicy")
		timeoutName = defaultName(p.timeouts, c, direction, "TimeoutPolicy")
		breakerName = defaultName(p.breakers, c, direction, "CircuitBreakerPolicy")
	}
	if d, ok := p.retries[retryName]; ok {
		found.retry = newRetry(d)
	}
	if d, ok := p.timeouts[timeoutName]; ok {
		found.timeout = &d
	}
	if d, ok := p.breakers[breakerName]; ok {
		found.breaker = &d
	}
	return found
}

func defaultName(defined map[string]definition, c *component, direction, suffix string) string {
	way := map[string]string{"inbound": "Inbound", "outbound": "Outbound"}[direction]
	kind := "Pubsub"
	if c.isState() {
		kind = "Statestore"
	}
	for _, level := range []string{kind + "Component" + way, "Component" + way, "Component", ""} {
		if name := "Default" + level + suffix; defined[name].node != nil {
			return name
		}
	}
	return ""
}

func newRetry(d definition) *retry {
	r := &retry{definition: d, max: -1}
	r.exponential = strings.EqualFold(text(d.node, "policy"), "exponential")
	if n, err := strconv.Atoi(text(d.node, "maxRetries")); err == nil {
		r.max = n
	}
	matching := find(d.node, "matching")
	r.matching = matching != nil && len(matching.Content) > 0
	return r
}

// lineOf is the line of a field of the definition.
func (d definition) lineOf(field string) place {
	if key, _ := entry(d.node, field); key != nil {
		return place{d.resource, key.Line}
	}
	return d.place
}

// duration is the timeout's, 0 if it is none.
func (d *definition) duration() time.Duration {
	if d == nil {
		return 0
	}
	length, err := time.ParseDuration(d.node.Value)
	if err != nil {
		return 0
	}
	return length
}
