// Order takes orders and leads each to its end: completed once inventory holds
// its stock, or cancelled.
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
const source = "order"

const stateStore = "statestore" // the state component's name

func main() {
	process.Main(source, "takes orders and leads each to its end", func(*process.Env) struct{} { return struct{}{} }, setup)
}

func setup(p *process.Process, _ struct{}) error {
	store := aggregate.NewStore(p.Dapr, stateStore)
	committer := aggregate.NewCommitter(store)
	publisher := pubsub.NewPublisher(p.Dapr, events.TopicOrders)
	s := &server{
		orders:    &orders{store: store, committer: committer, now: time.Now},
		outbox:    newOutbox(publisher, p.Log),
		inventory: inventory{client: p.Dapr},
		log:       p.Log,
		draining:  p.Draining,
	}
	s.routes(p)
	p.OnShutdown("publisher", func(context.Context) error { publisher.Close(); return nil })
	p.OnShutdown("committer", func(context.Context) error { committer.Close(); return nil })
	p.OnShutdown("outbox", s.outbox.wait)
	return nil
}
