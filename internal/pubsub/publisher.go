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

// Sizes of one call to the sidecar, whose limit is 4 MiB for a message.
//
// Where a component has one publish at a time confirmed (RabbitMQ's), a call takes as
// long as all its confirmations one after the other. If that is more than the sidecar
// allows a try (2 s, resiliency.yaml), it sends all of them again while the first are
// still under way, and the broker is the busier the less it gets done. So a call is small
// enough for confirmations of 60 ms; one that fails is followed by one of half its size,
// and each full one that succeeds by one that is larger by an event.
const (
	maxBulk      = 32
	maxBulkBytes = 2 << 20
)

const publishTimeout = 10 * time.Second

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

// publication are events for one topic that are published, or fail, together.
type publication struct {
	ctx     context.Context
	entries []dapr.PublishEventsEvent
	answer  chan error
}

// NewPublisher starts a publisher to topics; Close ends it.
func NewPublisher(client dapr.Client, topics ...string) *Publisher {
	p := &Publisher{client: client, lanes: map[string]chan *publication{}, stop: make(chan struct{})}
	for _, topic := range topics {
		lane := make(chan *publication)
		p.lanes[topic] = lane
		p.done.Go(func() { p.run(topic, lane) })
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
	return p.publish(ctx, events.Event.Topic, evs)
}

// PublishTo is Publish to that topic and not to those of the events' types: for
// whoever builds something anew from all events and disturbs nobody else.
func (p *Publisher) PublishTo(ctx context.Context, topic string, evs ...events.Event) error {
	return p.publish(ctx, func(events.Event) string { return topic }, evs)
}

func (p *Publisher) publish(ctx context.Context, topicOf func(events.Event) string, evs []events.Event) error {
	publications := map[string]*publication{}
	var errs []error
	for _, e := range evs {
		topic := topicOf(e)
		if p.lanes[topic] == nil {
			errs = append(errs, fmt.Errorf("publish %s: this service does not publish %s to %q", e.ID, e.Type, topic))
			continue
		}
		body, err := json.Marshal(e)
		if err != nil {
			errs = append(errs, fmt.Errorf("publish %s: %w", e.ID, err))
			continue
		}
		w := publications[topic]
		if w == nil {
			w = &publication{ctx: ctx, answer: make(chan error, 1)}
			publications[topic] = w
		}
		w.entries = append(w.entries, dapr.PublishEventsEvent{
			EntryID:     e.ID,
			Data:        body,
			ContentType: events.ContentType,
			// Events of one order or product stay in order where the broker has
			// partitions (Kafka); the other brokers ignore the key.
			Metadata: map[string]string{"partitionKey": e.Subject},
		})
	}
	for topic, w := range publications {
		select {
		case p.lanes[topic] <- w:
		case <-p.stop:
			w.answer <- ErrClosed
		case <-ctx.Done():
		}
	}
	for topic, w := range publications {
		var err error
		select {
		case err = <-w.answer:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("publish %s and %d more to %s: %w", w.entries[0].EntryID, len(w.entries)-1, topic, err))
		}
	}
	return errors.Join(errs...)
}

func (p *Publisher) run(topic string, lane chan *publication) {
	bulk := maxBulk // events in one call
	for {
		select {
		case <-p.stop:
			return
		case first := <-lane:
			batch, entries := []*publication{first}, first.entries
		collect:
			for len(entries) < maxBulk {
				select {
				case w := <-lane:
					batch = append(batch, w)
					entries = append(entries, w.entries...)
				default:
					break collect
				}
			}
			var err error
			bulk, err = p.send(first.ctx, topic, entries, bulk)
			for _, w := range batch {
				w.answer <- err
			}
		}
	}
}

// send publishes the entries as part of the trace of ctx, at most bulk in a call, and
// says how many are to be in the next one. Dapr's answer to a bulk publish over gRPC
// does not say which events failed, so an error is everyone's.
func (p *Publisher) send(ctx context.Context, topic string, entries []dapr.PublishEventsEvent, bulk int) (next int, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	var errs []error
	for len(entries) > 0 {
		if ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("%d not sent any more: %w", len(entries), ctx.Err()))
			break
		}
		n := fitting(entries, bulk)
		err := p.call(ctx, topic, entries[:n])
		switch {
		case err != nil:
			errs = append(errs, err)
			bulk = max(bulk/2, 1)
		case n == bulk:
			bulk = min(bulk+1, maxBulk)
		}
		entries = entries[n:]
	}
	return bulk, errors.Join(errs...)
}

// call publishes the entries in one call.
func (p *Publisher) call(ctx context.Context, topic string, entries []dapr.PublishEventsEvent) error {
	if len(entries) == 1 {
		e := entries[0]
		return p.client.PublishEvent(ctx, topic, topic, e.Data,
			dapr.PublishEventWithContentType(e.ContentType), dapr.PublishEventWithMetadata(e.Metadata))
	}
	bulk := make([]any, len(entries))
	for i, e := range entries {
		e.EntryID = strconv.Itoa(i) // the same event may be there twice
		bulk[i] = e
	}
	return p.client.PublishEvents(ctx, topic, topic, bulk).Error
}

// fitting is how many of the entries, from the first on, go into one call of at most
// bulk.
func fitting(entries []dapr.PublishEventsEvent, bulk int) int {
	n, size := 0, 0
	for n < min(len(entries), bulk) && (n == 0 || size+len(entries[n].Data) <= maxBulkBytes) {
		size += len(entries[n].Data)
		n++
	}
	return n
}

// Traced is e as part of the trace that ctx is in; an event that is published
// again stays in the trace of the change that it reports.
func Traced(ctx context.Context, e events.Event) events.Event {
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	e.TraceParent, e.TraceState = carrier["traceparent"], carrier["tracestate"]
	return e
}
