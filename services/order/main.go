// Order takes orders and leads each to its end: completed once inventory holds
// its stock, or cancelled.
package main

import (
	"context"
	"time"

	"github.com/google/uuid"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
	"orderflow/services/order/internal/order"
)

// source is this service's name in the events that it publishes.
const source = "order"

const stateStore = "statestore" // the state component's name

// config is what this service needs beyond the common settings.
type config struct {
	patience   order.Patience
	sweepEvery time.Duration
}

func readConfig(env *process.Env) config {
	return config{
		patience: order.Patience{
			Answer: env.Duration("ORDER_TIMEOUT", 15*time.Minute, "how long an order may go without an answer before it is cancelled"),
			Effect: env.Duration("SWEEP_AFTER", 8*time.Second, "how long an event may go without effect before it is published again; longer than the broker's window for duplicates"),
		},
		sweepEvery: env.Duration("SWEEP_INTERVAL", 2*time.Second, "pause between two looks at the open orders"),
	}
}

func main() {
	process.Main(source, "takes orders and leads each to its end", readConfig, setup)
}

func setup(p *process.Process, c config) error {
	store := aggregate.NewStore(p.Dapr, stateStore)
	committer := aggregate.NewCommitter(store)
	publisher := pubsub.NewPublisher(p.Dapr, events.TopicOrders)
	s := &server{
		orders:   &orders{store: store, committer: committer, now: time.Now},
		outbox:   newOutbox(publisher, p.Log),
		others:   others{client: p.Dapr},
		log:      p.Log,
		draining: p.Draining,
	}
	s.routes(p)
	sweeper := &sweeper{
		orders:   s.orders,
		outbox:   s.outbox,
		effects:  s.others.effects,
		owner:    uuid.NewString(),
		every:    c.sweepEvery,
		patience: c.patience,
		maxOpen:  maxOpen,
		log:      p.Log,
	}
	p.OnShutdown("publisher", func(context.Context) error { publisher.Close(); return nil })
	p.OnShutdown("committer", func(context.Context) error { committer.Close(); return nil })
	p.OnShutdown("outbox", s.outbox.wait)
	p.OnShutdown("sweeper", sweeper.start())
	return nil
}
