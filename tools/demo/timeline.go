package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// line is one thing that happened.
type line struct {
	at             time.Time
	what, who, how string
}

// published are the events by which inventory tells of a movement.
var published = map[string]string{"reserved": "INVENTORY_RESERVED", "released": "INVENTORY_RELEASED"}

// lines are what happened, in the order of time.
func (t trail) lines(mailURL string) []line {
	var all []line
	for _, e := range t.events {
		l := line{at: e.Time, what: e.Type, who: e.Source}
		if e.Type == "ORDER_CANCELLED" {
			l.how = t.order.why()
		}
		all = append(all, l)
	}
	// The products of an order move together: one line for all of them.
	byKind := map[string]*line{}
	for _, it := range t.order.Items {
		for _, m := range t.movements[it.ID] {
			l := byKind[m.Kind]
			if l == nil {
				l = &line{at: m.At, what: cmp.Or(published[m.Kind], "("+m.Kind+")"), who: "inventory"}
				byKind[m.Kind] = l
			} else {
				l.how += ", "
			}
			l.how += fmt.Sprintf("%d x %s", m.Quantity, it.ID)
		}
	}
	for _, l := range byKind {
		all = append(all, *l)
	}
	for _, m := range t.messages {
		all = append(all, line{at: m.Time, what: "(e-mail)", who: "notification", how: mailURL + "/view/" + m.ID})
	}
	slices.SortStableFunc(all, func(a, b line) int { return a.at.Compare(b.at) })
	return all
}

// print shows the timeline, with times since the order was placed.
func (t trail) print(out io.Writer, mailURL string) {
	rows := t.lines(mailURL)
	widths := [3]int{}
	for _, l := range rows {
		widths[0] = max(widths[0], len(offset(l, rows[0])))
		widths[1] = max(widths[1], len(l.what))
		widths[2] = max(widths[2], len(l.who))
	}
	for _, l := range rows {
		text := fmt.Sprintf("   %*s  %-*s  %-*s  %s", widths[0], offset(l, rows[0]), widths[1], l.what, widths[2], l.who, l.how)
		fmt.Fprintln(out, strings.TrimRight(text, " "))
	}
}

func offset(l, first line) string { return fmt.Sprintf("+%d ms", l.at.Sub(first.at).Milliseconds()) }

// outcome is status and reason.
func (o order) outcome() string {
	if o.Reason == "" {
		return o.Status
	}
	return o.Status + " (" + o.Reason + ")"
}

// why says why the order was cancelled.
func (o order) why() string {
	reasons := []string{o.Reason}
	for _, s := range o.Shortages {
		reasons = append(reasons, fmt.Sprintf("%s: %d ordered, %d available", s.ID, s.Requested, s.Available))
	}
	return strings.Join(reasons, "; ")
}

func (m money) String() string {
	return fmt.Sprintf("%d.%02d %s", m.Amount/100, m.Amount%100, m.Currency)
}
