package flow

import (
	"cmp"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"orderflow/test/system"
)

// idleFor is how long nothing happens before an order is placed into an idle system:
// longer than anything is put off to work off together.
const idleFor = 100 * time.Millisecond

// latency places orders one after the other, each into an idle system, and
// measures from the request to the e-mail in the sink.
func (f *flow) latency(t *testing.T) {
	const orders = 50
	id := f.Shelve(t, "latency", 100, orders)
	took := make([]time.Duration, orders)
	for i := range took {
		p := f.Placement(system.Item(id, 1))
		begin := time.Now()
		o := f.MustPlace(t, p)
		f.awaitMail(t, p.Email)
		took[i] = time.Since(begin)
		f.Notified(t, o.OrderID)
		f.Counted(t, id, int64(orders-i-1), 0, int64(i+1))
		system.Eventually(t, "console has the order's three events", func() (bool, string) {
			n := len(f.Moments(t, o.OrderID))
			return n == 3, fmt.Sprint(n)
		})
		time.Sleep(idleFor)
	}
	slices.Sort(took)
	numbers = append(numbers, fmt.Sprintf("from POST to e-mail, idle: p50 %d ms, p95 %d ms (%d orders)",
		took[orders/2].Milliseconds(), took[orders*95/100].Milliseconds(), orders))
	t.Log(numbers[len(numbers)-1])
}

// awaitMail waits for an e-mail to the address, and looks more often than others
// do, to see when it came.
func (f *flow) awaitMail(t *testing.T, to string) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	timeout := time.After(system.WaitTimeout)
	for len(f.Mails(t, to)) == 0 {
		select {
		case <-poll.C:
		case <-timeout:
			t.Fatalf("no e-mail after %s", system.WaitTimeout)
		}
	}
}

// addsUp holds what all tests before have left against the system's promises.
func (f *flow) addsUp(t *testing.T) {
	orders := f.AddsUp(t)
	if orders < 100 {
		t.Errorf("only %d orders are listed", orders)
	}
	t.Logf("%d orders, %d e-mails", orders, len(f.AllMails(t)))
}

// demo runs what `make demo` runs.
func (f *flow) demo(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), filepath.Join(system.Root(t), "bin", "demo"), "-status", f.StatusFile).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"ORDER_CREATED", "INVENTORY_RESERVED", "ORDER_COMPLETED", "REJECTED", "CUSTOMER", f.MailURL + "/view/"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not show %s:\n%s", want, out)
		}
	}
}

func (f *flow) memory(t *testing.T) {
	const limit = 40 // MiB
	var each []string
	for _, s := range f.Services() {
		size, err := system.ResidentBytes(s.PID)
		if err != nil {
			t.Fatal(err)
		}
		mib := float64(size) / (1 << 20)
		if mib >= limit {
			t.Errorf("%s holds %.1f MiB, want less than %d", s.ID, mib, limit)
		}
		sidecar, err := system.ResidentBytes(s.SidecarPID)
		if err != nil {
			t.Fatal(err)
		}
		each = append(each, fmt.Sprintf("%s %.0f MiB (its sidecar %.0f)", s.ID, mib, float64(sidecar)/(1<<20)))
	}
	numbers = append([]string{
		fmt.Sprintf("broker %s, state %s, %d CPUs", cmp.Or(options().Broker, "nats"), cmp.Or(options().State, "sqlite"), runtime.NumCPU()),
		fmt.Sprintf("ready in %.1f s", f.ReadyIn.Seconds()),
	}, append(numbers, "resident: "+strings.Join(each, ", "))...)
	t.Log(numbers[len(numbers)-1])
}

func (f *flow) logs(t *testing.T) {
	noAddress(t, f.System)
}

// noAddress checks that no log of any process holds an address of a customer or
// the operator, and that each process has a log to look through.
func noAddress(t *testing.T, s *system.System) {
	t.Helper()
	logs := s.Logs(t)
	for _, name := range []string{"order", "inventory", "notification", "console", "logs/order-daprd.log", "logs/inventory-daprd.log", "logs/notification-daprd.log", "logs/console-daprd.log"} {
		if logs[name] == "" {
			t.Errorf("%s has no log", name)
		}
	}
	for name, text := range logs {
		for line := range strings.Lines(text) {
			if strings.Contains(line, system.Domain) || strings.Contains(line, operator) {
				t.Errorf("%s logs an e-mail address: %s", name, line)
			}
		}
	}
}
