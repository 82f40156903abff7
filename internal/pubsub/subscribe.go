package pubsub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"orderflow/events"
)

// ErrPoison marks an event that no retry will help. It goes to the dead letters
// at once.
var ErrPoison = errors.New("poison event")

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
// means never; any other means not now, and the event comes again. React may be
// called more than once for an event, also at the same time.
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
// reference, "Expected HTTP response").
type verdict string

const (
	success verdict = "SUCCESS" // done, or of no interest here
	retry   verdict = "RETRY"   // comes again, after the sidecar's inbound retry policy
	drop    verdict = "DROP"    // to the subscription's dead-letter topic
)

// Path is the route on which a service takes the events of topic; the
// subscriptions in components/ name it.
func Path(topic string) string { return "/events/" + topic }

// Subscribe mounts on r a route for each topic of handlers. An event of a topic
// that none of them is for is acknowledged: a topic carries more types than any
// one service cares about, and more tomorrow than today.
func Subscribe(r gin.IRoutes, log *slog.Logger, handlers ...Handler) {
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
		r.POST(Path(topic), func(c *gin.Context) {
			v := receive(c, log, topic, byType)
			c.JSON(http.StatusOK, gin.H{"status": v})
		})
	}
}

func receive(c *gin.Context, log *slog.Logger, topic string, handlers map[string]Handler) verdict {
	begin := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, maxEventBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		err = fmt.Errorf("%w: larger than %d bytes", ErrPoison, maxEventBytes)
	}
	var e events.Event
	if err == nil {
		e, err = events.Parse(body)
	}
	ctx, span := startSpan(c, topic, e)
	defer span.End()
	if err == nil {
		err = dispatch(ctx, e, handlers)
	}
	v := judge(err)
	attrs := []any{"event_id", e.ID, "event_type", e.Type, "subject", e.Subject, "topic", topic, "verdict", v, "ms", time.Since(begin).Milliseconds()}
	switch v {
	case success:
		log.InfoContext(ctx, "event handled", attrs...)
	case retry:
		log.WarnContext(ctx, "event to be retried", append(attrs, "error", err)...)
	case drop:
		log.ErrorContext(ctx, "event to the dead letters", append(attrs, "error", err)...)
	}
	if v != success {
		span.SetStatus(codes.Error, string(v))
		span.RecordError(err)
	}
	return v
}

// dispatch calls the handler of e. A panic in it is an error like any other: the
// event comes again, and the service goes on with the rest.
func dispatch(ctx context.Context, e events.Event, handlers map[string]Handler) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	h, ok := handlers[e.Type]
	if !ok {
		return nil
	}
	p, err := events.Decode(e)
	if err != nil {
		return err
	}
	return h.handle(ctx, e, p)
}

// judge is the only place where an error becomes a verdict. It differs from the
// table by which errors become HTTP statuses on purpose: an order that is not
// there yet is a 404 to a person and "not now" to an event that overtook it.
func judge(err error) verdict {
	switch {
	case err == nil:
		return success
	case errors.Is(err, ErrPoison), errors.Is(err, events.ErrInvalid), errors.Is(err, events.ErrUnknownVersion):
		return drop
	}
	return retry
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
