// Package inventory is the inventory service: it counts products, holds them for
// orders, ships them and takes them back.
package inventory

import (
	"context"
	"time"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
)

// source is this service's name in the events that it publishes.
const source = "inventory"

const stateStore = "statestore" // the state component's name

// Config is what this service needs beyond the common settings.
type Config struct{ Now func() time.Time }

// ReadConfig reads the configuration from the environment.
func ReadConfig(*process.Env) Config { return Config{Now: time.Now} }

// Setup builds the service on p.
func Setup(p *process.Process, c Config) error {
	store := aggregate.NewStore(p.Dapr, stateStore)
	committer := aggregate.NewCommitter(store)
	publisher := pubsub.NewPublisher(p.Dapr, events.TopicInventory, events.TopicDeadLetters, events.TopicReplay)
	s := &server{
		inventory: &inventory{store: store, committer: committer},
		publisher: publisher,
		dead:      pubsub.NewDeadLetters(source, publisher, p.Dapr, store, p.Log),
		log:       p.Log,
		now:       c.Now,
	}
	s.routes(p)
	p.OnShutdown("publisher", func(context.Context) error { publisher.Close(); return nil })
	p.OnShutdown("committer", func(context.Context) error { committer.Close(); s.dead.Close(); return nil })
	p.OnShutdown("dead letters", s.dead.Start())
	return nil
}
