package notification

import (
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
)

// routes are all the ways into this service.
func (s *server) routes(p *process.Process, dead *pubsub.DeadLetters) {
	p.Public.GET("/notifications", statuses.Handle(s.log, s.listNotifications))

	pubsub.Subscribe(p.Events, s.log, dead,
		pubsub.On(s.onOrderCompleted), // → e-mail to the customer
		pubsub.On(s.onOrderCancelled), // → e-mail to the customer
		pubsub.On(s.onStockLow),       // asks inventory for the product → e-mail to the shop
	)
}
