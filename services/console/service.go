// Package console is the console service: it keeps, for operators, the dead
// letters of all services and the timeline of every order, and sends what was
// mended on its way again. It only watches: no other service needs it.
package console

import (
	"context"
	"log/slog"
	"time"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
)

const stateStore = "statestore" // the state component's name

// Config is what this service needs beyond the common settings.
type Config struct{ Now func() time.Time }

// ReadConfig reads the configuration from the environment.
func ReadConfig(*process.Env) Config { return Config{Now: time.Now} }

// Setup builds the service on p.
func Setup(p *process.Process, c Config) error {
	store := aggregate.NewStore(p.Dapr, stateStore)
	committer := aggregate.NewCommitter(store)
	publisher := pubsub.NewPublisher(p.Dapr, events.TopicOrders, events.TopicInventory)
	tally := newTally(store, committer, p.Log)
	s := &server{
		letters:   &letters{store: store, committer: committer},
		timelines: &timelines{store: store, committer: committer, tally: tally},
		tally:     tally,
		publisher: publisher,
		log:       p.Log,
		now:       func() time.Time { return c.Now().UTC() },
	}
	s.routes(p)
	p.OnShutdown("publisher", func(context.Context) error { publisher.Close(); return nil })
	p.OnShutdown("committer", func(context.Context) error { committer.Close(); return nil })
	p.OnShutdown("counts", tally.Close)
	return nil
}

type server struct {
	lull      lull
	letters   *letters
	timelines *timelines
	tally     *tally
	publisher *pubsub.Publisher
	log       *slog.Logger
	now       func() time.Time
}
