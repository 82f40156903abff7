package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// What there is to order. Of grinders there are never more than two: nobody who
// orders more gets any.
var (
	beans   = product{ID: "demo-beans", Name: "Espresso beans, 1 kg", Price: money{1890, "EUR"}}
	filters = product{ID: "demo-filters", Name: "Paper filters, 100 pieces", Price: money{450, "EUR"}}
	grinder = product{ID: "demo-grinder", Name: "Hand grinder", Price: money{8900, "EUR"}}
)

func seed(ctx context.Context, a *api, out io.Writer) error {
	fmt.Fprintln(out, "Products")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range []struct {
		product
		units int
	}{{beans, 50}, {filters, 50}, {grinder, 2}} {
		p, err := a.stockUp(ctx, s.product, s.units)
		if err != nil {
			return fmt.Errorf("product %s: %w", s.ID, err)
		}
		fmt.Fprintf(table, "   %s\t%s\t%s\t%d available\n", p.ID, p.Name, p.Price, p.Available)
	}
	return table.Flush()
}

// story is one order: how it is placed, and how it has to end.
type story struct {
	title  string
	order  placement
	twice  bool // sent a second time, with the same idempotency key
	cancel bool // taken back by the customer right after it was placed
	ending ending
}

// ending is how an order ends.
type ending struct{ status, reason string }

var (
	completed = ending{"COMPLETED", ""}
	rejected  = ending{"CANCELLED", "REJECTED"}
	withdrawn = ending{"CANCELLED", "CUSTOMER"}
)

var stories = []story{
	{
		title:  "Ada orders beans and filters",
		order:  placement{"ada", "ada@example.com", []item{{beans.ID, 2}, {filters.ID, 1}}},
		ending: completed,
	},
	{
		title:  "Grace sends her order twice, with one Idempotency-Key: it is one order",
		order:  placement{"grace", "grace@example.com", []item{{filters.ID, 3}}},
		twice:  true,
		ending: completed,
	},
	{
		title:  "Edsger orders more grinders than there are: he gets nothing, and no beans are held for him",
		order:  placement{"edsger", "edsger@example.com", []item{{beans.ID, 1}, {grinder.ID, 3}}},
		ending: rejected,
	},
	{
		title:  "Barbara changes her mind: what is held for her is given back",
		order:  placement{"barbara", "barbara@example.com", []item{{beans.ID, 4}}},
		cancel: true,
		ending: withdrawn,
	},
}

// tell places the order, follows it to its e-mail and shows its timeline.
func (s story) tell(ctx context.Context, a *api, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	id, err := s.begin(ctx, a, out)
	if err != nil {
		return err
	}
	t, wrong := s.await(ctx, a, id)
	if len(t.events) > 0 {
		fmt.Fprintf(out, "   order %s, %s: %s\n", id, t.order.Total, t.order.outcome())
		t.print(out, a.mail)
	}
	return wrong
}

// tries bounds how often an order is placed that is to be cancelled: the system
// is sometimes faster than the customer.
const tries = 20

func (s story) begin(ctx context.Context, a *api, out io.Writer) (orderID string, err error) {
	for range tries {
		key := rand.Text()
		o, err := a.place(ctx, s.order, key)
		if err != nil {
			return "", err
		}
		if s.twice {
			again, err := a.place(ctx, s.order, key)
			if err != nil {
				return "", err
			}
			if again.OrderID != o.OrderID {
				return "", fmt.Errorf("the same request with the same key made the orders %s and %s", o.OrderID, again.OrderID)
			}
		}
		if !s.cancel {
			return o.OrderID, nil
		}
		done, err := a.cancel(ctx, o.OrderID)
		if err != nil || done {
			return o.OrderID, err
		}
		fmt.Fprintf(out, "   order %s was completed before she could; she tries with another\n", o.OrderID)
	}
	return "", fmt.Errorf("none of %d orders could be cancelled in time", tries)
}

// await waits until the order's trail is as it has to be in the end. What is
// wrong with it when the time is up is the error.
func (s story) await(ctx context.Context, a *api, id string) (trail, error) {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	var last trail
	wrong := errors.New("nothing could be read")
	for {
		t, err := a.follow(ctx, id)
		if err == nil {
			if last, wrong = t, t.check(s.ending); wrong == nil {
				return t, nil
			}
		} else if ctx.Err() == nil {
			return last, err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return last, fmt.Errorf("after %s %w", patience, wrong)
		}
	}
}

// check says in what the trail differs from one that ends like want.
func (t trail) check(want ending) error {
	if t.order.Status != want.status || t.order.Reason != want.reason {
		return fmt.Errorf("the order is %s, not %s", t.order.outcome(), order{Status: want.status, Reason: want.reason}.outcome())
	}
	for _, it := range t.order.Items {
		units := map[string]int{} // by kind of movement
		for _, m := range t.movements[it.ID] {
			units[m.Kind] += m.Quantity
		}
		held := units["reserved"] - units["released"] - units["shipped"]
		switch {
		case held != 0:
			return fmt.Errorf("%d of %s are still held", held, it.ID)
		case want == completed && units["shipped"] != it.Quantity:
			return fmt.Errorf("%d of %s are shipped, not %d", units["shipped"], it.ID, it.Quantity)
		case want != completed && units["shipped"] != 0:
			return fmt.Errorf("%d of %s are shipped for a cancelled order", units["shipped"], it.ID)
		case want == rejected && units["reserved"] != 0:
			return fmt.Errorf("%d of %s were held for an order that is short of something else", units["reserved"], it.ID)
		}
	}
	if len(t.notifications) != 1 || t.notifications[0].Status != "SENT" || len(t.messages) != 1 {
		return fmt.Errorf("there are %d notifications and %d e-mails, not one of each that is sent", len(t.notifications), len(t.messages))
	}
	return nil
}
