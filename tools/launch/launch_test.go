package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// The launcher is tested with real processes, this test program itself: started
// with a sidecar's arguments it answers like one, started as "app" it is a
// service, and so on. What happens to them they write into one diary.
func TestMain(m *testing.M) {
	if os.Getenv("LAUNCH_TEST_DIARY") == "" {
		os.Exit(m.Run())
	}
	switch role := os.Args[1]; role {
	case "app":
		appChild(os.Getenv("APP_ID"))
	case "orphan":
		signal.Ignore(syscall.SIGTERM)
		select {}
	case brokerCommand:
		diary("pid %d", os.Getpid())
		if err := brokerMain(os.Args[2], os.Stdout); err != nil {
			panic(err)
		}
	case "launcher":
		s, err := parseFlags(os.Args[2:], os.Stderr)
		if err == nil {
			err = run(context.Background(), context.Background(), s, io.Discard)
		}
		fmt.Println(err)
	default:
		sidecarChild()
	}
}

func diary(format string, args ...any) {
	file, err := os.OpenFile(os.Getenv("LAUNCH_TEST_DIARY"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	fmt.Fprintf(file, format+"\n", args...)
}

// appChild is a service. LAUNCH_TEST_TROUBLE=<app>:<kind> gives it trouble.
func appChild(id string) {
	trouble := ""
	if who, what, _ := strings.Cut(os.Getenv("LAUNCH_TEST_TROUBLE"), ":"); who == id {
		trouble = what
	}
	switch trouble {
	case "dies":
		fmt.Println("looking around")
		fmt.Fprintln(os.Stderr, "no luck today")
		os.Exit(7)
	case "stubborn":
		orphan := exec.Command(os.Args[0], "orphan")
		if err := orphan.Start(); err != nil {
			panic(err)
		}
		diary("pid %d", orphan.Process.Pid)
		signal.Ignore(syscall.SIGTERM)
	}
	diary("pid %d", os.Getpid())
	diary("%s env api=%s app=%s smtp=%t", id, os.Getenv("DAPR_API_TOKEN"), os.Getenv("APP_API_TOKEN"), os.Getenv("SMTP_ADDRESS") != "")
	if os.Getenv("NATS_URL") != "" {
		diary("%s knows the broker's password", id)
	}
	serveUntilTerm(id, os.Getenv("APP_PORT"), "/healthz/ready", trouble != "stubborn")
}

func sidecarChild() {
	args := os.Args
	value := func(flag string) string { return args[slices.Index(args, flag)+1] }
	id := value("--app-id")
	diary("pid %d", os.Getpid())
	diary("%s sidecar env nats=%t sqlite=%s", id, os.Getenv("NATS_URL") != "", filepath.Base(os.Getenv("SQLITE_FILE")))
	for _, arg := range args {
		if os.Getenv("DAPR_API_TOKEN") == "" || strings.Contains(arg, os.Getenv("DAPR_API_TOKEN")) || strings.Contains(arg, os.Getenv("APP_API_TOKEN")) {
			diary("%s sidecar has a token on its command line, or none", id)
		}
	}
	serveUntilTerm(id+" sidecar", value("--dapr-http-port"), "/v1.0/healthz", true)
}

func serveUntilTerm(name, port, ready string, obey bool) {
	term := make(chan os.Signal, 1)
	if obey {
		signal.Notify(term, syscall.SIGTERM)
	}
	http.HandleFunc(ready, func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc(ready+"/outbound", func(http.ResponseWriter, *http.Request) {})
	go func() { panic(http.ListenAndServe("127.0.0.1:"+port, nil)) }()
	fmt.Println("here is", name)
	diary("%s starts", name)
	<-term
	diary("%s stops", name)
}

// stage is a directory with a run file for two apps.
type stage struct {
	*testing.T
	dir string
}

func newStage(t *testing.T) stage {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "resources"), 0o755); err != nil {
		t.Fatal(err)
	}
	content := fmt.Sprintf(`
version: 1
common: {resourcesPaths: [resources]}
apps:
  - {appID: order, appDirPath: ., command: [%[1]q, app]}
  - {appID: stock, appDirPath: ., command: [%[1]q, app]}
`, self)
	if err := os.WriteFile(filepath.Join(dir, "dapr.yaml"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LAUNCH_TEST_DIARY", filepath.Join(dir, "diary"))
	t.Setenv("DAPR_API_TOKEN", "")
	t.Setenv("APP_API_TOKEN", "")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector adds a second to every exit
	return stage{t, dir}
}

func (st stage) flags(more ...string) []string {
	self, err := os.Executable()
	if err != nil {
		st.Fatal(err)
	}
	return append([]string{"-f", filepath.Join(st.dir, "dapr.yaml"), "-data", filepath.Join(st.dir, "data"), "-daprd", self, "-free-ports"}, more...)
}

func (st stage) settings(flags ...string) settings {
	st.Helper()
	s, err := parseFlags(st.flags(flags...), io.Discard)
	if err != nil {
		st.Fatal(err)
	}
	return s
}

func (st stage) diary() []string {
	content, err := os.ReadFile(filepath.Join(st.dir, "diary"))
	if err != nil {
		st.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

// pids are of everybody who wrote into the diary.
func (st stage) pids() []int {
	var pids []int
	for _, line := range st.diary() {
		if text, ok := strings.CutPrefix(line, "pid "); ok {
			pid, err := strconv.Atoi(text)
			if err != nil {
				st.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func (st stage) eventually(what string, holds func() bool) {
	st.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			st.Fatalf("not within 30 s: %s", what)
		case <-tick.C:
		}
	}
}

func (st stage) nobodyIsLeft() {
	st.Helper()
	for _, pid := range st.pids() {
		st.eventually(fmt.Sprintf("process %d is gone", pid), func() bool { return !alive(pid) })
	}
}

// alive is false for zombies too: an orphan's are for init to collect.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !bytes.Contains(stat, []byte(") Z "))
}

func (st stage) status() (status, error) {
	var read status
	content, err := os.ReadFile(filepath.Join(st.dir, "data", "status.json"))
	if err != nil {
		return read, err
	}
	return read, json.Unmarshal(content, &read)
}

// running is a launcher inside the test.
type running struct {
	interrupt, kill context.CancelFunc
	done            chan error
	out             *synchronised
}

type synchronised struct {
	mu sync.Mutex
	bytes.Buffer
}

func (s *synchronised) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.Write(p)
}

func (s *synchronised) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.String()
}

func (st stage) launch(flags ...string) *running {
	on, interrupt := context.WithCancel(context.Background())
	patient, kill := context.WithCancel(context.Background())
	r := &running{interrupt, kill, make(chan error, 1), &synchronised{}}
	s := st.settings(flags...)
	go func() { r.done <- run(on, patient, s, r.out) }()
	st.Cleanup(func() { interrupt(); kill() })
	return r
}

func (st stage) ready(r *running) status {
	st.Helper()
	var read status
	st.eventually("the launcher is ready", func() bool {
		select {
		case err := <-r.done:
			st.Fatalf("the launcher ended: %v", err)
		default:
		}
		var err error
		read, err = st.status()
		return err == nil && strings.Contains(r.out.String(), "ready in")
	})
	return read
}

func (st stage) ended(r *running) error {
	st.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(30 * time.Second):
		st.Fatal("the launcher doesn't end")
		return nil
	}
}

func TestStartsReportsAndStopsInOrder(t *testing.T) {
	st := newStage(t)
	r := st.launch()
	read := st.ready(r)

	info, err := os.Stat(filepath.Join(st.dir, "data", "status.json"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the status file, which has the tokens, has mode %o", info.Mode().Perm())
	}
	if read.APIToken == "" || read.AppToken == "" || read.APIToken == read.AppToken {
		t.Errorf("tokens %q and %q", read.APIToken, read.AppToken)
	}
	if len(read.Apps) != 2 || read.Apps[0].ID != "order" || !alive(read.Apps[0].PID) || !alive(read.Apps[0].DaprdPID) {
		t.Errorf("apps %+v", read.Apps)
	}
	if !strings.Contains(r.out.String(), "\norder         | here is order\n") && !strings.HasPrefix(r.out.String(), "order         | here is order\n") {
		t.Errorf("no line of the app under its name in\n%s", r.out)
	}
	if !strings.Contains(r.out.String(), "curl -sS -X POST "+read.Apps[0].URL+"/orders ") {
		t.Errorf("no curl line in\n%s", r.out)
	}
	log, err := os.ReadFile(filepath.Join(st.dir, "data", "logs", "order-daprd.log"))
	if err != nil || string(log) != "here is order sidecar\n" {
		t.Errorf("log of the sidecar: %q, %v", log, err)
	}

	r.interrupt()
	if err := st.ended(r); err != nil {
		t.Errorf("an interrupted run is no error, got %v", err)
	}
	st.nobodyIsLeft()
	if _, err := st.status(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the status file is still there: %v", err)
	}

	var story []string
	for _, line := range st.diary() {
		if !strings.HasPrefix(line, "pid ") {
			story = append(story, line)
		}
	}
	at := func(line string) int {
		i := slices.Index(story, line)
		if i < 0 {
			t.Fatalf("%q is not in the diary:\n%s", line, strings.Join(story, "\n"))
		}
		return i
	}
	for _, id := range []string{"order", "stock"} {
		at(fmt.Sprintf("%s env api=%s app=%s smtp=true", id, read.APIToken, read.AppToken))
		at(fmt.Sprintf("%s sidecar env nats=true sqlite=%s.db", id, id))
		if at(id+" sidecar starts") > at(id+" starts") {
			t.Errorf("%s started before its sidecar", id)
		}
		for _, other := range []string{"order", "stock"} {
			if at(id+" stops") > at(other+" sidecar stops") {
				t.Errorf("%s was still running when the sidecar of %s stopped", id, other)
			}
		}
	}
	for _, line := range story {
		if strings.Contains(line, "command line") || strings.Contains(line, "password") {
			t.Error(line)
		}
	}
}

func TestTokensFromTheEnvironment(t *testing.T) {
	st := newStage(t)
	t.Setenv("DAPR_API_TOKEN", "mine")
	r := st.launch()
	if read := st.ready(r); read.APIToken != "mine" {
		t.Errorf("API token %q, want the one set", read.APIToken)
	}
	r.interrupt()
	if err := st.ended(r); err != nil {
		t.Error(err)
	}
}

func TestDeathWhileStarting(t *testing.T) {
	st := newStage(t)
	t.Setenv("LAUNCH_TEST_TROUBLE", "stock:dies")
	err := st.ended(st.launch())
	if err == nil || !strings.Contains(err.Error(), "stock ended (exit status 7); its last lines:\n    looking around\n    no luck today") {
		t.Errorf("got %v", err)
	}
	st.nobodyIsLeft()
}

func TestDeathWhileRunning(t *testing.T) {
	for _, victim := range []string{"order", "order sidecar"} {
		t.Run(victim, func(t *testing.T) {
			st := newStage(t)
			r := st.launch()
			read := st.ready(r)
			pid := read.Apps[0].PID
			if victim == "order sidecar" {
				pid = read.Apps[0].DaprdPID
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			err := st.ended(r)
			if want := victim + " ended (signal: killed); its last lines:\n    here is " + victim; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			st.nobodyIsLeft()
		})
	}
}

func TestKeepStartsAgainWhatDies(t *testing.T) {
	st := newStage(t)
	r := st.launch("-keep")
	before := st.ready(r)
	down := filepath.Join(st.dir, "data", "down")
	if err := os.Mkdir(down, 0o700); err != nil {
		t.Fatal(err)
	}
	held := filepath.Join(down, "order-sidecar")
	if err := os.WriteFile(held, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pids := func(s status) []int { return []int{s.Apps[0].PID, s.Apps[0].DaprdPID, s.BrokerPID} }
	for _, pid := range pids(before) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	changed := func(want ...bool) {
		t.Helper()
		st.eventually(fmt.Sprintf("order, its sidecar and the broker run again: %v", want), func() bool {
			now, err := st.status()
			if err != nil {
				t.Fatal(err)
			}
			for i, pid := range pids(now) {
				if alive(pid) != want[i] || (pid != pids(before)[i]) != want[i] {
					return false
				}
			}
			return true
		})
	}
	changed(true, false, true)
	if err := os.Remove(held); err != nil {
		t.Fatal(err)
	}
	changed(true, true, true)
	now, err := st.status()
	if err != nil {
		t.Fatal(err)
	}
	st.eventually("the broker answers under the address of before", func() bool {
		conn, err := nats.Connect(before.NATSURL)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if now.Apps[1] != before.Apps[1] || now.Apps[0].URL != before.Apps[0].URL || now.Apps[0].DaprHTTP != before.Apps[0].DaprHTTP {
		t.Errorf("more than processes changed: %+v, before %+v", now.Apps, before.Apps)
	}
	r.interrupt()
	if err := st.ended(r); err != nil {
		t.Error(err)
	}
	st.nobodyIsLeft()
}

// An app can be kept from starting at all, so that it comes when the others have
// long been at work.
func TestAppThatIsHeldDownStartsLate(t *testing.T) {
	st := newStage(t)
	held := filepath.Join(st.dir, "data", "down", "order")
	if err := os.MkdirAll(filepath.Dir(held), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(held, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := st.launch("-keep")
	if before := st.ready(r); before.Apps[0].PID != 0 || before.Apps[0].DaprdPID != 0 || before.Apps[1].PID == 0 {
		t.Errorf("ready with %+v, want all but %s running", before.Apps, before.Apps[0].ID)
	}
	if err := os.Remove(held); err != nil {
		t.Fatal(err)
	}
	st.eventually("order and its sidecar run", func() bool {
		now, err := st.status()
		if err != nil {
			t.Fatal(err)
		}
		return now.Apps[0].PID != 0 && alive(now.Apps[0].PID) && alive(now.Apps[0].DaprdPID)
	})
	r.interrupt()
	if err := st.ended(r); err != nil {
		t.Error(err)
	}
	st.nobodyIsLeft()
}

func TestSecondSignalKills(t *testing.T) {
	st := newStage(t)
	t.Setenv("LAUNCH_TEST_TROUBLE", "order:stubborn")
	r := st.launch()
	st.ready(r)
	r.interrupt()
	st.eventually("the other app has stopped", func() bool { return slices.Contains(st.diary(), "stock stops") })
	r.kill()
	if err := st.ended(r); err == nil || !strings.Contains(err.Error(), "order did not stop in time and was killed") {
		t.Errorf("got %v", err)
	}
	st.nobodyIsLeft() // and neither is what order started
}

func TestInterruptedWhileStarting(t *testing.T) {
	st := newStage(t)
	r := st.launch()
	st.eventually("something has been started", func() bool {
		_, err := os.Stat(filepath.Join(st.dir, "diary"))
		return err == nil
	})
	r.interrupt()
	if err := st.ended(r); err != nil {
		t.Errorf("an interrupted start is no error, got %v", err)
	}
	st.nobodyIsLeft()
}

func TestSecondLauncherIsRefused(t *testing.T) {
	st := newStage(t)
	r := st.launch()
	st.ready(r)
	_, err := newSystem(st.settings(), newConsole(io.Discard, os.Getenv), os.LookupEnv)
	if want := fmt.Sprintf("in use by another launcher (process %d)", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := st.status(); err != nil {
		t.Errorf("the refused launcher took the other's status file away: %v", err)
	}
	r.interrupt()
	if err := st.ended(r); err != nil {
		t.Error(err)
	}
	again, err := lockData(filepath.Join(st.dir, "data"))
	if err != nil {
		t.Fatalf("the directory is not given up: %v", err)
	}
	if err := again.release(); err != nil {
		t.Error(err)
	}
}
