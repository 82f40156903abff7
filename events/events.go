// Package events is the contract between the services: what is said, on which
// topic, and by whom. It is all that they share; a service in another language
// needs the JSON files beside it (schemas/, examples/, asyncapi.yaml) and
// nothing else.
//
//	event              topic             emitted by  handled by
//	ORDER_CREATED      order-events      order       inventory
//	ORDER_COMPLETED    order-events      order       inventory, notification
//	ORDER_CANCELLED    order-events      order       inventory, notification
//	INVENTORY_RESERVED inventory-events  inventory   order
//	INVENTORY_REJECTED inventory-events  inventory   order
//	INVENTORY_RELEASED inventory-events  inventory   (a record of the compensation)
//	PRICE_UPDATED      inventory-events  inventory   order
//	STOCK_LOW          inventory-events  inventory   notification
//	DEAD_LETTER        dead-letters      each        console
//
// console also reads both other topics, whatever is on them, and what a sidecar
// puts on dead-letters because it could not hand it over, which may be anything.
//
// Every event is a CloudEvent 1.0 in the JSON format, structured mode. Delivery
// is at least once and in any order: a handler must do no harm when an event
// comes twice, late, or before the one that caused it.
package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A topic is also the name of the Dapr pub/sub component that carries it: one
// component per topic, so that no topic waits for another one's slow handler.
const (
	TopicOrders      = "order-events"
	TopicInventory   = "inventory-events"
	TopicDeadLetters = "dead-letters"

	// TopicReplay carries events of the other topics once more, as they are, on an
	// operator's demand: for whoever builds its projection anew.
	TopicReplay = "replay"
)

// ContentType is the media type of a CloudEvent in structured mode (CloudEvents
// JSON Event Format 1.0, section 3).
const ContentType = "application/cloudevents+json"

// SchemaBase begins every dataschema; "{type}/v{version}" follows.
const SchemaBase = "https://orderflow.example/schemas/"

// Errors of Decode. All three mean that no retry will ever help.
var (
	// ErrUnknownType: the type is not of this contract. A consumer ignores it:
	// a topic may carry news that are not for everybody.
	ErrUnknownType = errors.New("unknown event type")
	// ErrUnknownVersion: the type is known, this version of it is not.
	ErrUnknownVersion = errors.New("unknown event version")
	// ErrInvalid: the event violates its schema.
	ErrInvalid = errors.New("not valid")
)

// Event is a CloudEvent as it travels and as it is stored.
type Event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataSchema      string    `json:"dataschema,omitempty"`
	DataContentType string    `json:"datacontenttype,omitempty"`
	TraceParent     string    `json:"traceparent,omitempty"` // W3C Trace Context, CloudEvents distributed tracing extension
	TraceState      string    `json:"tracestate,omitempty"`
	Redrive
	Data json.RawMessage `json:"data,omitempty"`
}

// Redrive are the attributes of an event that was given up once and is sent
// again, under an id of its own: a broker would drop a second one of the same id.
type Redrive struct {
	RedriveOf string `json:"redriveof,omitempty"` // the id of the event that this is again
	Redrives  int    `json:"redrives,omitempty"`  // how often it was sent again, this time included
	LetterID  string `json:"letterid,omitempty"`  // the dead letter that it was sent from
}

// Payload is the typed content of one event type in one version.
type Payload interface {
	// EventType is the CloudEvents type, the wire name.
	EventType() string
	// SchemaVersion grows only with an incompatible change; both versions are
	// then published until nobody reads the old one.
	SchemaVersion() int
	// EventSubject is the id of the order or product that the event is about;
	// a broker that keeps order keeps it per subject.
	EventSubject() string
	// Validate says in what way the payload violates its schema, if it does.
	Validate() error
}

// New is the event by which source reports p, the fact that took the aggregate
// to version. Its id follows from subject, version and type: publishing the
// same fact again gives the same id, which is how everyone recognises it.
func New(source string, version int, at time.Time, p Payload) (Event, error) {
	e := Event{
		SpecVersion: "1.0",
		ID:          p.EventSubject() + ":" + strconv.Itoa(version) + ":" + p.EventType(),
		Source:      source,
		Type:        p.EventType(),
		Subject:     p.EventSubject(),
		Time:        at.UTC(),
		DataSchema:  SchemaBase + p.EventType() + "/v" + strconv.Itoa(p.SchemaVersion()),
	}
	if err := p.Validate(); err != nil {
		return Event{}, fmt.Errorf("event %s: %w", e.ID, err)
	}
	if _, bare := p.(notice); bare {
		return e, nil
	}
	data, err := json.Marshal(p)
	if err != nil {
		return Event{}, fmt.Errorf("event %s: %w", e.ID, err)
	}
	e.DataContentType, e.Data = "application/json", data
	return e, nil
}

// Version is the version of the event's schema: what its dataschema names, or 1
// where it has none.
func (e Event) Version() (int, error) {
	if e.DataSchema == "" {
		return 1, nil
	}
	v, ok := strings.CutPrefix(e.DataSchema, SchemaBase+e.Type+"/v")
	n, err := strconv.Atoi(v)
	if !ok || err != nil || n < 1 {
		return 0, fmt.Errorf("%w: dataschema %q is not of %s", ErrUnknownVersion, e.DataSchema, e.Type)
	}
	return n, nil
}

// Origin is the id of the fact that e reports, which is its own unless it is an
// event that was sent again. Who tells facts apart by the ids of their events does
// it by this.
func (e Event) Origin() string {
	if e.RedriveOf != "" {
		return e.RedriveOf
	}
	return e.ID
}

// catalogue holds every type: its topic and a reader for each version that is
// understood. An old version's reader answers with the payload of the latest.
var catalogue = map[string]struct {
	topic   string
	readers map[int]reader
}{
	TypeOrderCreated:      {TopicOrders, map[int]reader{1: read[OrderCreated]}},
	TypeOrderCompleted:    {TopicOrders, map[int]reader{1: read[OrderCompleted]}},
	TypeOrderCancelled:    {TopicOrders, map[int]reader{1: read[OrderCancelled]}},
	TypeInventoryReserved: {TopicInventory, map[int]reader{1: read[InventoryReserved]}},
	TypeInventoryRejected: {TopicInventory, map[int]reader{1: read[InventoryRejected]}},
	TypeInventoryReleased: {TopicInventory, map[int]reader{1: read[InventoryReleased]}},
	TypePriceUpdated:      {TopicInventory, map[int]reader{1: func(e Event) (Payload, error) { return check(PriceUpdated{ProductID: e.Subject}) }}},
	TypeDeadLetter:        {TopicDeadLetters, map[int]reader{1: read[DeadLetter]}},
	TypeStockLow:          {TopicInventory, map[int]reader{1: func(e Event) (Payload, error) { return check(StockLow{ProductID: e.Subject}) }}},
}

type reader func(Event) (Payload, error)

// Types lists the types and the versions of each that Decode understands.
func Types() map[string][]int {
	types := make(map[string][]int, len(catalogue))
	for name, t := range catalogue {
		types[name] = slices.Sorted(maps.Keys(t.readers))
	}
	return types
}

// Topic is where e is published, or "" if its type is not of this contract.
func (e Event) Topic() string { return catalogue[e.Type].topic }

// Parse reads a CloudEvent in structured mode. Attributes that it does not know
// are ignored. Its error wraps ErrInvalid.
func Parse(b []byte) (Event, error) {
	if !utf8.Valid(b) { // else package json would put U+FFFD in, and Data keep the bytes
		return Event{}, fmt.Errorf("%w: not UTF-8", ErrInvalid)
	}
	var e Event
	if err := json.Unmarshal(b, &e); err != nil {
		return Event{}, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	switch {
	case e.SpecVersion != "1.0":
		return Event{}, fmt.Errorf("%w: specversion is %q, want \"1.0\"", ErrInvalid, e.SpecVersion)
	case e.ID == "" || e.Type == "" || e.Source == "":
		return Event{}, fmt.Errorf("%w: id, source and type must not be empty", ErrInvalid)
	}
	return e, nil
}

// Decode reads the payload of e. Unknown fields are ignored. Its error wraps
// ErrUnknownType, ErrUnknownVersion or ErrInvalid.
func Decode(e Event) (Payload, error) {
	t, ok := catalogue[e.Type]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownType, e.Type)
	}
	version, err := e.Version()
	if err != nil {
		return nil, err
	}
	decode, ok := t.readers[version]
	if !ok {
		return nil, fmt.Errorf("%w: %s v%d", ErrUnknownVersion, e.Type, version)
	}
	return decode(e)
}

func read[T Payload](e Event) (Payload, error) {
	var p T
	if len(bytes.TrimSpace(e.Data)) == 0 {
		return nil, fmt.Errorf("%w: %s has no data", ErrInvalid, e.Type)
	}
	if err := json.Unmarshal(e.Data, &p); err != nil {
		return nil, fmt.Errorf("%w: data of %s: %v", ErrInvalid, e.Type, err)
	}
	if e.Subject != "" && e.Subject != p.EventSubject() {
		return nil, fmt.Errorf("%w: subject %q, but the data is about %q", ErrInvalid, e.Subject, p.EventSubject())
	}
	return check(p)
}

func check(p Payload) (Payload, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}
