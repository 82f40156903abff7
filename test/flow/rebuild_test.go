package flow

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/test/system"
)

// drops throws console's timelines away, all at once, and has order and inventory
// tell everything again.
func (f *flow) drops(t *testing.T) {
	live := f.timelines(t)
	generation := f.beginRebuild(t)
	f.show(t, generation)
	for id, line := range live {
		kept := slices.DeleteFunc(slices.Clone(line), func(m system.Moment) bool { return m.RedriveOf == "" })
		if got := f.Moments(t, id); !slices.Equal(got, kept) {
			t.Errorf("left of order %s: %+v, want %+v", id, got, kept)
		}
	}
	f.tellAgain(t)
	f.rebuilt(t, live)
}

// rebuilds builds them beside those that are shown, with orders going on.
func (f *flow) rebuilds(t *testing.T) {
	id := f.Shelve(t, "rebuild", 100, 10)
	generation := f.beginRebuild(t)
	meanwhile := f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 1))).OrderID)
	f.timeline(t, meanwhile.OrderID, "order ORDER_CREATED, inventory INVENTORY_RESERVED, order ORDER_COMPLETED")
	live := f.timelines(t)
	f.tellAgain(t)
	f.show(t, generation)
	f.rebuilt(t, live)
	f.TheMail(t, meanwhile)
}

// timelines are those of all orders, as console shows them once it has heard all
// that the orders hold.
func (f *flow) timelines(t *testing.T) map[string][]system.Moment {
	t.Helper()
	all := map[string][]system.Moment{}
	for _, o := range f.ListAll(t, url.Values{"limit": {"100"}}) {
		own := f.ids(t, o.OrderID)
		system.Eventually(t, "the timeline of "+o.OrderID+" is whole", func() (bool, string) {
			line := f.Moments(t, o.OrderID)
			all[o.OrderID] = line
			for _, id := range own {
				if !slices.ContainsFunc(line, func(m system.Moment) bool { return m.ID == id }) {
					return false, fmt.Sprintf("%s is missing in %+v", id, line)
				}
			}
			return true, ""
		})
	}
	return all
}

// rebuilt waits until every timeline equals the live one: the same events, with the
// same fields, in the same sequence. Two things a replay does not tell: the trace in
// which an event was first published, and events that no service made, which these
// tests did.
func (f *flow) rebuilt(t *testing.T, live map[string][]system.Moment) {
	t.Helper()
	compared := 0
	for id, line := range live {
		var want []system.Moment
		for _, m := range line {
			if m.RedriveOf == "" && !strings.HasPrefix(m.ID, id+":") {
				continue
			}
			want = append(want, untraced(m))
		}
		system.Eventually(t, "the timeline of "+id+" is as it was", func() (bool, string) {
			var got []system.Moment
			for _, m := range f.Moments(t, id) {
				got = append(got, untraced(m))
			}
			return slices.Equal(got, want), fmt.Sprintf("%+v, want %+v", got, want)
		})
		compared += len(want)
	}
	t.Logf("%d timelines with %d events are as they were", len(live), compared)
}

func untraced(m system.Moment) system.Moment {
	if m.RedriveOf == "" {
		m.TraceID = ""
	}
	return m
}

// operate does what an operator would: a request with the app token.
func (f *flow) operate(t *testing.T, method, address string, body, into any) {
	t.Helper()
	a, err := system.Send(t.Context(), method, address, body, system.With("dapr-api-token", f.AppToken))
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("%s %s: %s (%v)", method, address, a, err)
	}
	a.Read(t, into)
}

type projection struct{ Shown, Building int }

func (f *flow) beginRebuild(t *testing.T) (generation int) {
	t.Helper()
	var p, again projection
	f.operate(t, http.MethodPost, f.Console.URL+"/admin/projection/rebuild", nil, &p)
	f.operate(t, http.MethodPost, f.Console.URL+"/admin/projection/rebuild", nil, &again)
	if p.Building != p.Shown+1 || again != p {
		t.Fatalf("%+v, then %+v", p, again)
	}
	return p.Building
}

func (f *flow) show(t *testing.T, generation int) {
	t.Helper()
	var p projection
	if f.operate(t, http.MethodPost, f.Console.URL+"/admin/projection/show", map[string]int{"generation": generation}, &p); p != (projection{Shown: generation}) {
		t.Fatalf("%+v, want generation %d shown", p, generation)
	}
}

// tellAgain has everything told on the topic replay and waits until console has
// had that many events.
func (f *flow) tellAgain(t *testing.T) {
	t.Helper()
	replayed := func() int {
		var stats struct{ Replayed int }
		f.operate(t, http.MethodGet, f.Console.URL+"/stats", nil, &stats)
		return stats.Replayed
	}
	before, told := replayed(), 0
	request := map[string]any{"topic": events.TopicReplay, "from": time.Unix(0, 0).UTC()}
	for more := true; more; {
		var orders struct {
			OrderIDs   []string
			Events     int
			NextCursor string
		}
		f.operate(t, http.MethodPost, f.Order.URL+"/admin/replay", request, &orders)
		told += orders.Events
		if len(orders.OrderIDs) > 0 {
			var answers struct{ Events int }
			f.operate(t, http.MethodPost, f.Inventory.URL+"/admin/replay", map[string]any{"topic": events.TopicReplay, "orderIds": orders.OrderIDs}, &answers)
			told += answers.Events
		}
		request["cursor"], more = orders.NextCursor, orders.NextCursor != ""
	}
	system.Eventually(t, "all of the replay has come", func() (bool, string) {
		n := replayed() - before
		return n >= told, fmt.Sprintf("%d of %d", n, told)
	})
}
