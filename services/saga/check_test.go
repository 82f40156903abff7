package saga

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"orderflow/events"
)

type money struct {
	Amount   int64
	Currency string
}

// orderBody is an order as the service shows it.
type orderBody struct {
	OrderID    string
	CustomerID string
	Status     string
	Reason     string
	Total      money
	Items      []struct {
		item
		UnitPrice money
	}
}

type productBody struct {
	ID                                     string
	Received, Available, Reserved, Shipped int64
}

type movement struct {
	Seq                int
	Kind               string
	Quantity           int64
	OrderID, ReceiptID string
}

// checkTouched holds what has just been written against what must be true at
// every moment.
func (s *schedule) checkTouched() {
	written := s.touched
	s.touched = nil
	for _, t := range written {
		if value, _ := s.stores[t.app].Get(t.key); value == nil {
			continue // the write was refused
		}
		if id, ok := strings.CutPrefix(t.key, "product-"); ok && t.app == "inventory" {
			var p productBody
			s.see("inventory", http.MethodGet, "/products/"+id, nil, &p)
			s.checkCounts(p)
		}
		if id, ok := strings.CutPrefix(t.key, "order-"); ok && t.app == "order" {
			var o orderBody
			s.see("order", http.MethodGet, "/orders/"+id, nil, &o)
			s.checkStatus(o)
		}
	}
}

// checkAcknowledged checks that an event which a service says it is done with has
// had its effect there.
func (s *schedule) checkAcknowledged(app string, m message) {
	e, err := events.Parse(m.body)
	if err != nil {
		s.t.Fatal(err)
	}
	var effects []string // one of them must be there
	found := ""
	switch {
	case app == "inventory" && e.Type == events.TypeOrderCreated:
		found, effects = s.reservation(e.Subject), []string{"RESERVED", "REJECTED", "SHIPPED", "RELEASED", "CANCELLED"}
	case app == "inventory" && e.Type == events.TypeOrderCompleted:
		found, effects = s.reservation(e.Subject), []string{"SHIPPED"}
	case app == "inventory" && e.Type == events.TypeOrderCancelled:
		found, effects = s.reservation(e.Subject), []string{"REJECTED", "RELEASED", "CANCELLED"}
	case app == "order" && (e.Type == events.TypeInventoryReserved || e.Type == events.TypeInventoryRejected):
		var o orderBody
		s.see("order", http.MethodGet, "/orders/"+e.Subject, nil, &o)
		found, effects = o.Status, []string{"COMPLETED", "CANCELLED"}
	case app == "notification" && (e.Type == events.TypeOrderCompleted || e.Type == events.TypeOrderCancelled):
		for _, n := range s.notifications(e.Subject) {
			if "ORDER_"+n.Kind == e.Type {
				found = n.Status
			}
		}
		effects = []string{"SENT"}
	default:
		return
	}
	if !slices.Contains(effects, found) {
		s.t.Fatalf("%s has acknowledged %s, and there it is %q, want one of %q", app, m.id, found, effects)
	}
}

type notificationBody struct{ Kind, Status, MessageID string }

// notifications are the records about an order.
func (s *schedule) notifications(orderID string) []notificationBody {
	var told struct{ Notifications []notificationBody }
	s.see("notification", http.MethodGet, "/notifications?orderId="+orderID, nil, &told)
	return told.Notifications
}

func (s *schedule) checkCounts(p productBody) {
	if p.Received != p.Available+p.Reserved+p.Shipped || p.Available < 0 || p.Reserved < 0 || p.Shipped < 0 {
		s.t.Fatalf("counts of %s: %+v", p.ID, p)
	}
}

func (s *schedule) checkStatus(o orderBody) {
	before := s.status[o.OrderID]
	s.status[o.OrderID] = o.Status
	if before != "" && before != "PENDING" && before != o.Status {
		s.t.Fatalf("order %s was %s and is %s", o.OrderID, before, o.Status)
	}
	if before == "PENDING" && o.Status == "COMPLETED" {
		if r := s.reservation(o.OrderID); r != "RESERVED" && r != "SHIPPED" {
			s.t.Fatalf("order %s is completed, its stock is %q", o.OrderID, r)
		}
	}
}

// reservation is the status of what inventory holds for an order, or "".
func (s *schedule) reservation(orderID string) string {
	var answer struct{ Reservations []struct{ Status string } }
	s.see("inventory", http.MethodGet, "/reservations?orderId="+orderID, nil, &answer)
	if len(answer.Reservations) == 0 {
		return ""
	}
	return answer.Reservations[0].Status
}

// orders are all orders that the service lists.
func (s *schedule) orders() []orderBody {
	var all []orderBody
	cursor := ""
	for {
		var page struct {
			Orders     []orderBody
			NextCursor string
		}
		s.see("order", http.MethodGet, "/orders?limit=100"+cursor, nil, &page)
		all = append(all, page.Orders...)
		if page.NextCursor == "" {
			return all
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

func (s *schedule) ledger(product string) []movement {
	var all []movement
	cursor := ""
	for {
		var page struct {
			Movements  []movement
			NextCursor string
		}
		s.see("inventory", http.MethodGet, "/products/"+product+"/ledger?limit=100"+cursor, nil, &page)
		all = append(all, page.Movements...)
		if page.NextCursor == "" {
			return all
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

// checkAll holds what is left in the end against what was promised.
func (s *schedule) checkAll() {
	orders := map[string]orderBody{}
	for _, o := range s.orders() {
		if _, twice := orders[o.OrderID]; twice {
			s.t.Errorf("order %s is listed twice", o.OrderID)
		}
		orders[o.OrderID] = o
		s.seen[strings.TrimSpace("orders "+o.Status+" "+o.Reason)]++
		s.checkEnd(o)
		s.checkNotification(o)
	}
	for key, p := range s.placed {
		if p.id == "" {
			continue // nobody promised anything
		}
		o, ok := orders[p.id]
		if !ok {
			s.t.Errorf("order %s of %s was accepted and is LOST", p.id, key)
			continue
		}
		if len(o.Items) != len(p.items) || o.CustomerID != p.customer {
			s.t.Errorf("order %s of %s is %+v", p.id, key, o)
		}
		if p.withdrew && o.Status != "CANCELLED" || p.late && o.Status != "COMPLETED" || p.withdrew && p.late {
			s.t.Errorf("order %s is %s; cancelling it succeeded: %v, was too late: %v", p.id, o.Status, p.withdrew, p.late)
		}
	}
	s.checkStock(orders)
	if len(s.broker.dead) > 0 {
		s.t.Errorf("dead letters, and nothing was poison: %q", s.broker.dead)
	}
}

// checkEnd checks that an order came to one end, and that its record at
// inventory and its total go with it.
func (s *schedule) checkEnd(o orderBody) {
	var history struct{ Events []struct{ Type string } }
	s.see("order", http.MethodGet, "/orders/"+o.OrderID+"/events", nil, &history)
	if len(history.Events) != 2 || history.Events[0].Type != "ORDER_CREATED" || history.Events[1].Type != "ORDER_"+o.Status {
		s.t.Errorf("order %s is %s by %v", o.OrderID, o.Status, history.Events)
	}
	var total int64
	for _, l := range o.Items {
		total += l.UnitPrice.Amount * int64(l.Quantity)
	}
	if total != o.Total.Amount {
		s.t.Errorf("order %s: the total is %d, the items add up to %d", o.OrderID, o.Total.Amount, total)
	}
	r := s.reservation(o.OrderID)
	ok := false
	switch {
	case o.Status == "COMPLETED":
		ok = r == "SHIPPED"
	case o.Reason == "REJECTED":
		ok = r == "REJECTED"
	default:
		ok = r == "RELEASED" || r == "CANCELLED" || r == "REJECTED"
	}
	if !ok {
		s.t.Errorf("order %s is %s %s, its stock is %q", o.OrderID, o.Status, o.Reason, r)
	}
}

// checkNotification checks that the customer was told once how the order ended.
func (s *schedule) checkNotification(o orderBody) {
	told := s.notifications(o.OrderID)
	if len(told) != 1 || told[0].Kind != o.Status || told[0].Status != "SENT" {
		s.t.Errorf("order %s is %s; notifications: %+v", o.OrderID, o.Status, told)
		return
	}
	var about []string // Message-IDs of e-mails about this order
	for id := range s.mails {
		if strings.Contains(id, o.OrderID) {
			about = append(about, id)
		}
	}
	if len(about) != 1 || about[0] != told[0].MessageID {
		s.t.Errorf("order %s: e-mails %v, the record says %s", o.OrderID, about, told[0].MessageID)
		return
	}
	if s.mails[about[0]] > 1 {
		s.seen["orders with more than one e-mail, by the same Message-ID"]++
	}
}

// checkStock checks that the ledger, the counts, the receipts and the orders
// agree to the unit.
func (s *schedule) checkStock(orders map[string]orderBody) {
	type line struct{ order, product string }
	held, shipped := map[line]int64{}, map[line]int64{}
	counted := map[string]int{}
	for _, id := range products {
		var p productBody
		s.see("inventory", http.MethodGet, "/products/"+id, nil, &p)
		s.checkCounts(p)
		if p.Reserved != 0 {
			s.t.Errorf("%d of %s are still held", p.Reserved, id)
		}
		sum := productBody{ID: id}
		for _, m := range s.ledger(id) {
			l := line{m.OrderID, id}
			switch m.Kind {
			case "received":
				counted[m.ReceiptID]++
				sum.Received += m.Quantity
				sum.Available += m.Quantity
			case "reserved":
				held[l] += m.Quantity
				sum.Available -= m.Quantity
				sum.Reserved += m.Quantity
			case "released":
				held[l] -= m.Quantity
				sum.Reserved -= m.Quantity
				sum.Available += m.Quantity
			case "shipped":
				held[l] -= m.Quantity
				shipped[l] += m.Quantity
				sum.Reserved -= m.Quantity
				sum.Shipped += m.Quantity
			default:
				s.t.Errorf("movement of %s: %+v", id, m)
			}
		}
		if sum != p {
			s.t.Errorf("the ledger adds up to %+v, the product says %+v", sum, p)
		}
	}
	for key, r := range s.receipts {
		if counted[key] > 1 || r.accepted && counted[key] != 1 {
			s.t.Errorf("receipt %s (accepted: %v) was counted %d times", key, r.accepted, counted[key])
		}
	}
	for l, n := range held {
		if n != 0 {
			s.t.Errorf("%d of %s are held for %s", n, l.product, l.order)
		}
	}
	for _, o := range orders {
		if o.Status != "COMPLETED" {
			continue
		}
		for _, it := range o.Items {
			l := line{o.OrderID, it.ID}
			if shipped[l] != int64(it.Quantity) {
				s.t.Errorf("%d of %s left for the completed order %s, want %d", shipped[l], it.ID, o.OrderID, it.Quantity)
			}
			delete(shipped, l)
		}
	}
	for l, n := range shipped {
		s.t.Errorf("%d of %s left for %q, which is not complete", n, l.product, l.order)
	}
}

// snapshot is what clients can see, and the e-mails to customers. Those about low
// stock are left out: a notice that was lost is given again when the order that
// it came from is created again.
func (s *schedule) snapshot() string {
	var b strings.Builder
	for _, o := range s.orders() {
		fmt.Fprintf(&b, "%+v\n", o)
	}
	for _, id := range products {
		fmt.Fprintf(&b, "%+v\n", s.ledger(id))
	}
	for _, id := range slices.Sorted(maps.Keys(s.mails)) {
		if !strings.Contains(id, "-STOCK_LOW-") {
			fmt.Fprintf(&b, "%s %d\n", id, s.mails[id])
		}
	}
	return b.String()
}

// checkReplay has every event come once more. Nothing may follow from it.
func (s *schedule) checkReplay() {
	before := s.snapshot()
	s.logf("every event comes once more")
	for _, m := range slices.Clone(s.broker.past) {
		s.broker.post(m)
	}
	s.work()
	if after := s.snapshot(); after != before {
		s.t.Errorf("a replay has changed\n%s\nto\n%s", before, after)
	}
}

// checkPrices orders each product once more, to see that its price is
// inventory's. A bare notification that was lost is not told again.
func (s *schedule) checkPrices() {
	for _, id := range products {
		if slices.ContainsFunc(s.spoilt, func(step string) bool {
			return strings.Contains(step, id+":") && strings.Contains(step, ":PRICE_UPDATED")
		}) {
			continue
		}
		var p struct{ Price money }
		s.see("inventory", http.MethodGet, "/products/"+id, nil, &p)
		var o orderBody
		s.see("order", http.MethodPost, "/orders", map[string]any{"customerId": "c0", "email": "ada@example.org", "items": []item{{id, 1}}}, &o)
		if o.Total != p.Price {
			s.t.Errorf("%s costs %v, and %v in an order", id, p.Price, o.Total)
		}
	}
}
