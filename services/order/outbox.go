package order

import (
	"context"
	"log/slog"
	"sync"

	"orderflow/events"
	"orderflow/internal/pubsub"
)

// maxUnpublished bounds the events that wait for the broker in this process.
const maxUnpublished = 4096

// outbox publishes events that are committed. They are safe in their order's
// document; what is not published from here is published from there later.
type outbox struct {
	publisher *pubsub.Publisher
	log       *slog.Logger
	places    chan struct{}
	running   sync.WaitGroup
}

func newOutbox(p *pubsub.Publisher, log *slog.Logger) *outbox {
	return &outbox{publisher: p, log: log, places: make(chan struct{}, maxUnpublished)}
}

// publish waits for the broker's word: for those who can try again.
func (o *outbox) publish(ctx context.Context, evs ...events.Event) error {
	return o.publisher.Publish(ctx, evs...)
}

// publishSoon does not: the client's request is done once it is committed.
func (o *outbox) publishSoon(ctx context.Context, e events.Event) {
	select {
	case o.places <- struct{}{}:
	default:
		o.log.WarnContext(ctx, "event left to be published later", "event_id", e.ID, "error", "too many wait for the broker")
		return
	}
	ctx = context.WithoutCancel(ctx)
	o.running.Go(func() {
		defer func() { <-o.places }()
		if err := o.publisher.Publish(ctx, e); err != nil {
			o.log.WarnContext(ctx, "event left to be published later", "event_id", e.ID, "error", err)
		}
	})
}

// wait returns when nothing is being published any more, or ctx ends.
func (o *outbox) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		o.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
