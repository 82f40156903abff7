package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"orderflow/events"
	"orderflow/test/system"
)

const (
	clients = 8
	// loadFor is how long orders are placed at least, and maxLoad at most where the
	// fault lasts longer.
	loadFor, maxLoad = 2500 * time.Millisecond, 8 * time.Second
	// think is the longest pause of a client between two orders: together they place
	// about 20 a second, so that four systems fit on a small machine. More would
	// measure how long a queue is, and not how long a fault lasts.
	think = 800 * time.Millisecond
	// attempt bounds one request; giveUp is when a client no longer repeats it,
	// which nothing here should make it do.
	attempt, giveUp = 3 * time.Second, 2 * time.Minute

	hotUnits    = 15 // of the one product that all want and few get
	plentyUnits = 100_000
	maxAsked    = 100 // orders that a service tells about in one answer
)

// trial is one fault under one load.
type trial struct {
	*campaigner
	name     string       // of its products, customers and keys, like no other trial's
	rnd      *rand.Rand   // of the fault
	clients  []*rand.Rand // of each client; apart, since they run side by side
	products []string     // the first is the hot one
	cleared  time.Time

	mu       sync.Mutex
	placed   map[string]*placed // by key
	troubles []string           // of the clients
}

// placed is an order that was accepted.
type placed struct {
	id       string
	customer string
	accepted time.Time
	settled  time.Time // when it was seen to have all its effects
}

func newTrial(c *campaigner, seed uint64, fault string, n int) *trial {
	draw := func(who string) *rand.Rand {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %d %s", fault, n, who)
		return rand.New(rand.NewPCG(seed, h.Sum64()))
	}
	t := &trial{campaigner: c, name: fmt.Sprintf("t%d", n), rnd: draw("fault"), placed: map[string]*placed{}}
	for i := range clients {
		t.clients = append(t.clients, draw(fmt.Sprintf("client %d", i)))
	}
	for _, p := range []string{"hot", "a", "b", "c"} {
		t.products = append(t.products, t.name+"-"+p)
	}
	return t
}

// address is where the e-mail about the order of a key goes.
func address(key string) string { return key + "@customers.example" }

func (t *trial) trouble(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.troubles = append(t.troubles, fmt.Sprintf(format, args...))
}

// between draws a duration.
func between(rnd *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rnd.Int64N(int64(most-least)))
}

// stock puts the products on the shelf, before the load begins.
func (t *trial) stock(ctx context.Context) error {
	for i, id := range t.products {
		units := plentyUnits
		if i == 0 {
			units = hotUnits
		}
		if err := t.Describe(ctx, id, system.Description{Name: id, Price: events.Money{Amount: 100, Currency: "EUR"}}); err != nil {
			return err
		}
		if err := t.Receive(ctx, id, units); err != nil {
			return err
		}
	}
	return nil
}

// load places orders until stop is closed, and returns when each of them was
// accepted.
func (t *trial) load(ctx context.Context, stop <-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	var all sync.WaitGroup
	for c, rnd := range t.clients {
		customer := fmt.Sprintf("%s-c%d", t.name, c)
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(between(rnd, 0, think)):
				}
				t.order(ctx, rnd, customer, fmt.Sprintf("%s-%d", customer, n))
			}
		})
	}
	all.Wait()
}

// order places one order, and once in a while takes it back.
func (t *trial) order(ctx context.Context, rnd *rand.Rand, customer, key string) {
	p := system.Placement{CustomerID: customer, Email: address(key)}
	for _, i := range rnd.Perm(len(t.products))[:1+rnd.IntN(2)] {
		p.Items = append(p.Items, events.Item{ID: t.products[i], Quantity: 1 + rnd.IntN(3)})
	}
	// Some are impatient and send the same request several times at once.
	copies := 1
	if rnd.IntN(8) == 0 {
		copies = 2 + rnd.IntN(4)
	}
	takeBack := rnd.IntN(10) == 0
	id := t.place(ctx, customer, key, p, copies)
	if id != "" && takeBack {
		t.cancel(ctx, rnd, id)
	}
}

// place sends an order, copies times at once and each until it is accepted, and
// returns its id.
func (t *trial) place(ctx context.Context, customer, key string, p system.Placement, copies int) string {
	ids := make([]string, copies)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() { ids[i] = t.placeOnce(ctx, customer, key, p) })
	}
	all.Wait()
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) > 1 && ids[0] != "" {
		t.trouble("key %s became the orders %v", key, ids)
	}
	return ids[0]
}

func (t *trial) placeOnce(ctx context.Context, customer, key string, p system.Placement) string {
	o, err := t.PlaceSurely(ctx, key, p)
	if err != nil {
		t.trouble("order %s: %v", key, err)
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.placed[key] == nil {
		t.placed[key] = &placed{id: o.OrderID, customer: customer, accepted: time.Now()}
	}
	return o.OrderID
}

// cancel takes an order back, until the service says yes or no.
func (t *trial) cancel(ctx context.Context, rnd *rand.Rand, id string) {
	pause := between(rnd, 0, 30*time.Millisecond) // drawn once, however often it is asked
	for ctx.Err() == nil {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		once, cancel := context.WithTimeout(ctx, attempt)
		a, err := t.Cancel(once, id)
		cancel()
		switch {
		case err == nil && (a.Status/100 == 2 || a.Status == http.StatusConflict):
			return
		case err == nil && a.Status/100 == 4:
			t.trouble("cancelling %s: %s", id, a)
			return
		}
	}
}

// watch notes when orders have all their effects, until ctx ends. It does not mind
// services that do not answer.
func (t *trial) watch(ctx context.Context) {
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
		open := t.unsettled()
		for chunk := range slices.Chunk(open, maxAsked) {
			ids := make([]string, len(chunk))
			for i, o := range chunk {
				ids[i] = o.id
			}
			once, cancel := context.WithTimeout(ctx, attempt)
			held, heldErr := ask(once, t.Inventory.URL+"/reservations", "reservations", ids)
			told, toldErr := ask(once, t.Notification.URL+"/notifications", "notifications", ids)
			cancel()
			if heldErr != nil || toldErr != nil {
				break
			}
			now := time.Now()
			t.mu.Lock()
			for _, o := range chunk {
				stock, mail := held[o.id], told[o.id]
				if len(stock) == 1 && stock[0].Status != "RESERVED" && !stock[0].GivingBack && len(mail) > 0 && mail[0].Status != "PENDING" {
					o.settled = now
				}
			}
			t.mu.Unlock()
		}
	}
}

// effect is what another service has on record about an order.
type effect struct {
	OrderID    string `json:"orderId"`
	Kind       string `json:"kind"`
	Status     string `json:"status"`
	GivingBack bool   `json:"givingBack"`
}

// ask asks a service about orders, at most maxAsked.
func ask(ctx context.Context, address, name string, ids []string) (map[string][]effect, error) {
	a, err := system.Send(ctx, http.MethodGet, address+"?"+url.Values{"orderId": ids}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	var answer map[string][]effect
	if err := json.Unmarshal(a.Body, &answer); a.Status != http.StatusOK || err != nil {
		return nil, fmt.Errorf("GET %s: %s (%v)", address, a, err)
	}
	byOrder := map[string][]effect{}
	for _, e := range answer[name] {
		byOrder[e.OrderID] = append(byOrder[e.OrderID], e)
	}
	return byOrder, nil
}

func (t *trial) unsettled() []*placed {
	t.mu.Lock()
	defer t.mu.Unlock()
	var open []*placed
	for _, o := range t.placed {
		if o.settled.IsZero() {
			open = append(open, o)
		}
	}
	return open
}

// recovery is the longest that an order took to have all its effects, from the
// end of the fault or from when it was accepted, if that was later.
func (t *trial) recovery() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	var longest time.Duration
	for _, o := range t.placed {
		from, to := t.cleared, o.settled
		if o.accepted.After(from) {
			from = o.accepted
		}
		if to.IsZero() {
			to = time.Now()
		}
		longest = max(longest, to.Sub(from))
	}
	return longest
}
