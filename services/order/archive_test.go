package order

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/internal/daprtest"
	"orderflow/services/order/internal/order"
)

// afterAWhile has two hours pass, in which everything but the orders of these
// ids had its effects.
func (b *bench) afterAWhile(unsettled ...string) {
	b.service.orders.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	b.service.sweeper.effects = func(_ context.Context, ids []string) (map[string]order.Effects, error) {
		effects := map[string]order.Effects{}
		for _, id := range ids {
			effects[id] = order.Effects{Stock: true, Notified: !slices.Contains(unsettled, id)}
		}
		return effects, nil
	}
}

type archiveAnswer struct {
	Archived, Left   int
	File, NextCursor string
}

// archives sends a request to archive, again and again with the cursor.
func (b *bench) archives() (all archiveAnswer) {
	b.tb.Helper()
	for cursor := ""; ; {
		a := b.admin("/admin/archive", fmt.Sprintf(`{"olderThan":"1h"%s}`, cursor))
		var part archiveAnswer
		if err := json.Unmarshal(a.Body, &part); err != nil || a.Status != http.StatusOK {
			b.tb.Fatalf("%d %s", a.Status, a.Body)
		}
		all.Archived, all.Left = all.Archived+part.Archived, all.Left+part.Left
		if part.File != "" {
			all.File = part.File
		}
		if part.NextCursor == "" {
			return all
		}
		cursor = fmt.Sprintf(`,"cursor":%q`, part.NextCursor)
	}
}

// files are the names in the archive.
func (b *bench) files() []string {
	b.tb.Helper()
	entries, err := os.ReadDir(b.service.orders.archive.dir)
	if err != nil {
		b.tb.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAnArchivedOrderIsAsBefore(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		completed, cancelled, pending := b.place("Idempotency-Key", "k-1"), b.place(), b.place()
		b.complete(completed)
		b.send("POST", "/orders/"+cancelled.OrderID+"/cancel", "")
		look := func() string {
			var all strings.Builder
			for _, path := range []string{
				"/orders/" + completed.OrderID, "/orders/" + completed.OrderID + "?asOf=1", "/orders/" + completed.OrderID + "/events",
				"/orders/" + cancelled.OrderID, "/orders/" + cancelled.OrderID + "/events", "/orders", "/orders?status=COMPLETED", "/orders?customerId=ada",
			} {
				a := b.send("GET", path, "")
				fmt.Fprintf(&all, "%s %d %s\n", path, a.Status, a.Body)
			}
			for _, path := range []string{"/orders/" + completed.OrderID + "/cancel", "/orders/" + cancelled.OrderID + "/cancel"} {
				a := b.send("POST", path, "")
				fmt.Fprintf(&all, "%s %d %s\n", path, a.Status, a.Body)
			}
			a := b.send("POST", "/orders", basket, "Idempotency-Key", "k-1")
			fmt.Fprintf(&all, "again %d %s\n", a.Status, a.Body)
			a = b.send("POST", "/orders", strings.Replace(basket, "2", "3", 1), "Idempotency-Key", "k-1")
			fmt.Fprintf(&all, "other %d %s\n", a.Status, a.Body)
			fmt.Fprintln(&all, b.deliver(events.InventoryReserved{Reservation: reservation(completed)}))
			fmt.Fprintln(&all, b.deliver(events.InventoryReserved{Reservation: reservation(cancelled)}))
			return all.String()
		}
		before := look()
		b.afterAWhile()
		if a := b.archives(); a.Archived != 2 || a.Left != 1 {
			t.Errorf("archived %+v, want 2, and the pending order left", a)
		}
		if after := look(); after != before {
			t.Errorf("after it was archived:\n%s\nbefore:\n%s", after, before)
		}
		for _, o := range []order.Order{completed, cancelled} {
			if stub := b.State(orderKey(o.OrderID)); len(stub) > 200 || bytes.Contains(stub, []byte("events")) {
				t.Errorf("what remains are %d bytes: %s", len(stub), stub)
			}
		}
		if !bytes.Contains(b.State(orderKey(pending.OrderID)), []byte("ORDER_CREATED")) {
			t.Error("the pending order is not in the store")
		}
		if files := b.files(); len(files) != 1 {
			t.Errorf("files %v", files)
		}
		if a := b.archives(); a.Archived != 0 || a.File != "" {
			t.Errorf("archived again: %+v", a)
		}
		r := replay{OrderIDs: []string{completed.OrderID, cancelled.OrderID}, Topic: events.TopicReplay}
		if done, _ := b.replays(r); done.Events != 4 || len(b.Replayed()) != 4 {
			t.Errorf("replayed %+v", done)
		}
		if err := b.service.Sweep(t.Context()); err != nil {
			t.Errorf("sweep: %v", err)
		}
	})
}

// What is not old, not ended or without effects on record stays, and is archived
// by a later run.
func TestOrdersAreArchivedOnceSettled(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		first, second := b.place(), b.place()
		b.complete(first)
		b.complete(second)
		if a := b.archives(); a.Archived != 0 || a.Left != 0 || len(b.files()) != 0 {
			t.Errorf("young orders: %+v", a)
		}
		b.afterAWhile(first.OrderID)
		if a := b.archives(); a.Archived != 1 || a.Left != 1 {
			t.Errorf("one is not settled: %+v", a)
		}
		b.afterAWhile()
		if a := b.archives(); a.Archived != 1 || a.Left != 0 {
			t.Errorf("it is settled now: %+v", a)
		}
	})
}

// More orders than one request takes, and each file is what any tool can read.
func TestManyOrdersAreArchived(t *testing.T) {
	const orders = 520
	b := start(t, daprtest.SQLLike)
	if err := b.service.orders.LearnPrices(t.Context(), map[string]price{"cup": {Price: events.Money{Amount: 250, Currency: "EUR"}, Version: 1}}); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range orders {
		id := fmt.Sprintf("o-%d", i)
		r := placement{CustomerID: "ada", Email: "ada@example.com", Items: []events.Item{{ID: "cup", Quantity: 1}}, id: id}
		if _, _, err := b.service.orders.Place(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.service.orders.Change(t.Context(), id, order.Order.Reserved); err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	b.afterAWhile()
	if a := b.archives(); a.Archived != orders || a.Left != 0 {
		t.Fatalf("%+v", a)
	}
	var got []string
	for _, name := range b.files() {
		f, err := os.Open(filepath.Join(b.service.orders.archive.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for in := bufio.NewScanner(z); in.Scan(); {
			var o struct {
				OrderID string
				Events  []events.Event
			}
			if err := json.Unmarshal(in.Bytes(), &o); err != nil || len(o.Events) != 2 {
				t.Fatalf("%v: %s", err, in.Bytes())
			}
			got = append(got, o.OrderID)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if len(b.files()) != 2 || !slices.Equal(got, want) {
		t.Errorf("%d files hold %d orders", len(b.files()), len(got))
	}
	b.service.pace.perSecond = 1e6
	if done, _ := b.replays(replay{From: new(time.Time), Topic: events.TopicReplay}); len(done.OrderIDs) != orders || done.Events != 2*orders {
		t.Errorf("replayed %d orders, %d events", len(done.OrderIDs), done.Events)
	}
	asked := b.Calls("GetBulkState")
	b.archives()
	if reads := b.Calls("GetBulkState") - asked; reads > 1 {
		t.Errorf("a run with nothing to do read %d times", reads)
	}
}

// A crash after the file was written leaves the orders in the store, and the next
// run makes the same file; a crash while orders are made to point to it leaves some
// of them, and the next run puts those into a file of their own.
func TestACrashWhileArchiving(t *testing.T) {
	inBothModes(t, func(t *testing.T, b *bench) {
		placed := []order.Order{b.place(), b.place()}
		var lines []line
		for _, o := range placed {
			b.complete(o)
			l := line{OrderID: o.OrderID}
			if err := json.Unmarshal(b.State(orderKey(o.OrderID)), &l.document); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, l)
		}
		b.afterAWhile()
		store := b.service.orders
		places, err := store.archive.write(lines)
		if err != nil {
			t.Fatal(err)
		}
		again, err := store.archive.write(lines)
		if err != nil || !slices.Equal(again, places) || len(b.files()) != 1 {
			t.Errorf("the same orders again: %v, files %v", err, b.files())
		}
		if err := store.pointTo(t.Context(), lines[:1], places[:1]); err != nil {
			t.Fatal(err)
		}
		if a := b.archives(); a.Archived != 1 || len(b.files()) != 2 {
			t.Errorf("%+v, files %v", a, b.files())
		}
		for _, o := range placed {
			if got, err := store.Find(t.Context(), o.OrderID); err != nil || got.Status != order.Completed {
				t.Errorf("%+v, %v", got, err)
			}
		}
		// Whoever was slow points nothing elsewhere.
		stub := b.State(orderKey(placed[1].OrderID))
		if err := store.pointTo(t.Context(), lines, places); err != nil || !bytes.Equal(b.State(orderKey(placed[1].OrderID)), stub) {
			t.Errorf("%v, %s was %s", err, b.State(orderKey(placed[1].OrderID)), stub)
		}
	})
}

func TestAnArchiveThatIsNotThere(t *testing.T) {
	b := start(t, daprtest.RedisLike)
	o := b.place()
	b.complete(o)
	b.afterAWhile()
	dir := b.service.orders.archive.dir

	b.service.orders.archive.dir = ""
	if a := b.admin("/admin/archive", `{"olderThan":"1h"}`); a.Status != http.StatusConflict || !strings.Contains(string(a.Body), "ARCHIVE_DIR") {
		t.Errorf("without a directory: %d %s", a.Status, a.Body)
	}
	b.service.orders.archive.dir = filepath.Join(dir, "none")
	if a := b.admin("/admin/archive", `{"olderThan":"1h"}`); a.Status != http.StatusServiceUnavailable {
		t.Errorf("a directory that does not exist: %d %s", a.Status, a.Body)
	}
	b.service.orders.archive.dir = dir
	file := b.archives().File
	if err := os.Rename(filepath.Join(dir, file), filepath.Join(t.TempDir(), file)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/orders/" + o.OrderID, "/orders/" + o.OrderID + "/events"} {
		if a := b.send("GET", path, ""); a.Status != http.StatusGone || !strings.Contains(string(a.Body), file) {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	if a := b.send("GET", "/orders", ""); a.Status != http.StatusOK || strings.Contains(string(a.Body), o.OrderID) {
		t.Errorf("listing: %d %s", a.Status, a.Body)
	}
	if v := b.deliver(events.InventoryReserved{Reservation: reservation(o)}); v != "SUCCESS" {
		t.Errorf("an answer that comes late: %s", v)
	}
	if done, _ := b.replays(replay{From: new(time.Time)}); done.Events != 0 || !slices.Equal(done.Missing, []string{o.OrderID}) {
		t.Errorf("replayed %+v", done)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte("not gzip"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.service.orders.Find(t.Context(), o.OrderID); err == nil || errors.Is(err, errAway) {
		t.Errorf("a broken file: %v", err)
	}
}
