// Package order is the order service: it takes orders and leads each to its end,
// completed once inventory holds its stock, or cancelled.
package order

import (
	"context"
	"log/slog"
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

// Config is what this service needs beyond the common settings.
type Config struct {
	Timeout    time.Duration // from placing to cancelling an order that nobody answers
	SweepAfter time.Duration // from an event without effect to publishing it again
	SweepEvery time.Duration
	ArchiveDir string // where archived orders go; empty: nothing is archived
	Now        func() time.Time
}

// ReadConfig reads the configuration from the environment.
func ReadConfig(env *process.Env) Config {
	return Config{
		Timeout:    env.Duration("ORDER_TIMEOUT", 15*time.Minute, "how long an order may go without an answer before it is cancelled"),
		SweepAfter: env.Duration("SWEEP_AFTER", 8*time.Second, "how long an event may go without effect before it is published again; longer than the broker's window for duplicates"),
		SweepEvery: env.Duration("SWEEP_INTERVAL", 2*time.Second, "pause between two looks at the open orders"),
		ArchiveDir: env.String("ARCHIVE_DIR", "", "directory that all replicas share, for orders that POST /admin/archive puts away; without it none are"),
		Now:        time.Now,
	}
}

// Setup builds the service on p and has it sweep.
func Setup(p *process.Process, c Config) error {
	s := New(p, c)
	p.OnShutdown("sweeper", s.sweeper.start(c.SweepEvery))
	p.OnShutdown("dead letters", s.dead.Start())
	return nil
}

// Service is the order service.
type Service struct {
	orders   *orders
	outbox   *outbox
	dead     *pubsub.DeadLetters
	others   others
	sweeper  *sweeper
	pace     *pace // of replays
	log      *slog.Logger
	draining <-chan struct{}
}

// New builds the service on p; it does nothing but answer.
func New(p *process.Process, c Config) *Service {
	store := aggregate.NewStore(p.Dapr, stateStore)
	committer := aggregate.NewCommitter(store)
	publisher := pubsub.NewPublisher(p.Dapr, events.TopicOrders, events.TopicDeadLetters, events.TopicReplay)
	s := &Service{
		orders:   &orders{store: store, committer: committer, now: c.Now, archive: archive{dir: c.ArchiveDir}},
		outbox:   newOutbox(publisher, p.Log),
		dead:     pubsub.NewDeadLetters(source, publisher, p.Dapr, store, p.Log),
		others:   others{client: p.Dapr},
		pace:     &pace{perSecond: replayRate},
		log:      p.Log,
		draining: p.Draining,
	}
	s.sweeper = &sweeper{
		orders:   s.orders,
		outbox:   s.outbox,
		effects:  s.others.effects,
		owner:    uuid.NewString(),
		patience: order.Patience{Answer: c.Timeout, Effect: c.SweepAfter},
		maxOpen:  maxOpen,
		log:      p.Log,
	}
	s.routes(p)
	p.OnShutdown("publisher", func(context.Context) error { publisher.Close(); return nil })
	p.OnShutdown("committer", func(context.Context) error { committer.Close(); s.dead.Close(); return nil })
	p.OnShutdown("outbox", s.outbox.wait)
	return s
}

// Sweep looks once at the open orders and takes the next step about each:
// publishes its last event again, or cancels it. Another process may be the one
// that sweeps; then there is nothing to do here.
func (s *Service) Sweep(ctx context.Context) error { return s.sweeper.sweep(ctx) }
