package pubsub

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/gin-gonic/gin"

	"orderflow/events"
)

// Delivery is what came on a topic, an event of the contract or not.
type Delivery struct {
	Body  []byte
	Event events.Event // or what could be read of it
	Err   error        // why Body is no CloudEvent, if it is none
}

// ReceiveAll mounts on r the route of a topic and hands react whatever comes, in
// whatever form. It is for who keeps events and does not act on them: nothing is
// given up. What react fails at, for whatever reason, comes again.
func ReceiveAll(r gin.IRoutes, log *slog.Logger, topic string, react func(context.Context, Delivery) error) {
	r.POST(Path(topic), func(c *gin.Context) {
		body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, maxRawBytes))
		var d Delivery
		if err == nil {
			d = open(body)
		}
		ctx, span := startSpan(c, topic, d.Event)
		defer span.End()
		if err == nil {
			err = guarded(func() error { return react(ctx, d) })
		}
		v := success
		attrs := []any{"event_id", shown(d.Event.ID), "event_type", shown(d.Event.Type), "subject", shown(d.Event.Subject), "topic", topic}
		if err != nil {
			v = retry
			log.WarnContext(ctx, "event to be retried", append(attrs, "error", Reason(err))...)
		} else {
			log.DebugContext(ctx, "event kept", attrs...)
		}
		c.JSON(http.StatusOK, gin.H{"status": v})
	})
}

// maxRawBytes leaves room for what base64 adds.
const maxRawBytes = 2 * maxEventBytes

// open reads what came. A subscription with rawPayload gets the bytes that were
// on the topic in the data_base64 of an envelope that the sidecar made: they may
// be no CloudEvent, which it could not hand over otherwise.
func open(body []byte) Delivery {
	var envelope struct {
		Type string `json:"type"`
		Data []byte `json:"data_base64"`
	}
	if json.Unmarshal(body, &envelope) == nil && envelope.Data != nil && envelope.Type == "com.dapr.event.sent" {
		body = envelope.Data
	}
	d := Delivery{Body: body}
	if d.Event, d.Err = events.Parse(body); d.Err != nil {
		d.Event = glimpse(body)
	}
	return d
}

func guarded(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: panic: %v\n%s", ErrSuspect, cause, debug.Stack())
		}
	}()
	return f()
}
