package faults

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"orderflow/events"
	"orderflow/test/system"
)

// dose is one message that nobody can handle.
type dose struct {
	id    string // a part of the message that no other has; all empty ones are alike
	topic string
	empty bool
}

// in says whether the letter is about this message.
func (d dose) in(l system.DeadLetter) bool {
	if d.empty {
		return len(l.Original) == 0
	}
	return strings.Contains(l.Event.ID, d.id) || strings.Contains(string(l.Original), d.id)
}

const tooLarge = 3 << 20 // bytes; some brokers take that and some don't

// forms are the kinds of poison; each makes a message that has the id in it, and
// would be an event of a type if it were sound.
var forms = []func(id, eventType string) string{
	func(string, string) string { return "" },
	func(id, _ string) string { return `{"specversion":"1.0","id":"` + id + `","data":` },
	func(id, _ string) string { return id + " is not JSON" },
	func(id, t string) string { return event(id, t, 1, `{"orderId":7,"items":"many"}`) },
	func(id, t string) string { return event(id, t, 1, `{}`) },
	func(id, t string) string { return event(id, t, 1, `null`) },
	func(id, t string) string { return event(id, t, 99, `{"orderId":"o"}`) },
	func(id, t string) string { return event(id, t, 1, `{"orderId":"`+"\xff\xfe"+`"}`) },
	func(id, t string) string {
		return event(id, t, 1, strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000))
	},
	func(id, t string) string { return event(id, t, 1, `{"orderId":"`+strings.Repeat("x", 900<<10)+`"}`) },
	func(id, t string) string { return event(id, t, 1, `{"orderId":"`+strings.Repeat("x", tooLarge)+`"}`) },
	func(id, _ string) string { return id + strings.Repeat(" is not JSON", tooLarge/len(" is not JSON")) },
}

func event(id, eventType string, version int, data string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":"%[1]s","source":"faults","type":"%[2]s","subject":"o","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","dataschema":"%[3]s%[2]s/v%[4]d","data":%[5]s}`,
		id, eventType, events.SchemaBase, version, data)
}

// poison puts messages among the events that nobody can handle. Each is to end in
// the dead letters, or is refused by the broker where it is larger than it takes;
// everything else goes on.
func poison(ctx context.Context, t *trial) error {
	for i, form := range forms {
		d := dose{id: fmt.Sprintf("poison-%s-%d.", t.name, i), topic: events.TopicOrders}
		eventType, from := events.TypeOrderCreated, t.Order
		if t.rnd.IntN(2) == 0 {
			d.topic, eventType, from = events.TopicInventory, events.TypeInventoryReserved, t.Inventory
		}
		message := form(d.id, eventType)
		d.empty = message == ""
		a, err := t.publishRaw(ctx, from, d.topic, []byte(message))
		switch {
		case err != nil:
			return err
		case a.Status/100 == 2:
			t.poison = append(t.poison, d)
		case len(message) < tooLarge:
			return fmt.Errorf("publish %s: %s", d.id, a)
		default:
			t.refused++
		}
	}
	return nil
}

// publishRaw puts bytes on a topic, as they are, through the sidecar of a service
// that may.
func (t *trial) publishRaw(ctx context.Context, from system.Service, topic string, body []byte) (system.Answer, error) {
	return system.Send(ctx, http.MethodPost, from.Sidecar+"/v1.0/publish/"+topic+"/"+topic+"?metadata.rawPayload=true", body,
		system.With("Content-Type", "application/octet-stream"), t.SidecarToken())
}

// letters are the dead letters as console has them: each with its event, where
// that is not told by its id.
func (c *campaigner) letters(tb testing.TB) []system.DeadLetter {
	letters := c.DeadLetters(tb, url.Values{"limit": {"100"}})
	for i, l := range letters {
		if !slices.ContainsFunc(c.poison, func(d dose) bool { return !d.empty && strings.Contains(l.Event.ID, d.id) }) {
			letters[i] = c.DeadLetter(tb, l.LetterID)
		}
	}
	return letters
}

// compare says what is wrong with the dead letters: one that is no poison, or
// poison that is not among them.
func compare(letters []system.DeadLetter, doses []dose) (complaints []string) {
	found := map[string]bool{}
	for _, l := range letters {
		known := false
		for _, d := range doses {
			if d.in(l) {
				found[d.id], known = true, true
			}
		}
		if !known {
			complaints = append(complaints, fmt.Sprintf("a dead letter that is no poison: %s of %s, %s (%s): %.1000s", l.LetterID, l.Service, l.Cause, l.Reason, l.Original))
		}
	}
	for _, d := range doses {
		if !found[d.id] {
			complaints = append(complaints, "poison that is not among the dead letters: "+d.id)
		}
	}
	return complaints
}
