package process

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Env reads a service's configuration from its environment. Reading declares:
// what was read is what --help lists. It collects what is wrong, so that all of
// it is told at once.
type Env struct {
	get  func(string) string
	vars []variable
	errs []error
}

type variable struct{ name, fallback, about string }

// NewEnv reads from get, os.Getenv outside of tests.
func NewEnv(get func(string) string) *Env { return &Env{get: get} }

// String is the variable's value, or fallback where it is not set.
func (e *Env) String(name, fallback, about string) string {
	e.vars = append(e.vars, variable{name, fallback, about})
	if v := e.get(name); v != "" {
		return v
	}
	return fallback
}

// Port is a TCP port, from 1 to 65535.
func (e *Env) Port(name, fallback, about string) string {
	v := e.String(name, fallback, about)
	if n, err := strconv.Atoi(v); err != nil || n < 1 || n > 65535 {
		e.fail(name, v, "a TCP port, from 1 to 65535")
	}
	return v
}

// HostPort is a network address, host:port.
func (e *Env) HostPort(name, fallback, about string) string {
	v := e.String(name, fallback, about)
	if _, _, err := net.SplitHostPort(v); err != nil {
		e.fail(name, v, "host:port")
	}
	return v
}

// Duration is a positive length of time such as 30s or 15m.
func (e *Env) Duration(name string, fallback time.Duration, about string) time.Duration {
	v := e.String(name, fallback.String(), about)
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		e.fail(name, v, "a positive duration such as 30s or 15m")
	}
	return d
}

// Check records that the variable's value is refused, and why, if err is not nil.
func (e *Env) Check(name string, err error) {
	if err != nil {
		e.errs = append(e.errs, fmt.Errorf("%s: %w", name, err))
	}
}

func (e *Env) fail(name, value, want string) {
	if value == "" {
		e.errs = append(e.errs, fmt.Errorf("%s is not set: it must be %s", name, want))
		return
	}
	e.errs = append(e.errs, fmt.Errorf("%s is %q: it must be %s", name, value, want))
}

// Err is everything that is wrong, or nil.
func (e *Env) Err() error { return errors.Join(e.errs...) }

func (e *Env) usage(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, v := range e.vars {
		about := v.about
		if v.fallback != "" {
			about += " (default " + v.fallback + ")"
		}
		fmt.Fprintf(t, "  %s\t%s\n", v.name, about)
	}
	_ = t.Flush()
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
