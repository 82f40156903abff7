// Inventory counts products, holds them for orders, ships them and takes them
// back.
package main

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

func main() {
	process.Main(source, "counts products, holds them for orders, ships them and takes them back",
		func(*process.Env) struct{} { return struct{}{} }, setup)
}

func setup(p *process.Process, _ struct{}) error {
	store := aggregate.NewStore(p.Dapr, stateStore)
	committer := aggregate.NewCommitter(store)
	publisher := pubsub.NewPublisher(p.Dapr, events.TopicInventory)
	s := &server{
		inventory: &inventory{store: store, committer: committer},
		publisher: publisher,
		log:       p.Log,
		now:       time.Now,
	}
	s.routes(p)
	p.OnShutdown("publisher", func(context.Context) error { publisher.Close(); return nil })
	p.OnShutdown("committer", func(context.Context) error { committer.Close(); return nil })
	return nil
}
