package system

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"orderflow/events"
)

// DeadLetter is what console keeps of an event that was given up.
type DeadLetter struct {
	LetterID  string           `json:"letterId"`
	Status    string           `json:"status"` // OPEN, REDRIVEN or DISCARDED
	Service   string           `json:"service"`
	Topic     string           `json:"topic"`
	Cause     string           `json:"cause"`
	Reason    string           `json:"reason"`
	Event     events.EventName `json:"event"`
	Attempts  int              `json:"attempts"`
	Redrives  int              `json:"redrives"`
	Truncated bool             `json:"truncated"`
	Original  []byte           `json:"original"` // only of one that was asked for by its id
	Audit     []struct {
		Who  string `json:"who"`
		What string `json:"what"`
		Note string `json:"note"`
	} `json:"audit"`
}

// DeadLetters are all that match, the newest first.
func (s *System) DeadLetters(tb testing.TB, query url.Values) []DeadLetter {
	tb.Helper()
	var all []DeadLetter
	query = url.Values(http.Header(query).Clone())
	if query == nil {
		query = url.Values{}
	}
	for {
		a := send(tb, http.MethodGet, s.Console.URL+"/deadletters?"+query.Encode(), nil, s.appToken())
		if a.Status != http.StatusOK {
			tb.Fatalf("dead letters: %s", a)
		}
		var page struct {
			DeadLetters []DeadLetter `json:"deadLetters"`
			NextCursor  string       `json:"nextCursor"`
		}
		a.Read(tb, &page)
		all = append(all, page.DeadLetters...)
		if page.NextCursor == "" {
			return all
		}
		query.Set("cursor", page.NextCursor)
	}
}

// DeadLetter is one, with the event as it came.
func (s *System) DeadLetter(tb testing.TB, id string) DeadLetter {
	tb.Helper()
	a := send(tb, http.MethodGet, s.Console.URL+"/deadletters/"+id, nil, s.appToken())
	if a.Status != http.StatusOK {
		tb.Fatalf("dead letter %s: %s", id, a)
	}
	var l DeadLetter
	a.Read(tb, &l)
	return l
}

// Redrive sends the letter's event again, mended if that is not nil, as operator
// who.
func (s *System) Redrive(tb testing.TB, id, who string, mended *events.Event) Answer {
	tb.Helper()
	var body any
	if mended != nil {
		body = map[string]any{"event": mended}
	}
	return send(tb, http.MethodPost, s.Console.URL+"/deadletters/"+id+"/redrive", body, s.appToken(), With("X-Operator", who))
}

// Discard closes the letter.
func (s *System) Discard(tb testing.TB, id, who, note string) Answer {
	tb.Helper()
	return send(tb, http.MethodPost, s.Console.URL+"/deadletters/"+id+"/discard", map[string]string{"note": note}, s.appToken(), With("X-Operator", who))
}

// Moment is an event in an order's timeline, of whatever service.
type Moment struct {
	ID        string    `json:"id"`
	Type      string    `json:"type"`
	Source    string    `json:"source"`
	Topic     string    `json:"topic"`
	Time      time.Time `json:"time"`
	TraceID   string    `json:"traceId"`
	RedriveOf string    `json:"redriveOf"`
}

// Moments are the order's timeline as console has it.
func (s *System) Moments(tb testing.TB, orderID string) []Moment {
	tb.Helper()
	a := send(tb, http.MethodGet, s.Console.URL+"/orders/"+orderID+"/timeline", nil)
	if a.Status == http.StatusNotFound {
		return nil
	}
	var line struct {
		Events []Moment `json:"events"`
	}
	a.Read(tb, &line)
	return line.Events
}

// PublishRaw puts bytes on a topic through the sidecar of a service that may, with
// parameters of Dapr's publish API.
func (s *System) PublishRaw(tb testing.TB, from Service, topic, parameters, contentType string, body []byte) {
	tb.Helper()
	a := send(tb, http.MethodPost, from.Sidecar+"/v1.0/publish/"+topic+"/"+topic+parameters, body,
		With("Content-Type", contentType), s.SidecarToken())
	if a.Status/100 != 2 {
		tb.Fatalf("publish to %s through the sidecar of %s: %s", topic, from.ID, a)
	}
}

func (s *System) appToken() Header { return With(tokenHeader, s.AppToken) }
