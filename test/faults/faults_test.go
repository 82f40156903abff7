// Package faults breaks the running system at random moments, while orders are
// being placed, and then counts, over HTTP, whether the promises of the system
// still hold. README.md and docs/reliability.md say which; `make faults` runs it.
package faults

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"orderflow/test/system"
)

var (
	trials = flag.Int("trials", 20, "trials of each fault")
	seed   = flag.Uint64("seed", 0, "what the moments and the orders are drawn from (default: a new one)")
	only   = flag.String("faults", "", "comma-separated names of faults, or of groups of them (default: all)")
	// What is promised is 15 s, on a machine that has nothing else to do.
	maxRecovery = flag.Duration("recovery", 15*time.Second, "time from the end of a fault until the last order must have all its effects")

	out = flag.String("results", "results", "directory for the results as JSON")
)

var campaign report

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64N(1 << 32)
	}
	campaign = newReport(cmp.Or(os.Getenv("BROKER"), "nats"), cmp.Or(os.Getenv("STATE"), "sqlite"), *seed)
	code := m.Run()
	campaign.print(os.Stdout)
	if err := campaign.save(*out); err != nil {
		fmt.Fprintln(os.Stderr, "the results are not saved:", err)
		code = 1
	}
	os.Exit(code)
}

// TestFaults runs each fault on a system of its own, so that what one leaves
// behind is not taken for another's.
func TestFaults(t *testing.T) {
	chosen, err := choose(*only)
	if err != nil {
		t.Fatal(err)
	}
	campaign.progress("seed %d, broker %s, state %s", *seed, campaign.Broker, campaign.State)
	for _, f := range chosen {
		if why := f.impossible(campaign.Broker, campaign.State); why != "" {
			campaign.progress("%s: not here: %s", f.name, why)
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			run(t, f, min(*trials, cmp.Or(f.most, *trials)))
		})
	}
}

// choose finds faults by their names or groups, separated by commas; all of them
// if there are none.
func choose(names string) ([]fault, error) {
	if names == "" {
		return faults, nil
	}
	var chosen []fault
	for name := range strings.SplitSeq(names, ",") {
		before := len(chosen)
		for _, f := range faults {
			if f.name == name || slices.Contains(f.groups, name) {
				chosen = append(chosen, f)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("there is no fault and no group of faults named %q", name)
		}
	}
	return chosen, nil
}

// run is all trials of one fault.
func run(t *testing.T, f fault, trials int) {
	row := &result{Fault: f.name}
	defer func() { campaign.add(row) }()
	c := &campaigner{
		System: system.Start(t, system.Options{
			Broker:  campaign.Broker,
			State:   campaign.State,
			Keep:    true,
			Proxies: true,
			Env:     []string{"LOG_LEVEL=WARN"},
		}),
	}
	var err error
	if c.broker, err = dial(c.System); err != nil {
		t.Fatal(err)
	}
	defer c.broker.close()
	for n := range trials {
		if t.Failed() && row.Failed >= maxFailed {
			campaign.progress("%s: given up after %d failed trials", f.name, row.Failed)
			break
		}
		tr := newTrial(c, *seed, f.name, n)
		complaints := tr.run(t, f, row)
		verdict := "ok"
		if len(complaints) > 0 {
			row.Failed++
			verdict = "FAILED"
			for _, complaint := range complaints {
				t.Errorf("trial %d: %s", n, complaint)
			}
		}
		campaign.progress("%-28s %2d/%d  %s: %d orders, settled %.1f s after the fault", f.name, n+1, trials, verdict, len(tr.placed), tr.recovery().Seconds())
		for _, complaint := range complaints {
			campaign.progress("    %s", complaint)
		}
	}
	for _, complaint := range c.end(row) {
		t.Error(complaint)
		campaign.progress("    %s", complaint)
	}
}

// maxFailed is how many failed trials tell enough about a fault.
const maxFailed = 5

// campaigner is what the trials of one fault share.
type campaigner struct {
	*system.System
	broker broker
	poison []string // what was sent that nobody can handle: a part of each that no other message has
}

// end checks what can only be seen after the last trial, when all that is to be
// delivered again was: that the broker owes nobody anything, and that among the
// dead letters there is the poison and nothing else.
func (c *campaigner) end(row *result) (complaints []string) {
	deadline := time.Now().Add(pendingTimeout)
	for {
		pending, err := c.broker.pending()
		if err == nil && pending == "" {
			break
		}
		if time.Now().After(deadline) {
			complaints = append(complaints, fmt.Sprintf("%s after the last trial, deliveries are pending: %s (%v)", pendingTimeout, pending, err))
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	dead, err := c.broker.deadLetters()
	if err != nil {
		return append(complaints, fmt.Sprintf("the dead letters can't be read: %v", err))
	}
	row.DeadLetters = len(dead)
	found := map[string]bool{}
	for _, letter := range dead {
		i := slices.IndexFunc(c.poison, func(p string) bool { return strings.Contains(letter, p) })
		if i < 0 {
			complaints = append(complaints, fmt.Sprintf("a dead letter that is no poison: %.1000s", letter))
			continue
		}
		found[c.poison[i]] = true
	}
	for _, p := range c.poison {
		if !found[p] {
			complaints = append(complaints, "poison that is not among the dead letters: "+p)
		}
	}
	return complaints
}

// pendingTimeout is above the longest time after which a broker delivers again
// what was not acknowledged (ackWait, processingTimeout: components/broker).
const pendingTimeout = 60 * time.Second
