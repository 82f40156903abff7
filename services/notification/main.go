// Notification writes e-mails: to the customer, how an order ended, and to the
// shop, which product runs low. It keeps one record of each.
package main

import (
	"context"
	"time"

	"orderflow/internal/aggregate"
	"orderflow/internal/process"
)

const stateStore = "statestore" // the state component's name

func main() {
	process.Main("notification", "writes e-mails about orders and low stock", readConfig, setup)
}

func setup(p *process.Process, c config) error {
	store := aggregate.NewStore(p.Dapr, stateStore)
	committer := aggregate.NewCommitter(store)
	mailer := newMailer(c.smtp)
	s := &server{
		notifications: &notifications{store: store, committer: committer, now: time.Now},
		inventory:     inventory{client: p.Dapr},
		mailer:        mailer,
		from:          c.from,
		stockAlerts:   c.stockAlerts,
		log:           p.Log,
	}
	s.routes(p)
	p.OnShutdown("connections to the mail server", func(context.Context) error { mailer.close(); return nil })
	p.OnShutdown("committer", func(context.Context) error { committer.Close(); return nil })
	return nil
}
