// Package flow tries the whole system from outside: real services, sidecars,
// broker and store, spoken to over HTTP. BROKER and STATE choose broker and
// store, as they do for make.
package flow

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"orderflow/test/cases"
	"orderflow/test/system"
)

// numbers are what was measured, printed after everything else.
var numbers []string

func TestMain(m *testing.M) {
	code := m.Run()
	if len(numbers) > 0 {
		fmt.Println("measured: " + strings.Join(numbers, "; "))
	}
	os.Exit(code)
}

func options() system.Options {
	return system.Options{Broker: os.Getenv("BROKER"), State: os.Getenv("STATE")}
}

// flow is the running system with what the tests share. Every test has products
// and customers of its own.
type flow struct{ *system.Shop }

func TestFlow(t *testing.T) {
	o := options()
	o.Env = append(o.Env, "ARCHIVE_DIR="+t.TempDir())
	f := &flow{system.NewShop(system.Start(t, o))}
	for _, test := range []struct {
		name string
		run  func(*flow, *testing.T)
	}{
		{"an order is completed, shipped and told of", shared(cases.Completes)},
		{"an idle system takes an order to its e-mail in time", (*flow).latency},
		{"services are small", (*flow).memory},
		{"an order that stock does not suffice for is cancelled", shared(cases.Rejects)},
		{"low stock is told to the operator", (*flow).lowStock},
		{"a client may wait for the end", (*flow).waits},
		{"one key of 20 clients is one order", shared(cases.OneKey)},
		{"50 clients share the last 10 units", shared(cases.LastUnits)},
		{"cancelling right after placing ends well either way", shared(cases.Cancels)},
		{"callers who leave do no harm", (*flow).leaves},
		{"an event that comes again has no second effect", (*flow).redelivers},
		{"prices are followed, and fixed at placing", (*flow).prices},
		{"sidecars and event routes want their tokens", (*flow).tokens},
		{"orders are listed", (*flow).lists},
		{"what can't be meant is refused", (*flow).refuses},
		{"an order of 999 lines goes through", shared(cases.Large)},
		{"what can't be handled is kept, mended and sent again", (*flow).deadLetters},
		{"a replay has no effect", (*flow).replays},
		{"timelines that were dropped come back by a replay", (*flow).drops},
		{"the ledgers equal the counts", (*flow).audits},
		{"everything adds up", (*flow).addsUp},
		{"orders are archived", (*flow).archives},
		{"timelines are rebuilt, from the archive too", (*flow).rebuilds},
		{"everything adds up from the archive", (*flow).addsUp},
		{"the demo comes out as it should", (*flow).demo},
		{"logs hold no e-mail address", (*flow).logs},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(f, t) })
	}
}

// shared is a case of those that every combination of broker and store is held
// against, too (test/conformance).
func shared(run func(*testing.T, *system.Shop)) func(*flow, *testing.T) {
	return func(f *flow, t *testing.T) { run(t, f.Shop) }
}
