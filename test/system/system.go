// Package system starts the whole system for a test: the launcher, and by it the
// broker, the mail sink, the services and their sidecars, as processes of their
// own, on free ports, with their data in a directory of the test's. It speaks
// with them as anybody could: over HTTP, through the sidecars, by reading the
// e-mails that were delivered. It knows the contract (package events) and nothing
// of how a service is made.
package system

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"orderflow/test/brokers"
)

const (
	startTimeout = 2 * time.Minute
	// stopTimeout is more than the launcher itself gives its children (35 s).
	stopTimeout = 50 * time.Second
)

// Options say which system is started. The zero value is the default one.
type Options struct {
	Broker string   // folder of components/broker; nats if empty
	State  string   // folder of components/state; sqlite if empty
	Env    []string // NAME=value, beyond the test's own environment, for all processes
	Keep   bool     // processes that die are started again

	// Late are services that are started, with their sidecars, only when Release says
	// so. It wants Keep.
	Late []string

	// Link, if it is not nil, is told of each connection that one process makes to
	// another and answers the address, on 127.0.0.1, to make it to: the one given, or
	// that of something in between. Services, and sidecars by the name that SidecarOf
	// gives, are the first; these, "mail" and the folders of broker and store ("nats",
	// "redis") the second. It is called from several goroutines, before Start returns.
	Link func(from, to, address string) string
}

// Service is one service and its sidecar.
type Service struct {
	ID         string
	URL        string // the service itself
	Sidecar    string // URL of its sidecar's HTTP API
	PID        int
	SidecarPID int
}

// System is a running system. Its methods may be called from several
// goroutines, except those that take a testing.TB: as usual, only the test's own
// goroutine may call these.
type System struct {
	Order, Inventory, Notification, Console Service

	Options Options // as it was started, with what was left to choose

	APIToken string        // the header dapr-api-token, to a sidecar
	AppToken string        // the same, to the event routes of a service
	MailURL  string        // the mail sink's page
	Data     string        // the directory of everything that is stored
	ReadyIn  time.Duration // from the start of the launcher to the status file

	StatusFile string // the launcher's: where everything is, for tools

	NATSURL string // where the broker is, if it is the launcher's

	// The servers that the test runs for the system, for whoever kills them or looks
	// into them: nil where the launcher runs the broker, and where the store is a
	// file. One server that is both is the same in both.
	BrokerServer, StateServer *brokers.Server

	cmd     *exec.Cmd
	output  output
	exited  chan struct{}
	waitErr error // valid once exited is closed
	stop    sync.Once
	mails   mailbox
}

// status is what is read of the launcher's status file.
type status struct {
	APIToken string `json:"apiToken"`
	AppToken string `json:"appToken"`
	NATSURL  string `json:"natsURL"`
	Apps     []struct {
		ID       string `json:"id"`
		URL      string `json:"url"`
		DaprHTTP string `json:"daprHTTP"`
		PID      int    `json:"pid"`
		DaprdPID int    `json:"daprdPid"`
	} `json:"apps"`
	Mail struct {
		SMTP string `json:"smtp"`
		URL  string `json:"url"`
		Dir  string `json:"dir"`
	} `json:"mail"`
	BrokerPID int `json:"brokerPid"`
}

// Start starts a system and waits until it is ready. It ends with the test, which
// fails if it does not end well: with exit code 0, and without leaving a process
// behind. If the test failed, the last log lines of each process are shown.
func Start(tb testing.TB, o Options) *System {
	tb.Helper()
	if o.Broker == "" {
		o.Broker = "nats"
	}
	if o.State == "" {
		o.State = "sqlite"
	}
	root := Root(tb)
	launcher := filepath.Join(root, "bin", "launch")
	for _, program := range []string{"launch", "daprd", "order", "inventory", "notification", "console"} {
		if _, err := os.Stat(filepath.Join(root, "bin", program)); err != nil {
			tb.Fatalf("bin/%s is not there: run `make build` first", program)
		}
	}
	env := append(os.Environ(), o.Env...)
	servers := map[string]*brokers.Server{}
	for _, folder := range []string{o.Broker, o.State} {
		name := brokers.ServerOf(folder)
		if name == "" || servers[name] != nil {
			continue
		}
		servers[name] = brokers.Start(tb, name)
		env = append(env, servers[name].Env...)
	}
	// Chosen here, so that whatever inherits them is known to be part of this
	// system.
	apiToken, appToken := rand.Text(), rand.Text()
	env = append(env, "DAPR_API_TOKEN="+apiToken, "APP_API_TOKEN="+appToken, "NO_COLOR=1")

	data := tb.TempDir()
	s := &System{
		Options: o, Data: data, StatusFile: filepath.Join(data, "status.json"), APIToken: apiToken, AppToken: appToken,
		BrokerServer: servers[brokers.ServerOf(o.Broker)], StateServer: servers[brokers.ServerOf(o.State)],
		exited: make(chan struct{}),
	}
	if err := s.hold(o.Late...); err != nil {
		tb.Fatal(err)
	}
	s.cmd = exec.Command(launcher, "-f", filepath.Join(root, "dapr.yaml"), "--broker", o.Broker, "--state", o.State,
		"--data", data, "--status", s.StatusFile, "--free-ports", "--keep="+strconv.FormatBool(o.Keep))
	if o.Link != nil {
		s.cmd.Args = append(s.cmd.Args, "--links", serveLinks(tb, o.Link))
	}
	s.cmd.Dir, s.cmd.Env = root, env
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	begin := time.Now()
	if err := s.run(); err != nil {
		tb.Fatalf("start the launcher: %v", err)
	}
	tb.Cleanup(func() { s.Stop(tb) })

	var st status
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	timeout := time.After(startTimeout)
	for {
		content, err := os.ReadFile(s.StatusFile)
		if err == nil {
			if err := json.Unmarshal(content, &st); err != nil {
				tb.Fatalf("status file: %v", err)
			}
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			tb.Fatalf("status file: %v", err)
		}
		select {
		case <-poll.C:
		case <-s.exited:
			tb.Fatalf("the system did not start (%v)", s.waitErr)
		case <-timeout:
			tb.Fatalf("the system is not ready after %s", startTimeout)
		}
	}
	s.ReadyIn = time.Since(begin)
	if st.APIToken != apiToken || st.AppToken != appToken {
		tb.Fatalf("the launcher does not use the tokens of its environment")
	}
	if _, err := os.Stat("/proc/self/environ"); err == nil {
		marked := processesWith(s.mark())
		for _, a := range st.Apps {
			if slices.Contains(o.Late, a.ID) {
				continue
			}
			if marked[a.PID] == "" || marked[a.DaprdPID] == "" {
				tb.Errorf("%s or its sidecar could be left behind and nobody would see: its environment lacks the run's token", a.ID)
			}
		}
	}
	s.NATSURL = st.NATSURL
	s.MailURL, s.mails.dir = st.Mail.URL, st.Mail.Dir
	for _, a := range st.Apps {
		service := Service{ID: a.ID, URL: a.URL, Sidecar: a.DaprHTTP, PID: a.PID, SidecarPID: a.DaprdPID}
		switch a.ID {
		case "order":
			s.Order = service
		case "inventory":
			s.Inventory = service
		case "notification":
			s.Notification = service
		case "console":
			s.Console = service
		}
	}
	return s
}

// serveLinks answers the launcher's questions of where connections are to go, at
// the address returned.
func serveLinks(tb testing.TB, link func(from, to, address string) string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		fmt.Fprint(w, link(q.Get("from"), q.Get("to"), q.Get("address")))
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// Root is the directory of the project, which has the run file.
func Root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "dapr.yaml")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("no dapr.yaml here or above")
		}
		dir = parent
	}
}

// Services are all of them.
func (s *System) Services() []Service {
	return []Service{s.Order, s.Inventory, s.Notification, s.Console}
}

// mark is a variable that the processes of this system have, and no others.
func (s *System) mark() string { return "DAPR_API_TOKEN=" + s.APIToken }

// run starts the launcher and waits for its end in the background.
func (s *System) run() error {
	started := make(chan error)
	go func() {
		endWithTest(s.cmd)
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.waitErr = s.cmd.Wait()
			close(s.exited)
		}
	}()
	return <-started
}

// Stop stops the system as a Ctrl-C does and checks that it ended well. The end
// of the test does it, if nobody did before.
func (s *System) Stop(tb testing.TB) {
	tb.Helper()
	s.stop.Do(func() {
		// A server that ends waits 5 s for connections that it has never been asked
		// anything on (net/http.Server.Shutdown), and a client keeps such in stock.
		client.CloseIdleConnections()
		select {
		case <-s.exited:
			tb.Errorf("the launcher ended by itself: %v", s.waitErr)
		default:
			_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		select {
		case <-s.exited:
			if s.waitErr != nil {
				tb.Errorf("the launcher did not end well: %v", s.waitErr)
			}
		case <-ctx.Done():
			tb.Errorf("the launcher did not stop within %s", stopTimeout)
			_ = s.cmd.Process.Kill()
			<-s.exited
		}
		tb.Logf("stopped in %.1f s", time.Since(begin).Seconds())
		for pid, command := range processesWith(s.mark()) {
			tb.Errorf("left behind: process %d, %s", pid, command)
		}
		if _, err := os.Stat(s.StatusFile); err == nil {
			tb.Errorf("left behind: the status file")
		}
		if tb.Failed() {
			tb.Log(s.logTails(100))
		}
	})
}

// output collects what the launcher and the processes under it write.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Logs are the logs of all processes so far, by the process's name. The launcher
// shows a service's log under the service's name and keeps a sidecar's in a file.
func (s *System) Logs(tb testing.TB) map[string]string {
	tb.Helper()
	logs, err := s.logs()
	if err != nil {
		tb.Fatal(err)
	}
	return logs
}

func (s *System) logs() (map[string]string, error) {
	logs := splitByName(s.output.String())
	files, err := filepath.Glob(filepath.Join(s.Data, "logs", "*.log"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		logs["logs/"+filepath.Base(file)] = string(content)
	}
	return logs, nil
}

func (s *System) logTails(lines int) string {
	logs, err := s.logs()
	if err != nil {
		return fmt.Sprintf("no logs: %v", err)
	}
	return tails(logs, lines)
}
