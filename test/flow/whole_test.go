package flow

import (
	"cmp"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/test/system"
)

// latency places orders one after the other, each into an idle system, and
// measures from the request to the e-mail in the sink.
func (f *flow) latency(t *testing.T) {
	const orders = 50
	id := f.stock(t, "latency", 100, orders)
	took := make([]time.Duration, orders)
	for i := range took {
		p := placement(item(id, 1))
		begin := time.Now()
		o := f.MustPlace(t, p)
		f.awaitMail(t, p.Email)
		took[i] = time.Since(begin)
		f.Notified(t, o.OrderID)
		f.counted(t, id, int64(orders-i-1), 0, int64(i+1))
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

// large places an order as large as they come: as many lines as are taken, with
// ids as long as they may be. Its events are about 200 KiB each.
func (f *flow) large(t *testing.T) {
	const clients = 16
	ids := make([]string, events.MaxLines)
	items := make([]events.Item, len(ids))
	for i := range ids {
		prefix := fmt.Sprintf("large-%03d-", i)
		ids[i] = prefix + strings.Repeat("x", events.MaxIDLength-len(prefix))
		items[i] = item(ids[i], 2)
	}
	begin := time.Now()
	var (
		group sync.WaitGroup
		errs  = make([]error, clients)
	)
	for c := range clients {
		group.Go(func() {
			for i := c; i < len(ids) && errs[c] == nil; i += clients {
				d := system.Description{Name: ids[i], Price: events.Money{Amount: 199, Currency: "EUR"}}
				if errs[c] = f.Describe(t.Context(), ids[i], d); errs[c] == nil {
					errs[c] = f.Receive(t.Context(), ids[i], 3)
				}
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	f.products = append(f.products, ids[0], ids[500], ids[998])
	t.Logf("%d products made in %s", len(ids), time.Since(begin).Round(time.Millisecond))

	begin = time.Now()
	o := f.Ended(t, f.MustPlace(t, placement(items...)).OrderID)
	if o.Status != system.Completed || o.Total.Amount != int64(len(ids))*2*199 {
		t.Errorf("order ended as %s with a total of %v", o.Status, o.Total)
	}
	checkContract(t, f.System, o.OrderID)
	m := f.theMail(t, o)
	t.Logf("from POST to e-mail: %s", time.Since(begin).Round(time.Millisecond))
	for _, id := range []string{ids[0], ids[500], ids[998]} {
		f.counted(t, id, 1, 0, 2)
	}
	if !strings.Contains(m.Text, "3,976.02") && !strings.Contains(m.Text, "3976.02") {
		t.Errorf("the e-mail does not name the total of 3976.02:\n%.200s", m.Text)
	}
}

// addsUp holds what all tests before have left against the system's promises.
func (f *flow) addsUp(t *testing.T) {
	orders := f.ListAll(t, url.Values{"limit": {"100"}})
	if len(orders) < 100 {
		t.Errorf("only %d orders are listed", len(orders))
	}
	shipped := map[string]int64{}
	seen := map[string]bool{}
	for _, o := range orders {
		if seen[o.OrderID] {
			t.Errorf("order %s is listed twice", o.OrderID)
		}
		seen[o.OrderID] = true
		o = f.Ended(t, o.OrderID)
		want := "ORDER_CREATED, ORDER_" + o.Status
		if got := f.types(t, o.OrderID); got != want {
			t.Errorf("order %s is %s with events %s", o.OrderID, o.Status, got)
		}
		var total int64
		for _, l := range o.Items {
			total += int64(l.Quantity) * l.UnitPrice.Amount
			if o.Status == system.Completed {
				shipped[l.ID] += int64(l.Quantity)
			}
		}
		if o.Total.Amount != total {
			t.Errorf("order %s totals %d, its items %d", o.OrderID, o.Total.Amount, total)
		}
		n := f.Notified(t, o.OrderID)
		if m := f.theMail(t, o); n.Kind != o.Status || m.MessageID != n.MessageID {
			t.Errorf("order %s is %s; notification %+v, e-mail %s", o.OrderID, o.Status, n, m.MessageID)
		}
	}
	for _, id := range f.products {
		system.Eventually(t, "all that is held of "+id+" is shipped or given back", func() (bool, string) {
			p := f.Product(t, id)
			return p.Reserved == 0, fmt.Sprintf("%+v", p)
		})
		if p := f.Product(t, id); p.Shipped != shipped[id] {
			t.Errorf("of %s %d are shipped, %d were ordered and completed", id, p.Shipped, shipped[id])
		}
	}
	messages, told := map[string]string{}, 0
	for _, m := range f.AllMails(t) {
		if before, ok := messages[m.MessageID]; ok {
			t.Errorf("e-mails %s and %s have the Message-ID %s", before, m.File, m.MessageID)
		}
		messages[m.MessageID] = m.File
		if strings.HasSuffix(m.To, "@"+domain) {
			told++
		}
	}
	if told != len(orders) {
		t.Errorf("customers have %d e-mails about %d orders", told, len(orders))
	}
	t.Logf("%d orders, %d e-mails", len(orders), len(messages))
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
			if strings.Contains(line, domain) || strings.Contains(line, operator) {
				t.Errorf("%s logs an e-mail address: %s", name, line)
			}
		}
	}
}
