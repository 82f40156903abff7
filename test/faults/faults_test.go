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
	trials = flag.Int("trials", 20, "trials of each fault, but of those that take minutes three at most")
	seed   = flag.Uint64("seed", 0, "what the moments and the orders are drawn from (default: a new one)")
	only   = flag.String("faults", "", "comma-separated names of faults, or of groups of them (default: all)")
	lanes  = flag.Int("lanes", 2, "faults at the same time, each on a system of its own")
	// What is promised is 15 s, on a machine that has nothing else to do.
	maxRecovery = flag.Duration("recovery", 15*time.Second, "time from the end of a fault until the last order must have all its effects")

	out   = flag.String("results", "results", "directory for the results as JSON")
	table = flag.String("table", "", "run nothing; print one table of the results in these `files`, a pattern (results/*-nats-*.json)")
)

var campaign *report

func TestMain(m *testing.M) {
	flag.Parse()
	if *table != "" {
		if err := printTables(os.Stdout, *table); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if *seed == 0 {
		*seed = rand.Uint64N(1 << 32)
	}
	// The faults are parallel tests; how many of them run is go test's to see to.
	if err := flag.Set("test.parallel", fmt.Sprint(*lanes)); err != nil {
		panic(err)
	}
	campaign = newReport(cmp.Or(os.Getenv("BROKER"), "nats"), cmp.Or(os.Getenv("STATE"), "sqlite"), *seed)
	code := m.Run()
	campaign.print(os.Stdout)
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
	chosen = slices.DeleteFunc(slices.Clone(chosen), func(f fault) bool {
		return f.there != nil && !f.there(campaign.Broker, campaign.State)
	})
	if len(chosen) == 0 {
		t.Fatalf("with this broker and store there is none of the faults %q", *only)
	}
	for _, f := range chosen {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
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
	defer func() {
		if t.Failed() {
			row.Failed = max(row.Failed, 1)
		}
		if err := campaign.add(row, *out); err != nil {
			t.Errorf("the results are not saved: %v", err)
		}
	}()
	c := &campaigner{network: newNetwork()}
	t.Cleanup(c.network.close) // after the system, which ends over it
	c.System = system.Start(t, system.Options{
		Broker: campaign.Broker,
		State:  campaign.State,
		Keep:   true,
		Link:   c.network.connect,
		Env:    []string{"LOG_LEVEL=WARN"},
	})
	var err error
	if c.broker, err = dial(c.System); err != nil {
		t.Fatal(err)
	}
	defer c.broker.close()
	for n := range trials {
		if row.Failed >= maxFailed {
			campaign.progress("%s: given up after %d failed trials", f.name, row.Failed)
			break
		}
		tr := newTrial(c, *seed, f.name, n)
		c.trials = append(c.trials, tr)
		complaints := tr.run(t, f, row)
		verdict := "ok"
		if len(complaints) > 0 {
			row.Failed++
			verdict = "FAILED"
			for _, complaint := range complaints {
				t.Errorf("trial %d: %s", n, complaint)
			}
		}
		campaign.progress("%-29s %2d/%d  %s: %d orders, settled %.1f s after the fault", f.name, n+1, trials, verdict, len(tr.placed), tr.recovery().Seconds())
		for _, complaint := range complaints {
			campaign.progress("%-29s        %s", f.name, complaint)
		}
	}
	for _, complaint := range c.end(t, row) {
		t.Error(complaint)
		campaign.progress("%-29s end: %s", f.name, complaint)
		row.Failed = max(row.Failed, 1)
	}
	if c.refused > 0 {
		campaign.progress("%-29s end: the broker refused %d messages of %d MiB", f.name, c.refused, tooLarge>>20)
	}
}

// maxFailed is how many failed trials tell enough about a fault.
const maxFailed = 5

// campaigner is what the trials of one fault share.
type campaigner struct {
	*system.System
	network *network
	broker  broker
	trials  []*trial
	poison  []dose // what was sent that nobody can handle
	refused int    // of that, what the broker did not take
}

// end checks what can only be seen after the last trial, when all that is to be
// delivered again was: that the broker owes nobody anything, that among the dead
// letters there is the poison and nothing else, and, once more, every trial: this is
// the count that stands in the table.
func (c *campaigner) end(tb testing.TB, row *result) (complaints []string) {
	deadline := time.Now().Add(pendingTimeout)
	var pending string
	var err error
	for {
		pending, err = c.broker.pending(tb.Context())
		letters := c.letters(tb)
		row.DeadLetters = len(letters)
		complaints = compare(letters, c.poison)
		if err == nil && pending == "" && len(complaints) == 0 {
			break
		}
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Second)
	}
	if err != nil || pending != "" {
		complaints = append(complaints, fmt.Sprintf("%s after the last trial, deliveries are pending: %s (%v)", pendingTimeout, pending, err))
	}
	for _, tr := range c.trials {
		counted, err := tr.count(tb.Context())
		if err != nil {
			complaints = append(complaints, fmt.Sprintf("trial %s can't be counted: %v", tr.name, err))
		}
		for _, complaint := range counted.complaints {
			complaints = append(complaints, tr.name+": "+complaint)
		}
		row.take(len(tr.placed), counted)
	}
	if row.Rejected == 0 && row.Trials >= 5 { // in fewer trials that may be chance
		complaints = append(complaints, "there was always enough of everything: nothing could be sold twice")
	}
	return complaints
}

// pendingTimeout is above the longest time after which a broker delivers again
// what was not acknowledged (ackWait, processingTimeout: components/broker).
const pendingTimeout = 60 * time.Second
