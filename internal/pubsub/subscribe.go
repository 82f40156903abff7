package pubsub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"orderflow/events"
)

// Marks of errors that are not of the moment. Every other error is: the event
// comes again for as long as it takes.
var (
	// ErrPoison: the event contradicts what is on record, so that no retry will
	// help. It goes to the dead letters at once.
	ErrPoison = errors.New("poison event")
	// ErrSuspect: the handler failed for a reason of its own, that may be the
	// event's. It goes to the dead letters after some attempts. A panic, and what
	// wraps aggregate.ErrFault, is marked so too.
	ErrSuspect = errors.New("suspect event")
)

// maxEventBytes is more than any broker here carries.
const maxEventBytes = 4 << 20

// Handler reacts to one type of event.
type Handler struct {
	eventType string
	topic     string
	handle    func(context.Context, events.Event, events.Payload) error
}

// On is the handler that calls react for every event whose payload is a T. What
// react returns is the verdict: nil means done; an error that wraps ErrPoison
// means never, one that wraps ErrSuspect not often; any other means not now, and
// the event comes again. React may be called more than once for an event, also at
// the same time.
func On[T events.Payload](react func(context.Context, events.Event, T) error) Handler {
	var zero T
	return Handler{
		eventType: zero.EventType(),
		topic:     events.Event{Type: zero.EventType()}.Topic(),
		handle: func(ctx context.Context, e events.Event, p events.Payload) error {
			return react(ctx, e, p.(T))
		},
	}
}

// A verdict is what a subscriber answers to its sidecar (Dapr pub/sub API
// reference, "Expected HTTP response"). DROP is not among them: whoever gives an
// event up publishes it to the dead letters before it answers SUCCESS.
type verdict string

const (
	success verdict = "SUCCESS" // done, of no interest here, or given up
	retry   verdict = "RETRY"   // comes again, after the sidecar's inbound retry policy
)

// Path is the route on which a service takes the events of topic; the
// subscriptions in components/ name it.
func Path(topic string) string { return "/events/" + topic }

// Subscribe mounts on r a route for each topic of handlers. An event of a topic
// that none of them is for is acknowledged: a topic carries more types than any
// one service cares about, and more tomorrow than today.
//
// An event that can't be handled is kept and published as a dead letter, and then
// acknowledged; it is not given up before the store and the broker have the letter.
func Subscribe(r gin.IRoutes, log *slog.Logger, dead *DeadLetters, handlers ...Handler) {
	byTopic := map[string]map[string]Handler{}
	for _, h := range handlers {
		if byTopic[h.topic] == nil {
			byTopic[h.topic] = map[string]Handler{}
		}
		if _, twice := byTopic[h.topic][h.eventType]; twice {
			panic("pubsub: two handlers for " + h.eventType)
		}
		byTopic[h.topic][h.eventType] = h
	}
	for topic, byType := range byTopic {
		s := &subscription{log: log, dead: dead, topic: topic, handlers: byType}
		r.POST(Path(topic), func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"status": s.receive(c)}) })
	}
}

// subscription is how one service takes the events of one topic.
type subscription struct {
	log      *slog.Logger
	dead     *DeadLetters
	topic    string
	handlers map[string]Handler
	suspects suspects
}

func (s *subscription) receive(c *gin.Context) verdict {
	begin := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, maxEventBytes))
	whole := err == nil
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		err = fmt.Errorf("%w: larger than %d bytes", events.ErrInvalid, maxEventBytes)
	}
	var e events.Event
	if whole {
		if e, err = events.Parse(body); err != nil {
			e = glimpse(body)
		}
	}
	ctx, span := startSpan(c, s.topic, e)
	defer span.End()
	if err == nil {
		err = dispatch(ctx, e, s.handlers)
	}
	attrs := func(v verdict) []any {
		return []any{"event_id", shown(e.ID), "event_type", shown(e.Type), "subject", shown(e.Subject), "topic", s.topic, "verdict", v, "ms", time.Since(begin).Milliseconds()}
	}
	if err == nil {
		if whole {
			s.suspects.forget(e.ID)
		}
		s.log.InfoContext(ctx, "event handled", attrs(success)...)
		return success
	}
	span.SetStatus(codes.Error, "not handled")
	span.RecordError(errors.New(Reason(err)))
	l, given := s.judge(body, e, err)
	if !given {
		s.log.WarnContext(ctx, "event to be retried", append(attrs(retry), "error", Reason(err))...)
		return retry
	}
	if failure := s.dead.give(ctx, l); failure != nil {
		s.log.ErrorContext(ctx, "event to be retried: its dead letter can't be kept or published", append(attrs(retry), "error", Reason(err), "letter_id", l.LetterID, "failure", failure)...)
		return retry
	}
	s.suspects.forget(e.ID)
	s.log.ErrorContext(ctx, "event to the dead letters", append(attrs(success), "error", l.Reason, "letter_id", l.LetterID, "cause", l.Cause, "attempts", l.Attempts)...)
	return success
}

// judge is the only place where an error becomes a verdict: the letter by which
// the event is given up, or not yet. It differs from the table by which errors
// become HTTP statuses on purpose: an order that is not there yet is a 404 to a
// person and "not now" to an event that overtook it.
func (s *subscription) judge(body []byte, e events.Event, err error) (events.DeadLetter, bool) {
	now := time.Now()
	if cause := causeOf(err); cause != "" {
		return letter(s.dead.service, s.topic, body, e, cause, Reason(err), failures{attempts: 1, first: now}, now), true
	}
	if !suspect(err) {
		return events.DeadLetter{}, false
	}
	f := s.suspects.failed(e.ID, now)
	if f.attempts < maxAttempts {
		return events.DeadLetter{}, false
	}
	return letter(s.dead.service, s.topic, body, e, events.CauseFailing, Reason(err), f, now), true
}

// dispatch calls the handler of e. A panic in it is an error of its own: the event
// comes again some times, and the service goes on with the rest.
func dispatch(ctx context.Context, e events.Event, handlers map[string]Handler) error {
	h, ok := handlers[e.Type]
	if !ok {
		return nil
	}
	p, err := events.Decode(e)
	if err != nil {
		return err
	}
	return guarded(func() error { return h.handle(ctx, e, p) })
}

// startSpan continues the trace that the event is part of: from the sidecar's
// delivery, where the sidecar traces, else from the event itself. A sidecar that
// does not trace sends an invalid traceparent, which is passed over.
func startSpan(c *gin.Context, topic string, e events.Event) (context.Context, trace.Span) {
	propagator := otel.GetTextMapPropagator()
	ctx := propagator.Extract(c.Request.Context(), propagation.MapCarrier{"traceparent": e.TraceParent, "tracestate": e.TraceState})
	ctx = propagator.Extract(ctx, propagation.HeaderCarrier(c.Request.Header))
	return otel.Tracer("orderflow/internal/pubsub").Start(ctx, "process "+topic,
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(
			attribute.String("messaging.system", "dapr"),
			attribute.String("messaging.operation.type", "process"),
			attribute.String("messaging.destination.name", topic),
			attribute.String("messaging.message.id", e.ID),
			attribute.String("cloudevents.event_type", e.Type),
			attribute.String("cloudevents.event_subject", e.Subject),
		))
}
