package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"orderflow/events"
	"orderflow/test/system"
)

// replay has every event of the trial delivered once more, then these and the
// copies again.
func replay(ctx context.Context, t *trial) error {
	for range 2 {
		if err := t.broker.again(ctx, t); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
	}
	return nil
}

// retold has order and inventory tell their events of the trial's orders again,
// under the ids of before.
func retold(ctx context.Context, t *trial) error {
	for _, address := range []string{t.Order.URL, t.Inventory.URL} {
		for ids := range slices.Chunk(t.ids(), 500) {
			a, err := system.Send(ctx, http.MethodPost, address+"/admin/replay", map[string]any{"orderIds": ids}, t.appToken())
			if err == nil && a.Status != http.StatusOK {
				err = fmt.Errorf("%s: %s", address, a)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// maxReordered bounds the orders whose events come once more: what is measured is
// not how long a queue is.
const maxReordered = 40

// reorder has events arrive in a sequence that is not theirs. While nothing gets
// from the sidecars to the services, it places orders, takes some back, and hands
// the services what will be told of them in random order: a cancellation before the
// creation, an end before its begin. Then the delayed originals arrive; and all
// those of many orders of the trial once more, shuffled, under ids that no broker
// knows.
func reorder(ctx context.Context, t *trial) error {
	var held []*link
	for _, s := range services {
		l, err := t.network.between(toService(t, s))
		if err != nil {
			return err
		}
		held = append(held, l)
	}
	heal := sync.OnceFunc(func() {
		for _, l := range held {
			l.heal()
		}
	})
	defer heal()
	for _, l := range held {
		if err := l.poison(holds, up, down); err != nil {
			return err
		}
	}
	var early []events.Event
	for n := range 12 {
		customer := fmt.Sprintf("%s-c%d", t.name, n%clients)
		key := fmt.Sprintf("%s-reordered-%d", t.name, n)
		p := system.Placement{CustomerID: customer, Email: address(key),
			Items: []events.Item{{ID: t.products[t.rnd.IntN(len(t.products))], Quantity: 1 + t.rnd.IntN(2)}}}
		id := t.place(ctx, customer, key, p, 1)
		if id == "" {
			return fmt.Errorf("order %s was not accepted", key)
		}
		if n%3 > 0 {
			t.cancel(ctx, t.rnd, id)
		}
		history, err := t.history(ctx, id)
		if err != nil {
			return err
		}
		early = append(early, history...)
	}
	shuffle(t.rnd, early)
	for _, e := range early {
		for _, s := range []system.Service{t.Inventory, t.Notification} {
			if err := t.deliver(ctx, s, e); err != nil {
				return err
			}
		}
	}
	heal()

	ids := t.ids()
	t.rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	var all []events.Event
	for _, id := range ids[:min(len(ids), maxReordered)] {
		history, err := t.history(ctx, id)
		if err != nil {
			return err
		}
		all = append(all, history...)
	}
	shuffle(t.rnd, all)
	for _, e := range all {
		e.ID += ":reordered"
		a, err := system.Send(ctx, http.MethodPost, t.Order.Sidecar+"/v1.0/publish/"+e.Topic()+"/"+e.Topic(), e,
			system.With("Content-Type", events.ContentType), t.SidecarToken())
		if err == nil && a.Status/100 != 2 {
			err = fmt.Errorf("publish %s: %s", e.ID, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func shuffle(rnd *rand.Rand, all []events.Event) {
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
}

// history are an order's own events, the oldest first.
func (t *trial) history(ctx context.Context, id string) ([]events.Event, error) {
	var page struct {
		Events []events.Event `json:"events"`
	}
	found, err := find(ctx, t.Order.URL+"/orders/"+url.PathEscape(id)+"/events", &page)
	if err == nil && !found {
		err = fmt.Errorf("order %s is not there", id)
	}
	return page.Events, err
}

// deliver gives an event to a service as its sidecar would, until it takes it.
func (t *trial) deliver(ctx context.Context, to system.Service, e events.Event) error {
	for begin := time.Now(); ; {
		once, cancel := context.WithTimeout(ctx, attempt)
		a, err := system.Send(once, http.MethodPost, to.URL+"/events/"+e.Topic(), e, system.With("Content-Type", events.ContentType), t.appToken())
		cancel()
		var verdict struct {
			Status string `json:"status"`
		}
		if err == nil {
			err = json.Unmarshal(a.Body, &verdict)
		}
		if err == nil && verdict.Status == "SUCCESS" {
			return nil
		}
		if time.Since(begin) > 10*time.Second || ctx.Err() != nil {
			return fmt.Errorf("event %s to %s: %s (%w)", e.ID, to.ID, a, err)
		}
		if err := t.pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func (t *trial) appToken() system.Header { return system.With("dapr-api-token", t.AppToken) }

// ids are the orders that were accepted so far.
func (t *trial) ids() (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.placed {
		ids = append(ids, p.id)
	}
	slices.Sort(ids)
	return ids
}

// storm has many clients send the same requests at once.
func storm(ctx context.Context, t *trial) error {
	var all sync.WaitGroup
	for n := range 20 {
		customer := fmt.Sprintf("%s-c%d", t.name, n%clients)
		key := fmt.Sprintf("%s-storm-%d", customer, n)
		p := system.Placement{CustomerID: customer, Email: address(key), Items: []events.Item{{ID: t.products[0], Quantity: 1}, {ID: t.products[1], Quantity: 1}}}
		all.Go(func() { t.place(ctx, customer, key, p, 20) })
	}
	all.Wait()
	return nil
}
