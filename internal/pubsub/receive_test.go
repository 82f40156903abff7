package pubsub

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"orderflow/events"
)

// Who keeps events gets all that comes, and nothing is given up, whatever happens.
func TestReceiveAll(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	e := news(t, "o-1", orderCreated)
	whole := encode(t, e)
	enveloped := func(body string) string {
		return fmt.Sprintf(`{"id":"x","type":"com.dapr.event.sent","data_base64":"%s"}`, base64.StdEncoding.EncodeToString([]byte(body)))
	}
	for name, tt := range map[string]struct {
		body, want, id string
		err            error
	}{
		"event":                      {whole, whole, e.ID, nil},
		"event in an envelope":       {enveloped(whole), whole, e.ID, nil},
		"no event in an envelope":    {enveloped("\xff{"), "\xff{", "", events.ErrInvalid},
		"nothing in an envelope":     {enveloped(""), "", "", events.ErrInvalid},
		"no event":                   {"{", "{", "", events.ErrInvalid},
		"nothing":                    {"", "", "", events.ErrInvalid},
		"half an event":              {`{"id":"7"}`, `{"id":"7"}`, "7", events.ErrInvalid},
		"event with data in base 64": {`{"id":"7","type":"PICTURE","data_base64":"AA=="}`, `{"id":"7","type":"PICTURE","data_base64":"AA=="}`, "7", events.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Delivery
			answer := func() error { return nil }
			log := &bytes.Buffer{}
			r := gin.New()
			ReceiveAll(r, slog.New(slog.NewJSONHandler(log, nil)), events.TopicOrders, func(_ context.Context, d Delivery) error {
				got = append(got, d)
				return answer()
			})
			for range 2 * maxAttempts {
				answer = func() error { return fmt.Errorf("%w: of ada@example.com", ErrPoison) }
				if v := deliver(t, r, events.TopicOrders, tt.body); v != "RETRY" {
					t.Errorf("failed: %s", v)
				}
				answer = func() error { panic("ouch") }
				if v := deliver(t, r, events.TopicOrders, tt.body); v != "RETRY" {
					t.Errorf("panicked: %s", v)
				}
			}
			answer = func() error { return nil }
			if v := deliver(t, r, events.TopicOrders, tt.body); v != "SUCCESS" {
				t.Errorf("kept: %s", v)
			}
			for _, d := range got {
				if string(d.Body) != tt.want || d.Event.ID != tt.id || !errors.Is(d.Err, tt.err) || (d.Err == nil) != (tt.err == nil) {
					t.Errorf("got %q, %s, %v", d.Body, d.Event.ID, d.Err)
				}
			}
			if strings.Contains(log.String(), "example.com") {
				t.Errorf("an address is in the log: %s", log)
			}
		})
	}
}
