package conformance

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"orderflow/test/cases"
	"orderflow/test/system"
)

// ordersPerSecond is how many orders went from POST to e-mail in a second while
// the crowd was there.
const ordersPerSecond = "orders per second"

// crowd has 32 clients place 1,000 orders, as fast as they are answered.
func (s *shop) crowd(t *testing.T) {
	const clients, orders = 32, 1000
	a, b := s.Shelve(t, "crowd-a", 100, 10*orders), s.Shelve(t, "crowd-b", 250, orders/4)
	begin := time.Now()
	placed := s.burst(t, "crowd", clients, orders, func(i int) system.Placement {
		if i%3 == 0 {
			return s.Placement(system.Item(a, 1+i%4), system.Item(b, 1)) // some of b's will go without
		}
		return s.Placement(system.Item(a, 1+i%4))
	})
	s.settled(t, placed)
	combination.measured(t, ordersPerSecond, orders/time.Since(begin).Seconds())
	for _, id := range []string{a, b} {
		s.released(t, id)
	}
}

// restarts ends each service in the middle of its work, with its sidecar and
// without, and has it started again.
func (s *shop) restarts(t *testing.T) {
	for _, service := range []string{"order", "inventory", "notification"} {
		for _, trouble := range []struct {
			name  string
			sig   syscall.Signal
			names []string
		}{
			{"killed", syscall.SIGKILL, []string{service}},
			{"killed with sidecar", syscall.SIGKILL, []string{service, system.SidecarOf(service)}},
			{"ended", syscall.SIGTERM, []string{service}},
		} {
			t.Run(service+" "+trouble.name, func(t *testing.T) {
				s.midflight(t, service+"-"+trouble.name, func() error {
					return s.Restart(t.Context(), trouble.sig, time.Second, trouble.names...)
				})
			})
		}
	}
}

// brokerRestarts kills the broker in the middle of its work and starts it again on
// the same data.
func (s *shop) brokerRestarts(t *testing.T) {
	s.midflight(t, "broker", func() error { return s.RestartBroker(t.Context(), time.Second) })
}

// midflight brings trouble about when a third of the orders are placed, and wants all
// of them, and others after them, to come to their end.
func (s *shop) midflight(t *testing.T, name string, trouble func() error) {
	t.Helper()
	s.Killed()
	const orders = 150
	id := s.Shelve(t, "midflight-"+strings.ReplaceAll(name, " ", "-"), 100, 1000)
	begun, over := make(chan struct{}), make(chan error, 1)
	var placing atomic.Int32
	p := func(int) system.Placement {
		if placing.Add(1) == orders/3 {
			close(begun)
		}
		return s.Placement(system.Item(id, 1))
	}
	go func() {
		<-begun
		over <- trouble()
	}()
	placed := s.burst(t, name, 8, orders, p)
	if err := <-over; err != nil {
		t.Fatalf("the trouble could not be brought about: %v", err)
	}
	after := s.burst(t, name+"-after", 8, 16, func(int) system.Placement { return s.Placement(system.Item(id, 1)) })
	s.settled(t, append(placed, after...))
}

// burst places orders, and returns their ids when each was accepted.
func (s *shop) burst(t *testing.T, name string, clients, orders int, p func(i int) system.Placement) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ids, errs := make([]string, orders), make([]error, clients)
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := c; i < orders; i += clients {
				o, err := s.PlaceSurely(ctx, fmt.Sprintf("%s-%d", name, i), p(i))
				if err != nil {
					errs[c] = err
					return
				}
				ids[i] = o.OrderID
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// settled waits until each of the orders has ended and its customer was told, for as
// long as there are fewer and fewer of which that is not so.
func (s *shop) settled(t *testing.T, ids []string) {
	t.Helper()
	for open := ids; len(open) > 0; {
		before := len(open)
		system.Eventually(t, fmt.Sprintf("of %d orders that have not ended or were not told of there are fewer", before), func() (bool, string) {
			left, err := s.Untold(t.Context(), open)
			if err == nil {
				open = left
			}
			return len(open) < before, fmt.Sprintf("as many (%v)", err)
		})
	}
}

// released waits until nothing of the product is held any more, for as long as it is
// less and less.
func (s *shop) released(t *testing.T, id string) {
	t.Helper()
	for held := s.Product(t, id).Reserved; held > 0; {
		before := held
		system.Eventually(t, fmt.Sprintf("less than %d of %s are held", before, id), func() (bool, string) {
			held = s.Product(t, id).Reserved
			return held < before, "as many"
		})
	}
}

// comesLate has a subscriber, with its sidecar, come into the world only after
// events for it were published.
func comesLate(t *testing.T) {
	o := options()
	o.Late = []string{"notification"}
	s := &shop{system.NewShop(system.Start(t, o))}
	id := s.Shelve(t, "late", 100, 10)
	before := []system.Order{
		s.Ended(t, s.MustPlace(t, s.Placement(system.Item(id, 2))).OrderID),
		s.Ended(t, s.MustPlace(t, s.Placement(system.Item(id, 20))).OrderID),
	}
	if mails := s.AllMails(t); len(mails) != 0 {
		t.Fatalf("somebody was told: %+v", mails)
	}
	if err := s.Release("notification"); err != nil {
		t.Fatal(err)
	}
	system.Eventually(t, "notification is there", func() (bool, string) {
		a, err := system.Send(t.Context(), http.MethodGet, s.Notification.URL+"/healthz/ready", nil)
		return err == nil && a.Status/100 == 2, fmt.Sprintf("%s (%v)", a, err)
	})
	for _, o := range append(before, s.Ended(t, s.MustPlace(t, s.Placement(system.Item(id, 1))).OrderID)) {
		s.TheMail(t, o)
	}
	s.AddsUp(t)
}

// inSequence is of how many orders of a hundred console saw the events in the
// sequence in which they were said.
const inSequence = "orders in sequence of 100"

// sequence places orders that are taken back at once, so that two events of an
// order follow each other closely. Whatever sequence they arrive in, each order
// comes to its end; in how many it was the right one is a property of the broker.
func (s *shop) sequence(t *testing.T) {
	const orders = 100
	id := s.Shelve(t, "sequence", 100, orders)
	ids := s.burst(t, "sequence", 10, orders, func(int) system.Placement { return s.Placement(system.Item(id, 1)) })
	cases.AtOnce(t, orders, func(i int) error {
		a, err := s.Cancel(t.Context(), ids[i])
		if err == nil && a.Status != http.StatusOK && a.Status != http.StatusConflict {
			err = fmt.Errorf("cancel: %s", a)
		}
		return err
	})
	s.settled(t, ids)
	right := 0
	for _, orderID := range ids {
		var came []int // of order's own events, by their times
		system.Eventually(t, "console has both events of "+orderID, func() (bool, string) {
			a, err := system.Send(t.Context(), http.MethodGet, s.Console.URL+"/orders/"+orderID+"/timeline", nil)
			if err != nil || a.Status != http.StatusOK {
				return false, fmt.Sprintf("%s (%v)", a, err)
			}
			var line struct {
				Events []struct {
					Source string
					Came   int
				}
			}
			a.Read(t, &line)
			came = nil
			for _, e := range line.Events {
				if e.Source == "order" {
					came = append(came, e.Came)
				}
			}
			return len(came) == 2, string(a.Body)
		})
		if came[0] < came[1] {
			right++
		}
	}
	combination.measured(t, inSequence, float64(right))
}

// addsUp holds what all cases before have left against the system's promises.
func (s *shop) addsUp(t *testing.T) { t.Logf("%d orders", s.AddsUp(t)) }
