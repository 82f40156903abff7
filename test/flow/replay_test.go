package flow

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"orderflow/events"
	"orderflow/test/system"
)

// replays has order tell its history again, and looks for what anybody made of
// it: everything must be as it was.
func (f *flow) replays(t *testing.T) {
	id := f.Shelve(t, "replay", 700, 3)
	completed := f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 2))).OrderID)
	rejected := f.Ended(t, f.MustPlace(t, f.Placement(system.Item(id, 2))).OrderID)
	if completed.Status != system.Completed || rejected.Status != system.Cancelled {
		t.Fatalf("orders ended as %s and %s", completed.Status, rejected.Status)
	}
	f.Counted(t, id, 1, 0, 2)
	product, ledger := f.Product(t, id), f.Movements(t, id)
	mails := [][]system.Mail{{f.TheMail(t, completed)}, {f.TheMail(t, rejected)}}
	again := map[string]any{"orderIds": []string{completed.OrderID, rejected.OrderID, "nobody"}}

	// Told again until it is seen that all have heard it again: a broker may drop
	// what it had by the same id a moment ago.
	want := map[string][]string{
		"inventory":    append(f.ids(t, completed.OrderID), f.ids(t, rejected.OrderID)...),
		"notification": {f.ids(t, completed.OrderID)[1], f.ids(t, rejected.OrderID)[1]},
	}
	system.Eventually(t, "every event was handled twice", func() (bool, string) {
		got := f.replay(t, again)
		if got.Events != 4 || !slices.Equal(got.Missing, []string{"nobody"}) {
			t.Fatalf("replayed %+v", got)
		}
		for service, ids := range want {
			for _, id := range ids {
				if n := f.handled(t, service, id); n < 2 {
					return false, fmt.Sprintf("%s handled %s %d times", service, id, n)
				}
			}
		}
		return true, ""
	})
	if p := f.Product(t, id); p != product {
		t.Errorf("the product was %+v, is %+v", product, p)
	}
	if got := f.Movements(t, id); got != ledger {
		t.Errorf("the ledger was %s, is %s", ledger, got)
	}
	for i, o := range []system.Order{completed, rejected} {
		if got := f.Mails(t, o.Email); !slices.Equal(got, mails[i]) {
			t.Errorf("e-mails were %+v, are %+v", mails[i], got)
		}
		if n := f.Notifications(t, o.OrderID); len(n) != 1 {
			t.Errorf("notifications of %s: %+v", o.OrderID, n)
		}
		if got := f.Find(t, o.OrderID); got.Version != o.Version || len(f.Events(t, o.OrderID)) != 2 {
			t.Errorf("the order was %+v, is %+v", o, got)
		}
	}
	f.replaysApart(t, completed, rejected)
}

// replaysApart has a range of time told on the topic for that, through the
// sidecar, which adds the token that the route wants.
func (f *flow) replaysApart(t *testing.T, first, last system.Order) {
	t.Helper()
	request := map[string]any{"topic": events.TopicReplay, "from": first.CreatedAt, "to": last.CreatedAt.Add(1)}
	invoke := f.Order.Sidecar + "/v1.0/invoke/order/method/admin/replay"
	a, err := system.Send(t.Context(), http.MethodPost, invoke, request, f.SidecarToken())
	var got replayed
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("replay: %s (%v)", a, err)
	}
	if a.Read(t, &got); !slices.Contains(got.OrderIDs, first.OrderID) || !slices.Contains(got.OrderIDs, last.OrderID) || got.Events < 4 {
		t.Errorf("replayed %+v, want the orders from %s to %s", got, first.OrderID, last.OrderID)
	}
	answers := map[string]any{"topic": events.TopicReplay, "orderIds": []string{first.OrderID, last.OrderID}}
	a, err = system.Send(t.Context(), http.MethodPost, f.Inventory.URL+"/admin/replay", answers, system.With("dapr-api-token", f.AppToken))
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("replay of inventory's answers: %s (%v)", a, err)
	}
	if a.Read(t, &got); got.Events != 2 {
		t.Errorf("replayed %+v, want one answer for each of two orders", got)
	}
	for _, address := range []string{f.Order.URL + "/admin/replay", invoke} {
		a, err := system.Send(t.Context(), http.MethodPost, address, request)
		if err != nil || a.Status != http.StatusUnauthorized {
			t.Errorf("a replay without a token: %s (%v), want 401", a, err)
		}
	}
}

type replayed struct {
	OrderIDs, Missing []string
	Events            int
}

func (f *flow) replay(t *testing.T, request any) (r replayed) {
	t.Helper()
	a, err := system.Send(t.Context(), http.MethodPost, f.Order.URL+"/admin/replay", request, system.With("dapr-api-token", f.AppToken))
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("replay: %s (%v)", a, err)
	}
	a.Read(t, &r)
	return r
}

// ids are the ids of the order's events.
func (f *flow) ids(t *testing.T, orderID string) []string {
	t.Helper()
	var ids []string
	for _, e := range f.Events(t, orderID) {
		ids = append(ids, e.ID)
	}
	return ids
}

// handled counts how often the service has handled the event, by its log.
func (f *flow) handled(t *testing.T, service, eventID string) (n int) {
	t.Helper()
	for line := range strings.Lines(f.Logs(t)[service]) {
		if strings.Contains(line, `"event handled"`) && strings.Contains(line, `"event_id":"`+eventID+`"`) {
			n++
		}
	}
	return n
}

// audits has inventory hold every ledger against the counts, while nothing and
// everything is going on.
func (f *flow) audits(t *testing.T) {
	type finding struct {
		ProductID      string
		OK             bool
		Stored, Ledger json.RawMessage
		Wrong          []string
	}
	audited := map[string]bool{}
	for cursor := ""; ; {
		a, err := system.Send(t.Context(), http.MethodGet, f.Inventory.URL+"/admin/audit"+cursor, nil, system.With("dapr-api-token", f.AppToken))
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("audit: %s (%v)", a, err)
		}
		var page struct {
			Products   []finding
			NextCursor string
		}
		a.Read(t, &page)
		for _, p := range page.Products {
			audited[p.ProductID] = true
			if !p.OK || len(p.Wrong) > 0 {
				t.Errorf("%s: %v; stored %s, ledger %s", p.ProductID, p.Wrong, p.Stored, p.Ledger)
			}
		}
		if page.NextCursor == "" {
			break
		}
		cursor = "?cursor=" + page.NextCursor
	}
	for _, id := range f.Shelved() {
		if !audited[id] {
			t.Errorf("%s was not audited", id)
		}
	}
	t.Logf("%d products audited", len(audited))
}

// archives puts all orders away, as soon as each is settled.
func (f *flow) archives(t *testing.T) {
	orders := len(f.ListAll(t, url.Values{"limit": {"100"}}))
	archived, files := 0, 0
	run := func(cursor string) (left int, next string) {
		request := map[string]string{"olderThan": "1ms", "cursor": cursor}
		a, err := system.Send(t.Context(), http.MethodPost, f.Order.URL+"/admin/archive", request, system.With("dapr-api-token", f.AppToken))
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("archive: %s (%v)", a, err)
		}
		var r struct {
			Archived, Left   int
			File, NextCursor string
		}
		a.Read(t, &r)
		archived += r.Archived
		if r.File != "" {
			files++
		}
		return r.Left, r.NextCursor
	}
	system.Eventually(t, "all orders are archived", func() (bool, string) {
		left, cursor := run("")
		for more := 0; cursor != ""; left += more {
			more, cursor = run(cursor)
		}
		return left == 0, fmt.Sprintf("%d are left", left)
	})
	if archived != orders {
		t.Errorf("%d orders are archived, %d there were", archived, orders)
	}
	t.Logf("%d orders in %d files", archived, files)
}
