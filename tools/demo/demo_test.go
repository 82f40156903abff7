package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }

// good is the trail of an order that was completed.
func good() trail {
	return trail{
		order: order{OrderID: "o-1", Items: []item{{"a", 2}, {"b", 1}}, Status: "COMPLETED"},
		events: []event{
			{"ORDER_CREATED", "order", at(0)},
			{"ORDER_COMPLETED", "order", at(20)},
		},
		movements: map[string][]movement{
			"a": {{at(30), "shipped", 2, "o-1"}, {at(10), "reserved", 2, "o-1"}},
			"b": {{at(30), "shipped", 1, "o-1"}, {at(10), "reserved", 1, "o-1"}},
		},
		notifications: []notification{{"SENT", "m-1"}},
		messages:      []message{{"f-1", "Your order", at(40)}},
	}
}

func TestTimeline(t *testing.T) {
	var out bytes.Buffer
	good().print(&out, "http://mail")
	want := `    +0 ms  ORDER_CREATED       order
   +10 ms  INVENTORY_RESERVED  inventory     2 x a, 1 x b
   +20 ms  ORDER_COMPLETED     order
   +30 ms  (shipped)           inventory     2 x a, 1 x b
   +40 ms  (e-mail)            notification  http://mail/view/f-1
`
	if out.String() != want {
		t.Errorf("timeline is\n%s\nwant\n%s", &out, want)
	}
}

func TestCheck(t *testing.T) {
	cancelled := func(reason string) func(*trail) {
		return func(t *trail) {
			t.order.Status, t.order.Reason = "CANCELLED", reason
			t.movements = map[string][]movement{"a": {{at(20), "released", 2, "o-1"}, {at(10), "reserved", 2, "o-1"}}}
		}
	}
	for _, test := range []struct {
		name   string
		change func(*trail)
		ending ending
		want   string // part of the error; none if empty
	}{
		{"completed", func(*trail) {}, completed, ""},
		{"completed instead of rejected", func(*trail) {}, rejected, "the order is COMPLETED, not CANCELLED (REJECTED)"},
		{"not shipped yet", func(t *trail) { t.movements["b"] = t.movements["b"][1:] }, completed, "1 of b are still held"},
		{"never reserved", func(t *trail) { t.movements["b"] = nil }, completed, "0 of b are shipped, not 1"},
		{"withdrawn", cancelled("CUSTOMER"), withdrawn, ""},
		{"withdrawn, but held", func(t *trail) {
			cancelled("CUSTOMER")(t)
			t.movements["a"] = t.movements["a"][1:]
		}, withdrawn, "2 of a are still held"},
		{"rejected, but held in between", cancelled("REJECTED"), rejected, "2 of a were held"},
		{"no e-mail", func(t *trail) { t.messages = nil }, completed, "1 notifications and 0 e-mails"},
		{"two e-mails", func(t *trail) { t.messages = append(t.messages, t.messages[0]) }, completed, "1 notifications and 2 e-mails"},
		{"not sent yet", func(t *trail) { t.notifications[0].Status = "PENDING" }, completed, "not one of each that is sent"},
	} {
		t.Run(test.name, func(t *testing.T) {
			trail := good()
			test.change(&trail)
			switch err := trail.check(test.ending); {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error is %v, want one about %q", err, test.want)
			}
		})
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	if _, err := open(filepath.Join(dir, "status.json")); err == nil || !strings.Contains(err.Error(), "make run") {
		t.Errorf("without a status file: %v, want a hint to make run", err)
	}
	incomplete := filepath.Join(dir, "incomplete.json")
	if err := os.WriteFile(incomplete, []byte(`{"apps":[{"id":"order","url":"http://127.0.0.1:1"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(incomplete); err == nil || !strings.Contains(err.Error(), "does not say where") {
		t.Errorf("with half a status file: %v", err)
	}
}
