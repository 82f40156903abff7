package faults

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"orderflow/events"
	"orderflow/test/system"
)

// What is tested here is the campaign itself; the rest of the package is it.

// echo is a server that sends every line back, reached over a link.
func echo(t *testing.T) (*link, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // ends with the connection, however
			}()
		}
	}()
	n := newNetwork()
	t.Cleanup(n.close)
	address := n.connect("order", "order-sidecar", listener.Addr().String())
	l, err := n.between("order", "order-sidecar")
	if err != nil {
		t.Fatal(err)
	}
	return l, address
}

type caller struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func call(t *testing.T, address string) caller {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return caller{t, conn, bufio.NewReader(conn)}
}

// hears says what comes back within a time: the line, or nothing, or the error.
func (c caller) hears(within time.Duration) string {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.in.ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "nothing"
	}
	if err != nil {
		return "closed"
	}
	return strings.TrimSpace(line)
}

func (c caller) says(line string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.conn, line); err != nil {
		c.t.Fatal(err)
	}
}

const soon, awhile = 10 * time.Second, 100 * time.Millisecond

func TestLinks(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is := func(t *testing.T, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
	for _, direction := range []string{up, down} {
		t.Run("holds "+direction, func(t *testing.T) {
			l, address := echo(t)
			c := call(t, address)
			c.says("one")
			is(t, c.hears(soon), "one")
			must(t, l.poison(holds, direction))
			c.says("two")
			is(t, c.hears(awhile), "nothing")
			l.heal()
			is(t, c.hears(soon), "two")
		})
		t.Run("loses "+direction, func(t *testing.T) {
			l, address := echo(t)
			c := call(t, address)
			must(t, l.poison(loses, direction))
			c.says("one")
			is(t, c.hears(awhile), "nothing")
			late := call(t, address)
			late.says("two")
			is(t, late.hears(awhile), "nothing")
			l.heal()
			is(t, c.hears(soon), "closed")
			is(t, late.hears(soon), "closed")
			again := call(t, address)
			again.says("three")
			is(t, again.hears(soon), "three")
		})
		t.Run("resets "+direction, func(t *testing.T) {
			l, address := echo(t)
			c := call(t, address)
			c.says("one")
			is(t, c.hears(soon), "one")
			must(t, l.poison(resets, direction))
			c.says("two")
			is(t, c.hears(soon), "closed")
			l.heal()
			again := call(t, address)
			again.says("three")
			is(t, again.hears(soon), "three")
		})
	}
	t.Run("delays", func(t *testing.T) {
		l, address := echo(t)
		c := call(t, address)
		must(t, l.poison(delays(200*time.Millisecond), up, down))
		begin := time.Now()
		c.says("one")
		is(t, c.hears(soon), "one")
		if took := time.Since(begin); took < 300*time.Millisecond {
			t.Errorf("there and back in %s, with 150 ms or more on each way", took)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		l, address := echo(t)
		c := call(t, address)
		c.says("one")
		is(t, c.hears(soon), "one")
		l.refuse()
		is(t, c.hears(soon), "closed")
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Error("a connection was taken")
		}
		must(t, l.accept())
		again := call(t, address)
		again.says("two")
		is(t, again.hears(soon), "two")
	})
}

func TestConsoleIsNotCutOff(t *testing.T) {
	n := newNetwork()
	t.Cleanup(n.close)
	if got := n.connect("console-sidecar", "nats", "127.0.0.1:4222"); got != "127.0.0.1:4222" {
		t.Errorf("console is sent to %s", got)
	}
	if _, err := n.between("order", "mail"); err == nil {
		t.Error("a link that nobody made is found")
	}
}

func TestSomeLinks(t *testing.T) {
	n := newNetwork()
	t.Cleanup(n.close)
	for _, s := range services {
		n.connect(s, system.SidecarOf(s), "127.0.0.1:9")
	}
	n.connect("notification", "mail", "127.0.0.1:9")
	counts := map[int]int{}
	for i := range 100 {
		tr := newTrial(&campaigner{network: n}, 1, "some", i)
		links, err := tr.some(toSidecar)
		if err != nil {
			t.Fatal(err)
		}
		counts[len(links)]++
		if links, err = tr.some(toMail); err != nil || len(links) != 1 {
			t.Fatalf("%d links to the mail server (%v)", len(links), err)
		}
	}
	if counts[1] < 50 || counts[3] < 10 || counts[1]+counts[3] != 100 {
		t.Errorf("drawn, by how many links: %v", counts)
	}
}

func TestDrawsDependOnSeedFaultAndTrialOnly(t *testing.T) {
	draw := func(seed uint64, fault string, n int) string {
		tr := newTrial(&campaigner{}, seed, fault, n)
		drawn := fmt.Sprint(tr.rnd.Uint64())
		for _, c := range tr.clients {
			drawn += fmt.Sprint(" ", c.Uint64())
		}
		return drawn
	}
	first := draw(1, "kill-order", 0)
	if again := draw(1, "kill-order", 0); again != first {
		t.Errorf("drawn %s, then %s", first, again)
	}
	for _, other := range []string{draw(2, "kill-order", 0), draw(1, "kill-inventory", 0), draw(1, "kill-order", 1)} {
		if other == first {
			t.Error("another trial draws the same")
		}
	}
}

func TestFormsOfPoison(t *testing.T) {
	for i, form := range forms {
		message := form("poison-1.", events.TypeOrderCreated)
		e, err := events.Parse([]byte(message))
		if err == nil {
			_, err = events.Decode(e)
		}
		if err == nil {
			t.Errorf("form %d can be handled: %.200s", i, message)
		}
		if message != "" && !strings.Contains(message, "poison-1.") {
			t.Errorf("form %d does not say which it is: %.200s", i, message)
		}
	}
}

func TestCompare(t *testing.T) {
	named := system.DeadLetter{LetterID: "inventory-1", Event: events.EventName{ID: "poison-t1-3."}, Original: []byte("x")}
	raw := system.DeadLetter{LetterID: "sidecar-2", Original: []byte("poison-t1-4. is not JSON")}
	empty := system.DeadLetter{LetterID: "sidecar-3"}
	sound := system.DeadLetter{LetterID: "inventory-4", Event: events.EventName{ID: "o-1"}, Original: []byte(`{"id":"o-1"}`)}
	doses := []dose{{id: "poison-t1-3."}, {id: "poison-t1-4."}, {id: "poison-t1-0.", empty: true}, {id: "poison-t2-0.", empty: true}}
	if got := compare([]system.DeadLetter{named, raw, empty}, doses); len(got) != 0 {
		t.Errorf("complaints about exactly the poison: %q", got)
	}
	for what, letters := range map[string][]system.DeadLetter{
		"inventory-4":  {named, raw, empty, sound},
		"poison-t1-4.": {named, empty},
		"poison-t2-0.": {named, raw},
	} {
		got := strings.Join(compare(letters, doses), "\n")
		if !strings.Contains(got, what) {
			t.Errorf("%s is not complained of: %q", what, got)
		}
	}
}

func TestReportsInParts(t *testing.T) {
	dir := t.TempDir()
	begun := time.Date(2026, 11, 25, 7, 0, 0, 0, time.UTC)
	write := func(seed uint64, rows ...*result) {
		begun = begun.Add(time.Minute)
		r := newReport("nats", "sqlite", seed)
		r.Begun = begun
		for _, row := range rows {
			if err := r.add(row, dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(1, &result{Fault: "poison", Trials: 2, DeadLetters: 9, Recovery: []float64{1, 3}}, &result{Fault: "kill-order", Trials: 1, Failed: 1, Rejected: 3, Lost: 1, Recovery: []float64{9}})
	write(1, &result{Fault: "kill-order", Trials: 19, Accepted: 700, Rejected: 4, Recovery: []float64{2, 2}})
	write(2, &result{Fault: "replay", Trials: 1})
	var out bytes.Buffer
	if err := printTables(&out, filepath.Join(dir, "*.json")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		switch fields := strings.Fields(line); {
		case strings.HasPrefix(line, "broker"):
			got = append(got, strings.Join(fields[4:6], " "))
		case strings.HasPrefix(line, "|"):
			got = append(got, strings.Join(fields, " "))
		}
	}
	head := []string{
		"| fault | trials | failed | accepted | completed | rejected | lost | oversold | duplicated | dead letters | recovered in s: median, longest |",
		"|--- |--- |--- |--- |--- |--- |--- |--- |--- |--- |--- |",
	}
	want := slices.Concat([]string{"seed 1,"}, head, []string{
		"| kill-order | 20 | 1 | 700 | 0 | 7 | 1 | 0 | 0 | 0 | 2.0, 9.0 |",
		"| poison | 2 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 9 | 3.0, 3.0 |",
		"seed 2,"}, head, []string{
		"| replay | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | - |",
	})
	if !slices.Equal(got, want) {
		t.Errorf("printed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := printTables(&out, filepath.Join(dir, "none")); err == nil {
		t.Error("no results are no error")
	}
}

func TestPauseEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&trial{}).pause(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
