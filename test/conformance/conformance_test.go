// Package conformance tells whether a broker and a store, with the services on
// them, keep the system's promises: real services, sidecars, broker and store,
// spoken to over HTTP and through the sidecars only. BROKER and STATE choose the
// combination; no case knows which it is, and none knows what a service is
// written in.
package conformance

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"orderflow/test/cases"
	"orderflow/test/system"
)

var (
	quick = flag.Bool("quick", false, "leave out the cases that take long: the crowd and the restarts")
	doc   = flag.String("table", "", "write the table of all reports in -results into this `document`, and run nothing")
	out   = flag.String("results", "", "`directory` for the outcome as JSON (default: none is written)")
)

// combination is what this run is about, and what came of it.
var combination report

func TestMain(m *testing.M) {
	flag.Parse()
	if *doc != "" {
		if err := writeTable(*out, *doc); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	combination = report{
		Broker: cmp.Or(os.Getenv("BROKER"), "nats"),
		State:  cmp.Or(os.Getenv("STATE"), "sqlite"),
		Begun:  time.Now().UTC(),
	}
	code := m.Run()
	combination.print(os.Stdout)
	if *out != "" && !*quick {
		if err := combination.save(*out); err != nil {
			fmt.Fprintln(os.Stderr, "the outcome is not saved:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// A conformance case is tried on a running system.
type conformanceCase struct {
	name string // as it stands in the table
	slow bool
	run  func(*shop, *testing.T)
}

var all = []conformanceCase{
	{"happy flow", false, shared(cases.Completes)},
	{"rejection", false, shared(cases.Rejects)},
	{"cancel", false, shared(cases.Cancels)},
	{"one key, many clients", false, shared(cases.OneKey)},
	{"the last units", false, shared(cases.LastUnits)},
	{"duplicates", false, shared(cases.Duplicates)},
	{"out of order", false, shared(cases.OutOfOrder)},
	{"names and ids", false, shared(cases.Names)},
	{"200 KiB order", false, shared(cases.Large)},
	{"poison, dead letters, redrive", false, shared(cases.DeadLetters)},
	{"replay", false, shared(cases.Replays)},
	{"order of events", false, (*shop).sequence},
	{"1,000 orders, 32 clients", true, (*shop).crowd},
	{"restart of each service", true, (*shop).restarts},
	{"restart of the broker", true, (*shop).brokerRestarts},
	{"everything adds up", false, (*shop).addsUp},
}

// shared is a case that other tests take too.
func shared(run func(*testing.T, *system.Shop)) func(*shop, *testing.T) {
	return func(s *shop, t *testing.T) { run(t, s.Shop) }
}

// lateSubscriber has a system of its own: there, a service has never been.
const lateSubscriber = "late subscriber"

// shop is the system that the cases share.
type shop struct{ *system.Shop }

func TestConformance(t *testing.T) {
	t.Run(lateSubscriber, func(t *testing.T) { combination.record(t, lateSubscriber, comesLate) })
	s := &shop{system.NewShop(system.Start(t, options()))}
	for _, c := range all {
		if c.slow && *quick {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			combination.record(t, c.name, func(t *testing.T) { c.run(s, t) })
		})
	}
}

// options are those of every system here. Whoever dies is started again.
func options() system.Options {
	return system.Options{Broker: combination.Broker, State: combination.State, Keep: true, Env: []string{"LOG_LEVEL=WARN"}}
}
