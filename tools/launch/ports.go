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
// take one between the moment it is chosen and the moment it is used.
const firstFree, lastFree = 20000, 31999

// portPicker hands out free loopback ports, each once.
type portPicker struct {
	given map[int]bool
}

func (p *portPicker) pick() (int, error) {
	for range 1000 {
		port := firstFree + rand.IntN(lastFree-firstFree+1)
		if !p.given[port] && isFree(port) {
			p.given[port] = true
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d", firstFree, lastFree)
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
