package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"

	"orderflow/tools/internal/runfile"
)

// Free ports are taken from below the range that systems give to outgoing
// connections (from 32768 on Linux, 49152 elsewhere), so that no connection can
// take one between the moment it is chosen and the moment it is used; and in
// blocks, of which each belongs to one launcher, so that no other launcher can.
const (
	firstFree, lastFree = 20000, 31999
	blockSize           = 50
)

// portPicker hands out free loopback ports, each once. Until close no other picker
// on this machine hands out the same.
type portPicker struct {
	given  map[int]bool
	guards []net.Listener // each on the first port of a block, which makes it ours
	rest   []int          // of the block that was claimed last
}

func newPortPicker() *portPicker { return &portPicker{given: map[int]bool{}} }

func (p *portPicker) pick() (int, error) {
	for {
		for len(p.rest) > 0 {
			port := p.rest[0]
			p.rest = p.rest[1:]
			if !p.given[port] && isFree(port) {
				p.given[port] = true
				return port, nil
			}
		}
		if err := p.claimBlock(); err != nil {
			return 0, err
		}
	}
}

// claimBlock takes a block that is nobody's.
func (p *portPicker) claimBlock() error {
	for _, block := range rand.Perm((lastFree - firstFree + 1) / blockSize) {
		first := firstFree + block*blockSize
		if p.given[first] {
			continue // the run file has it
		}
		guard, err := net.Listen("tcp", loopback(first))
		if err != nil {
			continue
		}
		p.guards = append(p.guards, guard)
		for port := first + 1; port < first+blockSize; port++ {
			p.rest = append(p.rest, port)
		}
		return nil
	}
	return fmt.Errorf("no free ports between %d and %d", firstFree, lastFree)
}

// close lets go of the blocks.
func (p *portPicker) close() {
	for _, guard := range p.guards {
		guard.Close()
	}
}

// prefer gives port if it is free and may be used, else another.
func (p *portPicker) prefer(port int, fixed bool) (int, error) {
	if fixed && !p.given[port] && isFree(port) {
		p.given[port] = true
		return port, nil
	}
	return p.pick()
}

// assign gives every app its ports: those fixed in the run file, which have to be
// free, and free ones for the rest; free ones throughout if allFree.
func (p *portPicker) assign(apps []runfile.App, allFree bool) error {
	var clashes []error
	for i := range apps {
		for _, each := range apps[i].Ports() {
			if allFree {
				*each.Port = 0
			}
			switch port := *each.Port; {
			case port <= 0:
			case isFree(port):
				p.given[port] = true
			default:
				clashes = append(clashes, fmt.Errorf("port %d (%s of %s) is taken by %s", port, each.Field, apps[i].AppID, portOwner(port)))
			}
		}
	}
	if len(clashes) > 0 {
		return errors.Join(append(clashes, errors.New("stop what uses it, or run with --free-ports"))...)
	}
	for i := range apps {
		for _, each := range apps[i].Ports() {
			if *each.Port > 0 {
				continue
			}
			port, err := p.pick()
			if err != nil {
				return err
			}
			*each.Port = port
		}
	}
	return nil
}

func isFree(port int) bool {
	// All addresses, not only loopback: a server on 0.0.0.0 leaves 127.0.0.1 free
	// on some systems, and would get half of the calls.
	for _, host := range []string{"127.0.0.1", ""} {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		listener.Close()
	}
	return true
}
