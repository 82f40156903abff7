// Package notification is the notification service: it writes e-mails, to the
// customer, how an order ended, and to the shop, which product runs low. It keeps
// one record of each.
package notification

import (
	"context"
	"time"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
)

// source is this service's name in the events that it publishes.
const source = "notification"

const stateStore = "statestore" // the state component's name

// Setup builds the service on p.
func Setup(p *process.Process, c Config) error {
	store := aggregate.NewStore(p.Dapr, stateStore)
	committer := aggregate.NewCommitter(store)
	publisher := pubsub.NewPublisher(p.Dapr, events.TopicDeadLetters)
	mailer := newMailer(c.smtp)
	mailer.dial = c.Dial
	s := &server{
		notifications: &notifications{store: store, committer: committer, now: time.Now},
		inventory:     inventory{client: p.Dapr},
		mailer:        mailer,
		from:          c.from,
		stockAlerts:   c.stockAlerts,
		log:           p.Log,
	}
	dead := pubsub.NewDeadLetters(source, publisher, p.Dapr, store, p.Log)
	s.routes(p, dead)
	p.OnShutdown("publisher", func(context.Context) error { publisher.Close(); return nil })
	p.OnShutdown("connections to the mail server", func(context.Context) error { mailer.close(); return nil })
	p.OnShutdown("committer", func(context.Context) error { committer.Close(); dead.Close(); return nil })
	p.OnShutdown("dead letters", dead.Start())
	return nil
}
