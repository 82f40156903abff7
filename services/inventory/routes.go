package inventory

import (
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
)

// routes are all the ways into this service.
func (s *server) routes(p *process.Process) {
	handle := statuses.Handle
	p.Public.PUT("/products/:id", handle(s.log, s.describeProduct)) // → PRICE_UPDATED
	p.Public.POST("/products/:id/receipts", handle(s.log, s.receiveProduct))
	p.Public.GET("/products", handle(s.log, s.listProducts))
	p.Public.GET("/products/:id", handle(s.log, s.showProduct))
	p.Public.GET("/products/:id/ledger", handle(s.log, s.showLedger))
	p.Public.GET("/reservations", handle(s.log, s.listReservations))

	p.Admin.GET("/admin/audit", handle(s.log, s.auditStock))
	p.Admin.POST("/admin/replay", handle(s.log, s.replayAnswers)) // → what was answered about the orders, once more

	pubsub.Subscribe(p.Events, s.log, s.dead,
		pubsub.On(s.onOrderCreated),   // → INVENTORY_RESERVED or INVENTORY_REJECTED, STOCK_LOW
		pubsub.On(s.onOrderCompleted), // ships
		pubsub.On(s.onOrderCancelled), // → INVENTORY_RELEASED
	)
}
