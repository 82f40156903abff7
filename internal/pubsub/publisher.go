// Package pubsub carries events over Dapr pub/sub: it publishes them as they
// are and hands those that come in to the one function that reacts to their
// type.
//
// Nothing may rest on a publish that succeeded. Some brokers answer well for an
// event that is lost (a RabbitMQ confirm that never came), so whoever owns an
// event keeps it and publishes it again until its effect is seen; the id stays
// the same, and every consumer recognises it.
package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"

	"orderflow/events"
)

// ErrClosed says that the publisher takes no more events.
var ErrClosed = errors.New("publisher is closed")

const (
	maxBulk        = 100 // events of one bulk publish
	publishTimeout = 10 * time.Second
)

// Publisher publishes events, each to the topic of its type, those that wait
// for the same topic together in one bulk publish. Its methods may be called
// from several goroutines.
type Publisher struct {
	client dapr.Client
	lanes  map[string]chan *publication
	stop   chan struct{}
	done   sync.WaitGroup
	once   sync.Once
}

type publication struct {
	ctx    context.Context
	event  events.Event
	answer chan error
}

// NewPublisher starts a publisher to topics; Close ends it.
func NewPublisher(client dapr.Client, topics ...string) *Publisher {
	p := &Publisher{client: client, lanes: map[string]chan *publication{}, stop: make(chan struct{})}
	for _, topic := range topics {
		lane := make(chan *publication)
		p.lanes[topic] = lane
		p.done.Add(1)
		go p.run(topic, lane)
	}
	return p
}

// Close waits until the events that were taken are published or failed.
func (p *Publisher) Close() {
	p.once.Do(func() { close(p.stop) })
	p.done.Wait()
}

// Publish publishes evs and waits for the broker's word on each. After an error
// any of them may have been published.
func (p *Publisher) Publish(ctx context.Context, evs ...events.Event) error {
	waiting := make([]*publication, 0, len(evs))
	var errs []error
	for _, e := range evs {
		lane, ok := p.lanes[e.Topic()]
		if !ok {
			errs = append(errs, fmt.Errorf("publish %s: this service does not publish %s", e.ID, e.Type))
			continue
		}
		w := &publication{ctx: ctx, event: e, answer: make(chan error, 1)}
		select {
		case lane <- w:
			waiting = append(waiting, w)
		case <-p.stop:
			errs = append(errs, fmt.Errorf("publish %s: %w", e.ID, ErrClosed))
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("publish %s: %w", e.ID, ctx.Err()))
		}
	}
	for _, w := range waiting {
		select {
		case err := <-w.answer:
			if err != nil {
				errs = append(errs, fmt.Errorf("publish %s: %w", w.event.ID, err))
			}
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("publish %s: %w", w.event.ID, ctx.Err()))
		}
	}
	return errors.Join(errs...)
}

func (p *Publisher) run(topic string, lane chan *publication) {
	defer p.done.Done()
	for {
		select {
		case <-p.stop:
			return
		case first := <-lane:
			batch := []*publication{first}
		collect:
			for len(batch) < maxBulk {
				select {
				case w := <-lane:
					batch = append(batch, w)
				default:
					break collect
				}
			}
			err := p.send(topic, batch)
			for _, w := range batch {
				w.answer <- err
			}
		}
	}
}

// send publishes the batch; the call stands in the trace of its first event.
// Dapr's answer to a bulk publish over gRPC does not say which events failed,
// so an error is everyone's.
func (p *Publisher) send(topic string, batch []*publication) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), publishTimeout)
	defer cancel()
	entries := make([]any, len(batch))
	for i, w := range batch {
		body, err := json.Marshal(w.event)
		if err != nil {
			return err
		}
		// Events of one order or product stay in order where the broker has
		// partitions (Kafka); the other brokers ignore the key.
		metadata := map[string]string{"partitionKey": w.event.Subject}
		if len(batch) == 1 {
			return p.client.PublishEvent(ctx, topic, topic, body,
				dapr.PublishEventWithContentType(events.ContentType), dapr.PublishEventWithMetadata(metadata))
		}
		entries[i] = dapr.PublishEventsEvent{EntryID: strconv.Itoa(i), Data: body, ContentType: events.ContentType, Metadata: metadata}
	}
	return p.client.PublishEvents(ctx, topic, topic, entries).Error
}

// Traced is e as part of the trace that ctx is in; an event that is published
// again stays in the trace of the change that it reports.
func Traced(ctx context.Context, e events.Event) events.Event {
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	e.TraceParent, e.TraceState = carrier["traceparent"], carrier["tracestate"]
	return e
}
