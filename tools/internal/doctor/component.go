package doctor

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// component is a Component with its settings, whose names are compared as the
// components do: without regard to case.
type component struct {
	*resource
	kind     string // spec.type: pubsub.redis
	settings map[string]setting
	store    string // the secret store that its references are looked up in
}

// setting is one entry of spec.metadata. The value of a secret is not known here.
type setting struct {
	name, value       string
	line              int
	secretName        string // of a secretKeyRef
	secretKey, envRef string
}

func (s setting) secret() bool { return s.secretKey != "" || s.envRef != "" }

func newComponent(r *resource) *component {
	c := &component{
		resource: r,
		kind:     text(r.root, "spec", "type"),
		settings: map[string]setting{},
		store:    text(r.root, "auth", "secretStore"),
	}
	list := find(r.root, "spec", "metadata")
	if list == nil || list.Kind != yaml.SequenceNode {
		return c
	}
	for _, item := range list.Content {
		s := setting{
			name:       text(item, "name"),
			value:      text(item, "value"),
			line:       resolved(item).Line,
			secretName: text(item, "secretKeyRef", "name"),
			envRef:     text(item, "envRef"),
		}
		if s.secretName != "" {
			s.secretKey = cmp.Or(text(item, "secretKeyRef", "key"), s.secretName)
		}
		c.settings[strings.ToLower(s.name)] = s
	}
	return c
}

func (c *component) isPubsub() bool { return strings.HasPrefix(c.kind, "pubsub.") }
func (c *component) isState() bool  { return strings.HasPrefix(c.kind, "state.") }

// get returns the setting of the name, and whether it is there and says anything.
func (c *component) get(name string) (setting, bool) {
	s, ok := c.settings[strings.ToLower(name)]
	return s, ok && (s.value != "" || s.secret())
}

// value is what the setting says, or what the component takes if it says nothing.
func (c *component) value(name, otherwise string) string {
	if s, ok := c.get(name); ok {
		return s.value
	}
	return otherwise
}

// hides says whether the setting is a secret, so that a rule can't know its value.
func (c *component) hides(name string) bool {
	s, _ := c.get(name)
	return s.secret()
}

// place is where a setting is, or belongs.
func (c *component) place(name string) place {
	if s, ok := c.settings[strings.ToLower(name)]; ok {
		return place{c.resource, s.line}
	}
	return place{c.resource, c.lineOf("spec", "metadata")}
}

// number is a setting that is one, or what it is otherwise; -1 if it is none. Of a
// secret it is not known.
func (c *component) number(name string, otherwise int) (n int, known bool) {
	s, ok := c.get(name)
	if !ok {
		return otherwise, true
	}
	if s.secret() {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(s.value))
	if err != nil {
		return -1, true
	}
	return n, true
}

// duration reads a setting as the Redis component does, a bare number as
// milliseconds.
func (c *component) duration(name string, otherwise time.Duration) time.Duration {
	value := c.value(name, "")
	if ms, err := strconv.Atoi(value); err == nil {
		return time.Duration(ms) * time.Millisecond
	}
	if d, err := time.ParseDuration(value); err == nil {
		return d
	}
	return otherwise
}

// truthy is what components take for true.
func truthy(value string) bool {
	return slices.Contains([]string{"y", "yes", "true", "t", "on", "1"}, strings.ToLower(strings.TrimSpace(value)))
}

// concurrent says whether deliveries overlap, by the setting that most components
// read it from.
func (c *component) concurrent() bool { return c.value("concurrencyMode", "parallel") != "single" }

// mayPublish and maySubscribe follow allowedTopics, protectedTopics and the scopes
// of topics, as the sidecar does.
func (c *component) mayPublish(app, topic string) bool {
	return c.allows("publishingScopes", app, topic)
}

func (c *component) maySubscribe(app, topic string) bool {
	return c.allows("subscriptionScopes", app, topic)
}

func (c *component) allows(scope, app, topic string) bool {
	if allowed := topics(c.value("allowedTopics", "")); len(allowed) > 0 && !slices.Contains(allowed, topic) {
		return false
	}
	scoped, limited := appTopics(c.value(scope, ""))[app]
	if !limited && !slices.Contains(topics(c.value("protectedTopics", "")), topic) {
		return true
	}
	return slices.Contains(scoped, topic)
}

// topics splits a list of them: a,b.
func topics(list string) []string {
	list = strings.ReplaceAll(list, " ", "")
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// appTopics splits the scopes of topics: app1=a,b;app2=.
func appTopics(scopes string) map[string][]string {
	all := map[string][]string{}
	for part := range strings.SplitSeq(strings.ReplaceAll(scopes, " ", ""), ";") {
		if app, list, ok := strings.Cut(part, "="); ok {
			all[app] = append(all[app], topics(list)...)
		}
	}
	return all
}

// subscription is a Subscription of either version.
type subscription struct {
	*resource
	pubsub, topic string
	deadLetters   string
	rules         int
	fallback      string // the route for what no rule matches
	bulk          bool
	batch         int // of bulk delivery
}

func newSubscription(r *resource) *subscription {
	s := &subscription{
		resource:    r,
		pubsub:      text(r.root, "spec", "pubsubname"),
		topic:       text(r.root, "spec", "topic"),
		deadLetters: text(r.root, "spec", "deadLetterTopic"),
		fallback:    text(r.root, "spec", "routes", "default"),
		bulk:        text(r.root, "spec", "bulkSubscribe", "enabled") == "true",
		batch:       defaultBatch,
	}
	if strings.HasSuffix(r.version, "v1alpha1") && !strings.HasSuffix(r.version, "v2alpha1") {
		s.fallback = text(r.root, "spec", "route")
	}
	if list := find(r.root, "spec", "routes", "rules"); list != nil {
		s.rules = len(list.Content)
	}
	if n, err := strconv.Atoi(text(r.root, "spec", "bulkSubscribe", "maxMessagesCount")); err == nil && n > 0 {
		s.batch = n
	}
	return s
}

// defaultBatch is what the runtime takes for maxMessagesCount.
const defaultBatch = 100

func (s *subscription) at(path ...string) place {
	return place{s.resource, s.lineOf(append([]string{"spec"}, path...)...)}
}
