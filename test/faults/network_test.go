package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"orderflow/test/system"
)

// network is what connects the processes of one system: a proxy of toxiproxy's on
// each way from one to another.
type network struct {
	server *toxiproxy.ApiServer // only what its proxies want to know; it serves nothing

	mu    sync.Mutex
	links map[string]*link
	err   error // the first
}

func newNetwork() *network {
	return &network{
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()),
		links:  map[string]*link{},
	}
}

func linkName(from, to string) string { return from + ">" + to }

// connect is system.Options.Link. Console is left out: it only watches.
func (n *network) connect(from, to, address string) string {
	if strings.HasPrefix(from, "console") {
		return address
	}
	proxy := toxiproxy.NewProxy(n.server, linkName(from, to), "127.0.0.1:0", address)
	err := proxy.Start()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil && n.err == nil {
		n.err = fmt.Errorf("proxy from %s to %s: %w", from, to, err)
	}
	n.links[proxy.Name] = &link{proxy: proxy}
	return proxy.Listen
}

// between finds links by their ends.
func (n *network) between(from, to string) (*link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.links[linkName(from, to)]; l != nil && n.err == nil {
		return l, nil
	}
	return nil, fmt.Errorf("there is no link from %s to %s (%v)", from, to, n.err)
}

func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.heal()
		l.proxy.Stop()
	}
}

// link is the way from one process to another, for all their connections.
type link struct {
	proxy *toxiproxy.Proxy
}

// Directions of a link: up is towards the process that is connected to.
const (
	up   = "upstream"
	down = "downstream"
)

// Toxics, with their attributes.
const (
	// loses has what is sent vanish. Nothing is closed before the link is healed: then
	// the connections that lost something are.
	loses = `"type": "timeout", "attributes": {"timeout": 0}`
	// holds keeps what is sent, and carries it on when the link is healed.
	holds = `"type": "latency", "attributes": {"latency": 3600000}`
	// resets breaks connections when something is sent: those opened from now on by a
	// reset, those that are open by an end in the middle of it (toxiproxy makes a
	// connection able to be reset only when it is opened).
	resets = `"type": "reset_peer", "attributes": {"timeout": 0}`
)

// delays has what is sent arrive later.
func delays(by time.Duration) string {
	return fmt.Sprintf(`"type": "latency", "attributes": {"latency": %d, "jitter": %d}`, by.Milliseconds(), by.Milliseconds()/4)
}

// poison puts a toxic on the link, in some directions.
func (l *link) poison(toxic string, directions ...string) error {
	for _, d := range directions {
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"stream": %q, %s}`, d, toxic))); err != nil {
			return fmt.Errorf("link %s: %s: %w", l.proxy.Name, toxic, err)
		}
	}
	return nil
}

// heal takes all toxics away.
func (l *link) heal() { l.proxy.Toxics.ResetToxics(context.Background()) }

// refuse has the link refuse connections, as a server that is down does, until
// accept.
func (l *link) refuse() { l.proxy.Stop() }

func (l *link) accept() error { return l.proxy.Start() }

// Ways are the kinds of links, by what a service or its sidecar reaches over them.
type way func(t *trial, service string) (from, to string)

func toBroker(t *trial, service string) (from, to string) {
	return system.SidecarOf(service), t.Options.Broker
}

func toStore(t *trial, service string) (from, to string) {
	return system.SidecarOf(service), t.Options.State
}

func toSidecar(_ *trial, service string) (from, to string) {
	return service, system.SidecarOf(service)
}

func toService(_ *trial, service string) (from, to string) {
	return system.SidecarOf(service), service
}

func toMail(*trial, string) (from, to string) { return "notification", "mail" }

// some draws whose links the fault is about: of one service in three of four
// trials, else of all.
func (t *trial) some(w way) ([]*link, error) {
	chosen := services
	if n := t.rnd.IntN(4); n < len(services) {
		chosen = services[n : n+1]
	}
	var links []*link
	for _, s := range chosen {
		from, to := w(t, s)
		l, err := t.network.between(from, to)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(links, l) { // there is one to the mail server
			links = append(links, l)
		}
	}
	return links, nil
}

// lasting has toxics on some links of a kind for a while.
func lasting(w way, least, most time.Duration, draw func(*trial) (toxic string, directions []string)) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		links, err := t.some(w)
		if err != nil {
			return err
		}
		toxic, directions := draw(t)
		for _, l := range links {
			if err := l.poison(toxic, directions...); err != nil {
				return err
			}
			defer l.heal()
		}
		return t.pause(ctx, between(t.rnd, least, most))
	}
}

// parted has nothing pass any more, one way or both, without anybody being told;
// afterwards what was sent is lost with its connection, or arrives late.
func parted(w way) func(context.Context, *trial) error {
	return lasting(w, 200*time.Millisecond, 5*time.Second, func(t *trial) (string, []string) {
		toxic := []string{loses, holds}[t.rnd.IntN(2)]
		return toxic, [][]string{{up, down}, {up, down}, {up}, {down}}[t.rnd.IntN(4)]
	})
}

// slow has all that is sent arrive late.
func slow(w way) func(context.Context, *trial) error {
	return lasting(w, time.Second, 4*time.Second, func(t *trial) (string, []string) {
		return delays(between(t.rnd, 5*time.Millisecond, 100*time.Millisecond)), []string{up, down}
	})
}

// broken breaks all connections, time and again, in the middle of a request or of
// an answer.
func broken(w way) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		links, err := t.some(w)
		if err != nil {
			return err
		}
		heal := func() {
			for _, l := range links {
				l.heal()
			}
		}
		defer heal()
		for range 10 {
			for _, l := range links {
				if err := l.poison(resets, []string{up, down}[t.rnd.IntN(2)]); err != nil {
					return err
				}
			}
			err := t.pause(ctx, between(t.rnd, 10*time.Millisecond, 200*time.Millisecond))
			heal()
			if err == nil {
				err = t.pause(ctx, between(t.rnd, 10*time.Millisecond, 200*time.Millisecond))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// mailDown has the mail server refuse connections for a while.
func mailDown(ctx context.Context, t *trial) error {
	l, err := t.network.between(toMail(t, ""))
	if err != nil {
		return err
	}
	l.refuse()
	err = t.pause(ctx, between(t.rnd, 200*time.Millisecond, 5*time.Second))
	return errors.Join(err, l.accept())
}

// pause waits for d, or fails with ctx.
func (t *trial) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
