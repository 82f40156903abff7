package console

import (
	"orderflow/events"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
)

// routes are all the ways into this service. What concerns dead letters wants the
// app token: they hold events as they came, customers' addresses included; and
// so does what is for operators alone.
func (s *server) routes(p *process.Process) {
	handle := statuses.Handle
	p.Admin.GET("/deadletters", handle(s.log, s.listLetters))
	p.Admin.GET("/deadletters/:id", handle(s.log, s.showLetter))
	p.Admin.POST("/deadletters/:id/redrive", handle(s.log, s.redriveLetter)) // → the event, once more
	p.Admin.POST("/deadletters/:id/discard", handle(s.log, s.discardLetter))
	p.Admin.POST("/deadletters/redrive", handle(s.log, s.redriveLetters)) // → the events, once more
	p.Admin.GET("/admin/projection", handle(s.log, s.showProjection))
	p.Admin.POST("/admin/projection/rebuild", handle(s.log, s.beginRebuild))
	p.Admin.POST("/admin/projection/show", handle(s.log, s.showRebuilt))
	p.Public.GET("/orders/:id/timeline", handle(s.log, s.showTimeline))
	p.Public.GET("/stats", handle(s.log, s.showStats))

	pubsub.ReceiveAll(p.Events, s.log, events.TopicDeadLetters, s.onDeadLetter)
	pubsub.ReceiveAll(p.Events, s.log, events.TopicOrders, s.onEvent(events.TopicOrders))
	pubsub.ReceiveAll(p.Events, s.log, events.TopicInventory, s.onEvent(events.TopicInventory))
	pubsub.ReceiveAll(p.Events, s.log, events.TopicReplay, s.onEvent(events.TopicReplay))
}
