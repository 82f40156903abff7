package system

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between the processes of a system and a server, on a loopback
// port of its own, and makes trouble when told to. It begins without.
type Proxy struct {
	listener net.Listener

	mu     sync.Mutex
	target string
	mode   trouble
	delay  time.Duration
	conns  map[net.Conn]bool
	change chan struct{} // closed when mode changes
}

type trouble int

const (
	passing trouble = iota
	refusing
	hanging
)

// startProxy starts a proxy that ends with the test. Without a target it refuses
// connections.
func startProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{listener: listener, target: target, conns: map[net.Conn]bool{}, change: make(chan struct{})}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(conn) })
		}
	})
	tb.Cleanup(func() {
		_ = listener.Close()
		p.Refuse()
		serving.Wait()
	})
	return p
}

// Address is where the server seems to be.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

func (p *Proxy) to(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Pass ends all trouble. What Hang held back is carried on.
func (p *Proxy) Pass() { p.set(passing, 0) }

// Refuse closes all connections, and new ones at once: the server is down.
func (p *Proxy) Refuse() {
	p.set(refusing, 0)
	p.Reset()
}

// Hang carries nothing any more and closes nothing either: the network is parted.
func (p *Proxy) Hang() { p.set(hanging, 0) }

// Delay carries everything later by d, in each direction.
func (p *Proxy) Delay(d time.Duration) { p.set(passing, d) }

// Reset closes all connections, without a farewell; new ones are served.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // fails only on a closed one
		}
		_ = conn.Close()
	}
}

func (p *Proxy) set(mode trouble, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode, p.delay = mode, delay
	close(p.change)
	p.change = make(chan struct{})
}

func (p *Proxy) now() (mode trouble, delay time.Duration, change <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode, p.delay, p.change
}

// keep remembers a connection, for Reset, unless the server is down.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == refusing {
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *Proxy) forget(conn net.Conn) {
	p.mu.Lock()
	delete(p.conns, conn)
	p.mu.Unlock()
	_ = conn.Close()
}

func (p *Proxy) serve(client net.Conn) {
	defer p.forget(client)
	if !p.keep(client) {
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return
	}
	defer p.forget(server)
	if !p.keep(server) {
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			p.carry(way[0], way[1])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	both.Wait()
}

func (p *Proxy) carry(from io.Reader, to io.Writer) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		mode, delay, change := p.now()
		for mode == hanging {
			<-change
			mode, delay, change = p.now()
		}
		if delay > 0 {
			time.Sleep(delay)
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
