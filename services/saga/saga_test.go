// Package saga tests the three services together, as they are, in one process:
// what they promise holds whatever happens between any two of their steps.
//
// A schedule is a script of moves, chosen by rapid: clients place and cancel
// orders and book receipts; a broker loses, repeats, reorders and delays events;
// the state store and the mail server fail, before or after they have done
// what they were asked; processes are killed at any step and started again; time
// passes. Then all becomes quiet, and what is left must be what was promised.
//
// A schedule that fails is printed, with the seed that brings it back:
//
//	go test ./services/saga -rapid.seed=N
//	go test ./services/saga -rapid.checks=20000    # more schedules
package saga

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"orderflow/internal/daprtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		_ = flag.Set("rapid.checks", "100")
	}
	os.Exit(m.Run())
}

func TestWhateverHappensNothingIsLostAndNothingHappensTwice(t *testing.T) {
	for name, mode := range map[string]daprtest.Mode{"Redis": daprtest.RedisLike, "SQL": daprtest.SQLLike} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := tally{}
			rapid.Check(t, func(t *rapid.T) {
				replicas := rapid.IntRange(1, 2).Draw(t, "replicas of each service")
				var script []move
				for range 16 { // rapid's slices are short, and shrink to nothing
					script = append(script, rapid.SliceOfN(moves, 0, 20).Draw(t, "script")...)
				}
				rapid.SyncTest(t, func(t *rapid.T) {
					s := &schedule{world: newWorld(t, mode, replicas), placed: map[string]*placed{}, receipts: map[string]*receipt{}, status: map[string]string{}}
					s.seen, s.onAck = seen, s.checkAcknowledged
					defer s.end()
					s.stock()
					for _, m := range script {
						s.make(m)
					}
					s.calmDown()
					s.checkAll()
					s.checkReplay()
					s.checkPrices()
					seen["schedules"]++
				})
			})
			t.Log(seen)
		})
	}
}

// tally counts what has happened, to show that it does.
type tally map[string]int

func (c tally) String() string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "\n%8d %s", c[what], what)
	}
	return b.String()
}

// move is a line of a script. What its numbers choose from, there may be fewer
// of: they are taken modulo.
type move struct {
	Kind string
	A, B int
}

// moves has the frequent ones several times, and all of them early: rapid
// prefers what stands first.
var moves = rapid.Custom(func(t *rapid.T) move {
	return move{
		Kind: rapid.SampledFrom([]string{
			"go on", "deliver", "place", "go on", "crash", "deliver", "cancel", "swallow",
			"go on", "deliver", "leave unconfirmed", "sweep", "go on", "wait", "deliver", "place again",
			"go on", "deliver", "place", "refuse", "go on", "crash", "deliver and keep", "deliver once more",
			"go on", "deliver", "go on", "wait long", "receive", "receive again", "reprice", "swallow",
		}).Draw(t, "kind"),
		A: rapid.IntRange(0, 63).Draw(t, "a"),
		B: rapid.IntRange(0, 15).Draw(t, "b"),
	}
})

type item struct {
	ID       string `json:"id"`
	Quantity int    `json:"quantity"`
}

// placed is an order as its customer knows it.
type placed struct {
	key      string
	items    []item
	customer string
	id       string // once there was an answer
	answer   string // the first
	withdrew bool   // cancelling it was answered well
	late     bool   // cancelling it was refused: it was completed
}

// receipt is stock as it was booked in.
type receipt struct {
	product  string
	quantity int
	accepted bool
}

// schedule is a world with its customers.
type schedule struct {
	*world
	placed   map[string]*placed  // by idempotency key
	receipts map[string]*receipt // by idempotency key
	status   map[string]string   // of each order, as last seen
}

var products = []string{"p0", "p1", "p2"}

// stock describes the products and books some in, while nothing goes wrong.
func (s *schedule) stock() {
	for i, id := range products {
		s.see("inventory", http.MethodPut, "/products/"+id, product(id, 100*(i+1)), nil)
		s.book(fmt.Sprintf("seed-%s", id), id, 4, s.direct["inventory"])
	}
	s.settle()
	clear(s.broker.queues) // PRICE_UPDATED: nobody knows an older price
	s.broker.past = nil
}

func product(id string, price int) map[string]any {
	return map[string]any{"name": "Product " + id, "price": map[string]any{"amount": price, "currency": "EUR"}, "lowStockThreshold": 1}
}

// see asks a service, past all that can go wrong, and reads the answer into v.
func (s *schedule) see(app, method, path string, body, v any) {
	s.mu.Unlock()
	answer := s.direct[app].request(context.Background(), method, path, nil, body)
	s.mu.Lock()
	if answer.Code/100 != 2 {
		s.t.Fatalf("%s %s of %s: %d %s", method, path, app, answer.Code, answer.Body)
	}
	if v != nil {
		if err := json.Unmarshal(answer.Body.Bytes(), v); err != nil {
			s.t.Fatalf("%s %s of %s: %v", method, path, app, err)
		}
	}
}

// make makes a move, if there is anything to make it with.
func (s *schedule) make(m move) {
	s.choice = m.B
	pick := func(app string) *instance { return s.replicas[app][m.B%len(s.replicas[app])] }
	switch m.Kind {
	case "go on":
		for i := 0; i <= m.B && len(s.steps) > 0; i++ {
			next := s.steps[m.A%len(s.steps)]
			s.advance(next, m.A%len(next.parts), done)
		}
	case "refuse", "leave unconfirmed", "swallow":
		o := map[string]outcome{"refuse": refused, "leave unconfirmed": unconfirmed, "swallow": swallowed}[m.Kind]
		var steps []*step
		for _, each := range s.steps {
			if o == refused || o == unconfirmed && each.kind != reading || each.kind == publishing {
				steps = append(steps, each)
			}
		}
		if len(steps) > 0 {
			s.advance(steps[m.A%len(steps)], 0, o)
		}
	case "crash":
		app := apps[m.A%len(apps)]
		s.crash(app, m.B%len(s.replicas[app]), m.A/len(apps)%2 == 0)
	case "wait":
		s.sleep(time.Duration(50+m.A*m.B*4) * time.Millisecond)
	case "wait long":
		s.sleep(time.Duration(5+m.A) * time.Second)
	case "deliver", "deliver and keep":
		var to []string
		for _, app := range apps {
			if len(s.broker.queues[app]) > 0 {
				to = append(to, app)
			}
		}
		if len(to) > 0 {
			app := to[m.A%len(to)]
			s.deliver(app, s.broker.queues[app][m.A/3%len(s.broker.queues[app])], pick(app), m.Kind != "deliver")
		}
	case "deliver once more":
		if n := len(s.broker.past); n > 0 {
			again := s.broker.past[m.A%n]
			s.broker.post(again)
			s.logf("the broker will deliver %s once more", again.id)
		}
	case "sweep":
		in := pick("order")
		s.run(in, "sweeps", func(ctx context.Context) { _ = in.sweep(ctx) }, func(bool) {})
	case "place":
		p := &placed{key: fmt.Sprintf("key-%d", len(s.placed)), customer: fmt.Sprintf("c%d", m.A%2)}
		p.items = []item{{products[m.A%3], 1 + m.A/3%3}}
		if m.A >= 32 {
			p.items = append(p.items, item{products[(m.A+1)%3], 1 + m.A/9%2})
		}
		s.placed[p.key] = p
		s.place(p, pick("order"))
	case "place again":
		if len(s.placed) > 0 {
			s.place(s.placed[fmt.Sprintf("key-%d", m.A%len(s.placed))], pick("order"))
		}
	case "cancel":
		if len(s.placed) > 0 {
			s.cancel(s.placed[fmt.Sprintf("key-%d", m.A%len(s.placed))], pick("order"))
		}
	case "receive":
		s.book(fmt.Sprintf("receipt-%d", len(s.receipts)), products[m.A%3], 1+m.A/3%3, pick("inventory"))
	case "receive again":
		key := fmt.Sprintf("receipt-%d", m.A%len(s.receipts))
		if r := s.receipts[key]; r != nil {
			s.book(key, r.product, r.quantity, pick("inventory"))
		}
	case "reprice":
		id := products[m.A%3]
		s.call(pick("inventory"), http.MethodPut, "/products/"+id, nil, product(id, 50+m.A), func(status int, answer []byte) {
			if status/100 != 2 {
				s.checkRefusal(status, answer)
				s.spoilt = append(s.spoilt, id+":?:PRICE_UPDATED")
			}
		})
	default:
		panic(m.Kind)
	}
	s.settle()
	s.checkTouched()
}

func (s *schedule) advance(next *step, part int, o outcome) {
	s.take(next, part, o)
	s.settle()
	s.checkTouched()
}

func (s *schedule) sleep(d time.Duration) {
	s.wait(d)
	s.logf("%s have passed", d)
	s.settle()
}

func (s *schedule) place(p *placed, in *instance) {
	header := map[string]string{"Idempotency-Key": p.key}
	body := map[string]any{"customerId": p.customer, "email": "ada@example.org", "items": p.items}
	s.call(in, http.MethodPost, "/orders", header, body, func(status int, answer []byte) {
		if status/100 != 2 {
			s.checkRefusal(status, answer)
			return
		}
		if p.answer == "" {
			var o struct{ OrderID string }
			if err := json.Unmarshal(answer, &o); err != nil || o.OrderID == "" {
				s.t.Fatalf("%s is placed as %s", p.key, answer)
			}
			p.id, p.answer = o.OrderID, string(answer)
		}
		if p.answer != string(answer) {
			s.t.Fatalf("%s is answered with\n%s\nand again with\n%s", p.key, p.answer, answer)
		}
	})
}

func (s *schedule) cancel(p *placed, in *instance) {
	if p.id == "" {
		return
	}
	s.call(in, http.MethodPost, "/orders/"+p.id+"/cancel", nil, nil, func(status int, answer []byte) {
		switch {
		case status == http.StatusOK:
			p.withdrew = true
		case status == http.StatusConflict && strings.Contains(string(answer), "order-completed"):
			p.late = true
		default:
			s.checkRefusal(status, answer)
		}
	})
}

func (s *schedule) book(key, product string, quantity int, in *instance) {
	if s.receipts[key] == nil {
		s.receipts[key] = &receipt{product: product, quantity: quantity}
	}
	s.call(in, http.MethodPost, "/products/"+product+"/receipts", map[string]string{"Idempotency-Key": key}, map[string]any{"quantity": quantity}, func(status int, answer []byte) {
		if status/100 == 2 {
			s.receipts[key].accepted = true
			return
		}
		s.checkRefusal(status, answer)
	})
}

// checkRefusal lets a service say that it can't for now, and nothing else.
func (s *schedule) checkRefusal(status int, answer []byte) {
	if status != 0 && status != http.StatusServiceUnavailable {
		s.t.Fatalf("answered %d %s", status, answer)
	}
}

// settledBy is how many sweeps it may take after the last failure until
// everything is settled: one tells each order's last event, which lets it end and
// have its effects; one may be another's whose lease has to end; one sees the
// effects.
const settledBy = 6

// calmDown has nothing go wrong any more and time pass, until nothing is left to do.
func (s *schedule) calmDown() {
	s.logf("nothing goes wrong any more")
	s.work()
	for i := range settledBy {
		s.choice = i
		s.sleep(9 * time.Second)
		for _, in := range s.replicas["order"] {
			s.run(in, "sweeps", func(ctx context.Context) {
				if err := in.sweep(ctx); err != nil {
					s.t.Errorf("sweep: %v", err)
				}
			}, func(bool) {})
			s.work()
		}
	}
	for _, o := range s.orders() {
		if o.Status != "COMPLETED" && o.Status != "CANCELLED" {
			s.t.Errorf("order %s is %s", o.OrderID, o.Status)
		}
	}
	// Index entries of requests that died before their order was written.
	s.sleep(11 * time.Minute)
	for _, in := range s.replicas["order"] {
		s.run(in, "sweeps", func(ctx context.Context) { _ = in.sweep(ctx) }, func(bool) {})
		s.work()
	}
	value, _ := s.stores["order"].Get("sweep")
	var sweep struct{ Open []json.RawMessage }
	if err := json.Unmarshal(value, &sweep); value != nil && err != nil {
		s.t.Errorf("sweep is %q: %v", value, err)
	}
	for _, open := range sweep.Open {
		s.t.Errorf("still open: %s", open)
	}
}

// work does everything that is to be done, until there is nothing.
func (s *schedule) work() {
	for rounds := 0; ; rounds++ {
		if rounds > 5000 {
			s.t.Fatalf("it does not end: %d steps wait, queues %v", len(s.steps), s.broker.queues)
		}
		s.settle()
		switch {
		case len(s.steps) > 0:
			s.advance(s.steps[0], 0, done)
		case s.deliverAll():
		case s.busy() > 0:
			s.sleep(200 * time.Millisecond) // something pauses
		default:
			return
		}
	}
}
