package order

import (
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
)

// routes are all the ways into this service.
func (s *Service) routes(p *process.Process) {
	handle := statuses.Handle
	p.Public.POST("/orders", handle(s.log, s.placeOrder))
	p.Public.GET("/orders", handle(s.log, s.listOrders))
	p.Public.GET("/orders/:id", handle(s.log, s.showOrder))
	p.Public.GET("/orders/:id/events", handle(s.log, s.showEvents))
	p.Public.POST("/orders/:id/cancel", handle(s.log, s.cancelOrder))

	p.Admin.POST("/admin/replay", handle(s.log, s.replayOrders)) // → all events of the orders, once more
	p.Admin.POST("/admin/archive", handle(s.log, s.archiveOrders))

	pubsub.Subscribe(p.Events, s.log, s.dead,
		pubsub.On(s.onInventoryReserved), // → ORDER_COMPLETED
		pubsub.On(s.onInventoryRejected), // → ORDER_CANCELLED
		pubsub.On(s.onPriceUpdated),      // asks inventory for the price
	)
}
