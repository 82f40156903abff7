package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/test/system"
)

// patience is how long a trial waits for the last order to have all its effects,
// to tell late from never also on a machine that is busy with other things.
const patience = 2 * time.Minute

// run runs one trial and returns what is wrong after it.
func (t *trial) run(tb testing.TB, f fault, row *result) (complaints []string) {
	ctx, cancel := context.WithTimeout(tb.Context(), 8*time.Minute)
	defer cancel()
	if err := t.stock(ctx); err != nil {
		tb.Fatalf("trial %s: %v", t.name, err)
	}
	if err := t.broker.mark(ctx); err != nil {
		tb.Fatalf("trial %s: %v", t.name, err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { t.load(ctx, stop) })
	watching, done := context.WithCancel(ctx)
	defer done()
	go t.watch(watching)

	begin := time.Now()
	moment := between(t.rnd, 100*time.Millisecond, loadFor-500*time.Millisecond)
	time.Sleep(moment)
	over := make(chan error, 1)
	go func() { over <- f.inject(ctx, t) }()
	var err error
	select {
	case err = <-over:
		t.cleared = time.Now()
		time.Sleep(time.Until(begin.Add(loadFor)))
		close(stop)
	case <-time.After(time.Until(begin.Add(maxLoad))):
		close(stop)
		err = <-over
		t.cleared = time.Now()
	}
	if err != nil {
		complaints = append(complaints, fmt.Sprintf("the fault could not be brought about: %v", err))
	}
	all.Wait() // each order is accepted
	for deadline := t.cleared.Add(patience); time.Now().Before(deadline) && len(t.unsettled()) > 0; {
		time.Sleep(50 * time.Millisecond)
	}
	done()

	t.mu.Lock()
	complaints = append(complaints, t.troubles...)
	t.mu.Unlock()
	recovery := t.recovery()
	if recovery > *maxRecovery {
		complaints = append(complaints, fmt.Sprintf("%d of %d orders are not settled; the last one took %s after the fault", len(t.unsettled()), len(t.placed), recovery.Round(100*time.Millisecond)))
	}
	c, err := t.count(ctx)
	if err != nil {
		complaints = append(complaints, fmt.Sprintf("can't be counted: %v", err))
	}
	if len(t.placed) == 0 {
		complaints = append(complaints, "no order was placed")
	}
	row.Trials++
	row.Recovery = append(row.Recovery, recovery.Seconds())
	return append(complaints, c.complaints...)
}

// counts are what is there after a trial.
type counts struct {
	completed, cancelled int
	rejected             int // of those cancelled: for want of stock
	lost                 int // accepted, and not there, without an end, or not told of
	oversold             int // units shipped beyond those received
	duplicated           int // orders, ends, notification records or e-mails' ids too many
	complaints           []string
}

func (c *counts) complain(format string, args ...any) {
	c.complaints = append(c.complaints, fmt.Sprintf(format, args...))
}

// count holds what is there against what was accepted.
func (t *trial) count(ctx context.Context) (c counts, err error) {
	shipped := map[string]int64{}
	known := map[string]bool{}
	ended := map[string]string{} // the status of each, by id
	var ids []string
	for key, p := range t.placed {
		known[p.id] = true
		ids = append(ids, p.id)
		var o system.Order
		found, err := find(ctx, t.Order.URL+"/orders/"+url.PathEscape(p.id), &o)
		if err != nil {
			return c, err
		}
		switch {
		case !found:
			c.lost++
			c.complain("order %s (key %s) was accepted and is not there", p.id, key)
			continue
		case !o.Final():
			c.lost++
			c.complain("order %s has not ended: %s", p.id, o.Status)
			continue
		case o.Status == system.Completed:
			c.completed++
			for _, i := range o.Items {
				shipped[i.ID] += int64(i.Quantity)
			}
		default:
			c.cancelled++
			if o.Reason == events.ReasonRejected {
				c.rejected++
			}
		}
		ended[p.id] = o.Status
		if o.Version != 2 {
			c.duplicated++
			c.complain("order %s has %d events, want its begin and its end", p.id, o.Version)
		}
	}
	for chunk := range slices.Chunk(ids, maxAsked) {
		told, err := ask(ctx, t.Notification.URL+"/notifications", "notifications", chunk)
		if err != nil {
			return c, err
		}
		for _, id := range chunk {
			switch n := told[id]; {
			case len(n) > 1:
				c.duplicated++
				c.complain("order %s has %d notification records: %v", id, len(n), n)
			case len(n) == 0 || n[0].Status != "SENT" || n[0].Kind != ended[id]:
				c.lost++
				c.complain("the customer of order %s, which is %s, was not told: %v", id, ended[id], n)
			}
		}
	}
	if err := t.mailed(&c); err != nil {
		return c, err
	}
	for client := range clients {
		if err := t.listed(ctx, fmt.Sprintf("%s-c%d", t.name, client), known, &c); err != nil {
			return c, err
		}
	}
	for i, id := range t.products {
		var p system.Product
		if found, err := find(ctx, t.Inventory.URL+"/products/"+url.PathEscape(id), &p); err != nil || !found {
			return c, fmt.Errorf("product %s: found %t (%v)", id, found, err)
		}
		received := int64(plentyUnits)
		if i == 0 {
			received = hotUnits
		}
		if over := max(p.Shipped, shipped[id]) - received; over > 0 {
			c.oversold += int(over)
		}
		if err := p.Check(); err != nil || p.Received != received || p.Reserved != 0 || p.Shipped != shipped[id] {
			c.complain("product %s does not add up (%v): %+v; received %d, completed orders have %d", id, err, p, received, shipped[id])
		}
	}
	return c, nil
}

// mailed checks that the mail server has an e-mail about each order, and if it has
// several, that they are one by their Message-ID.
func (t *trial) mailed(c *counts) error {
	all, err := t.Inbox()
	if err != nil {
		return err
	}
	ids := map[string]map[string]bool{} // Message-IDs by recipient
	for _, m := range all {
		if ids[m.To] == nil {
			ids[m.To] = map[string]bool{}
		}
		ids[m.To][m.MessageID] = true
	}
	for key, p := range t.placed {
		switch n := len(ids[address(key)]); {
		case n == 0:
			c.lost++
			c.complain("there is no e-mail about order %s", p.id)
		case n > 1:
			c.duplicated++
			c.complain("there are %d e-mails about order %s", n, p.id)
		}
	}
	return nil
}

// listed checks that a customer has the orders that were accepted, and no others.
func (t *trial) listed(ctx context.Context, customer string, known map[string]bool, c *counts) error {
	query := url.Values{"customerId": {customer}, "limit": {"100"}}
	seen := map[string]bool{}
	for {
		var page struct {
			Orders     []system.Order `json:"orders"`
			NextCursor string         `json:"nextCursor"`
		}
		if found, err := find(ctx, t.Order.URL+"/orders?"+query.Encode(), &page); err != nil || !found {
			return fmt.Errorf("list the orders of %s: found %t (%v)", customer, found, err)
		}
		for _, o := range page.Orders {
			if !known[o.OrderID] || seen[o.OrderID] {
				c.duplicated++
				c.complain("customer %s has order %s, listed before %t, which was not accepted or is listed twice", customer, o.OrderID, seen[o.OrderID])
			}
			seen[o.OrderID] = true
		}
		if page.NextCursor == "" {
			break
		}
		query.Set("cursor", page.NextCursor)
	}
	for _, p := range t.placed {
		if p.customer == customer && !seen[p.id] {
			c.lost++
			c.complain("order %s is not in its customer's list", p.id)
		}
	}
	return nil
}

// find reads what is at address, again while the service is not there: the count
// begins when the fault is over and not when all of its traces are.
func find(ctx context.Context, address string, v any) (found bool, err error) {
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		once, cancel := context.WithTimeout(ctx, attempt)
		var a system.Answer
		a, err = system.Send(once, http.MethodGet, address, nil)
		cancel()
		switch {
		case err == nil && a.Status == http.StatusOK:
			return true, json.Unmarshal(a.Body, v)
		case err == nil && a.Status == http.StatusNotFound:
			return false, nil
		case err == nil:
			err = fmt.Errorf("GET %s: %s", address, a)
		}
		if time.Since(begin) > patience || ctx.Err() != nil {
			return false, err
		}
	}
}
