package console

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"orderflow/events"
	"orderflow/internal/pubsub"
)

// causeUndelivered is the cause of what no service gave up but a sidecar, which
// could not hand it over and does not say why. Such letters are of the service
// "sidecar".
const (
	causeUndelivered = "UNDELIVERED"
	sidecars         = "sidecar"
)

// onDeadLetter keeps what a service gave up, or a sidecar.
func (s *server) onDeadLetter(ctx context.Context, d pubsub.Delivery) error {
	if d.Err == nil && d.Event.Type == events.TypeDeadLetter {
		p, err := events.Decode(d.Event)
		if err == nil {
			l := p.(events.DeadLetter)
			return s.letters.arrived(ctx, l, s.now())
		}
		d.Err = err
	}
	return s.letters.arrived(ctx, s.undelivered(d), s.now())
}

// undelivered is a letter about what a sidecar put on the topic as it came.
func (s *server) undelivered(d pubsub.Delivery) events.DeadLetter {
	now := s.now()
	why := errors.New("a sidecar could not hand the event to a service; the sidecar's log says why")
	if d.Err != nil {
		why = d.Err
	}
	name := func(v string) string { return string([]rune(v)[:min(len([]rune(v)), events.MaxEventName)]) }
	l := events.DeadLetter{
		LetterID:     pubsub.LetterID(sidecars, "", d.Body, d.Event),
		Service:      sidecars,
		Topic:        d.Event.Topic(),
		Cause:        causeUndelivered,
		Reason:       pubsub.Reason(why),
		Event:        events.EventName{ID: name(d.Event.ID), Type: name(d.Event.Type), Subject: name(d.Event.Subject)},
		Redrives:     max(0, d.Event.Redrives),
		Attempts:     1,
		FirstFailure: now,
		LastFailure:  now,
		Original:     d.Body,
	}
	if len(d.Body) > events.MaxOriginal {
		l.Original, l.Truncated = d.Body[:events.MaxOriginal], true
	}
	return l
}

// onEvent puts what happened to an order into its timeline, whatever the type, and
// whether it comes for the first time or in a replay. What can't be read is no loss
// here: whoever it is for gives it up.
func (s *server) onEvent(topic string) func(context.Context, pubsub.Delivery) error {
	return func(ctx context.Context, d pubsub.Delivery) error {
		if d.Err != nil {
			s.log.WarnContext(ctx, "event that can't be read", "topic", topic, "error", pubsub.Reason(d.Err))
			return nil
		}
		m := moment{
			ID:      d.Event.ID,
			Type:    d.Event.Type,
			Source:  d.Event.Source,
			Topic:   topic,
			Time:    d.Event.Time.UTC(),
			TraceID: traceID(d.Event.TraceParent),
			Redrive: d.Event.RedriveOf,
		}
		if topic == events.TopicReplay {
			// The sidecar puts the trace of whoever publishes into the event: this
			// time that of the replay, which is not the order's.
			m.Topic, m.TraceID = d.Event.Topic(), ""
		}
		s.lull.await(ctx)
		if err := s.timelines.happened(ctx, orderOf(d.Event), m); err != nil {
			return err
		}
		s.lull.kept()
		if topic == events.TopicReplay {
			s.tally.replayed()
		}
		return nil
	}
}

// orderOf is the order that an event is about, or "": events of orders name it in
// their data, those of products have none.
func orderOf(e events.Event) string {
	var data struct {
		OrderID string `json:"orderId"`
	}
	if json.Unmarshal(e.Data, &data) != nil || events.CheckID(data.OrderID) != nil || len(e.ID) > maxEventID {
		return ""
	}
	return data.OrderID
}

// traceID is the trace of a traceparent (W3C Trace Context), or "".
func traceID(traceparent string) string {
	parts := strings.Split(traceparent, "-")
	if len(parts) < 4 || len(parts[1]) != 32 {
		return ""
	}
	return parts[1]
}
