// Package brokers starts the servers that components/broker and components/state
// want, for tests: real ones, each a private instance on free loopback ports with
// its data in a directory of its own, that ends with the test and leaves nothing.
//
//	server     is                              for
//	redis      Redis                           broker redis, store redis
//	rabbitmq   RabbitMQ                        broker rabbitmq
//	kafka      Apache Kafka, KRaft, one node   broker kafka
//	mosquitto  Mosquitto                       broker mqtt
//	postgres   PostgreSQL                      store postgres
//	fauxqs     an imitation of AWS             broker snssqs
//	ministack  another one                     store dynamodb
//	mongodb    none that can be had            store mongodb
//
// What is installed is run, nothing is downloaded: `make brokers` installs. A test
// for which a server is missing fails and says so.
package brokers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// startTimeout is for a server on a machine that does other things as well.
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
	pollEvery    = 20 * time.Millisecond
)

// Server is a server of the test's own. Its methods may be called from several
// goroutines, Kill and Start in turn.
type Server struct {
	Name string   // as in the table above
	Env  []string // NAME=value: the secrets that the component files want

	kind    kind
	port    int
	secret  string // its password, new for each server
	dir     string // of its data; private to whom it runs as
	main    process
	helpers []*process // what must run beside it, and goes on when it is killed
}

// kind is how a server is run.
type kind struct {
	// missing says what of it is not installed, or nil.
	missing func() error
	// prepare is done once, before the first start; it may start helpers.
	prepare func(*Server) error
	// command is the server in the foreground: what is killed is the server.
	command func(*Server) (*exec.Cmd, error)
	// answers says whether the server takes requests by now.
	answers func(context.Context, *Server) error
	// backlog says what a broker has not delivered or had acknowledged, or "". A server
	// that is no broker, or has another way to tell, has none.
	backlog func(context.Context, *Server) (string, error)
	// env are the secrets of its components if it is reached at address.
	env func(s *Server, address string) []string
	// runAs is the user that it is run as when the test is root's, for a server
	// that refuses to run as root.
	runAs string
}

var kinds = map[string]kind{
	"redis":     redisServer,
	"rabbitmq":  rabbitMQ,
	"kafka":     kafka,
	"mosquitto": mosquitto,
	"postgres":  postgres,
	"fauxqs":    fauxqs,
	"ministack": ministack,
	"mongodb":   {missing: func() error { return errNoMongoDB }},
}

// errNoMongoDB says why no test runs on MongoDB. Looked at: Debian, which has no
// server any more; FerretDB 1.24, which refuses the component's first request (an
// index with expireAfterSeconds) and takes no notice of transactions; mongo-java-server
// 1.47, which has none.
var errNoMongoDB = errors.New("no package of Debian, PyPI, npm, Maven Central or Go holds one that the component works with, so that no test starts it")

// ServerOf is the name of the server that a folder of components/broker or of
// components/state needs, or "" if it needs none but what the launcher starts.
func ServerOf(folder string) string {
	switch folder {
	case "mqtt":
		return "mosquitto"
	case "snssqs":
		return "fauxqs"
	case "dynamodb":
		return "ministack"
	case "nats", "sqlite":
		return ""
	}
	return folder
}

// Missing says why the server can't be started on this machine and what to do
// about it, or nil.
func Missing(name string) error {
	k, ok := kinds[name]
	if !ok {
		return fmt.Errorf("no test knows how to start a %s server", name)
	}
	err := k.missing()
	if err == nil {
		return nil
	}
	if errors.Is(err, errNoMongoDB) {
		return fmt.Errorf("a %s server is needed, and %w", name, err)
	}
	return fmt.Errorf("a %s server is needed, and %w; `make brokers SERVERS=%s` installs it, or says what to do", name, err, name)
}

// Start starts the server of that name and returns when it answers. It ends with
// the test, and its data with it.
func Start(tb testing.TB, name string) *Server {
	tb.Helper()
	if err := Missing(name); err != nil {
		tb.Fatal(err)
	}
	s := &Server{Name: name, kind: kinds[name], secret: randomSecret()}
	var err error
	if s.port, err = freePort(); err != nil {
		tb.Fatal(err)
	}
	// Not tb.TempDir: nobody but the test's user may enter that.
	if s.dir, err = os.MkdirTemp("", "orderflow-"+name+"-"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.stop(); err != nil {
			tb.Error(err)
		}
		if tb.Failed() {
			tb.Logf("%s said last:\n%s", name, s.main.log.tail(40))
		}
		if err := os.RemoveAll(s.dir); err != nil {
			tb.Errorf("data of %s: %v", name, err)
		}
	})
	if uid, gid, ok := s.user(); ok {
		if err := os.Chown(s.dir, uid, gid); err != nil {
			tb.Fatal(err)
		}
	}
	if s.kind.prepare != nil {
		if err := s.kind.prepare(s); err != nil {
			tb.Fatalf("prepare %s: %v", name, err)
		}
	}
	if err := s.Start(); err != nil {
		tb.Fatal(err)
	}
	s.Env = s.kind.env(s, s.Address())
	return s
}

// Address is host:port of the server.
func (s *Server) Address() string { return loopback(s.port) }

// Start starts the server, which must not be running, on the data and the port
// that it has, and returns when it answers.
func (s *Server) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		cmd, err := s.kind.command(s)
		if err != nil {
			return fmt.Errorf("start %s: %w", s.Name, err)
		}
		if err := s.main.start(s, cmd); err != nil {
			return fmt.Errorf("start %s: %w", s.Name, err)
		}
	answer:
		for {
			once, end := context.WithTimeout(ctx, 5*time.Second)
			err = s.kind.answers(once, s)
			end()
			if err == nil {
				return nil
			}
			select {
			case <-s.main.exited:
				break answer
			case <-ctx.Done():
				return fmt.Errorf("%s does not answer after %s (%w):\n%s", s.Name, startTimeout, err, s.main.log.tail(40))
			case <-poll.C:
			}
		}
		// A server that was killed may have left something that its successor finds in
		// use for a moment: a port, a lock, a child that is about to notice.
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("%s ended (%w):\n%s", s.Name, s.main.err, s.main.log.tail(40))
		}
	}
}

// Kill ends the server with SIGKILL, as a crash of it would, and returns when it
// is gone. What it had given to the operating system stays.
func (s *Server) Kill() error {
	if err := s.main.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", s.Name, err)
	}
	<-s.main.exited
	return nil
}

// Backlog says what the broker has not delivered yet or had acknowledged, or "" if
// there is nothing. Its error is errors.ErrUnsupported where that can't be asked.
func (s *Server) Backlog(ctx context.Context) (string, error) {
	if s.kind.backlog == nil {
		return "", fmt.Errorf("the backlog of %s: %w", s.Name, errors.ErrUnsupported)
	}
	return s.kind.backlog(ctx, s)
}

// backlog reads a table of a program's: a name and a count in these columns. What has
// no number there is a heading.
func backlog(table []byte, name, count int) string {
	var waiting []string
	for line := range strings.Lines(string(table)) {
		columns := strings.Fields(line)
		if len(columns) <= max(name, count) {
			continue
		}
		if n, err := strconv.Atoi(columns[count]); err == nil && n > 0 {
			waiting = append(waiting, columns[name]+": "+columns[count])
		}
	}
	return strings.Join(waiting, "; ")
}

// Signal sends a signal to the server, SIGSTOP for one.
func (s *Server) Signal(sig syscall.Signal) error { return s.main.signal(sig) }

// PID is the server's process id, or of the last one if it is not running.
func (s *Server) PID() int { return s.main.cmd.Process.Pid }

func (s *Server) stop() error {
	errs := []error{s.main.stop(s.Name)}
	for _, h := range s.helpers {
		errs = append(errs, h.stop("what runs beside "+s.Name))
	}
	return errors.Join(errs...)
}

// help starts something that the server needs beside it.
func (s *Server) help(cmd *exec.Cmd) error {
	h := &process{}
	if err := h.start(s, cmd); err != nil {
		return err
	}
	s.helpers = append(s.helpers, h)
	return nil
}

// process is one running child, the leader of a group of its own.
type process struct {
	cmd    *exec.Cmd
	log    output
	exited chan struct{}
	err    error // how it ended; valid once exited is closed
}

func (p *process) start(s *Server, cmd *exec.Cmd) error {
	if cmd.Dir == "" {
		cmd.Dir = s.dir
	}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid, gid, ok := s.user(); ok {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	// A child of the child that keeps the pipe open must not keep Wait from returning.
	cmd.WaitDelay = time.Second
	started, exited := make(chan error), make(chan struct{})
	go func() {
		endWithTest(cmd)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			// What it left in its group. The only error to expect is that nothing is.
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	p.cmd, p.exited = cmd, exited
	return nil
}

func (p *process) signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// stop asks the process to end, and kills it when it does not.
func (p *process) stop(name string) error {
	if p.cmd == nil {
		return nil
	}
	// Both fail only if it has ended. A stopped one does not hear the first without
	// the second.
	_ = p.signal(syscall.SIGTERM)
	_ = p.signal(syscall.SIGCONT)
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTimeout):
		_ = p.signal(syscall.SIGKILL)
		<-p.exited
		return fmt.Errorf("%s did not stop within %s", name, stopTimeout)
	}
}

// output keeps what a process writes.
type output struct {
	mu   sync.Mutex
	text []byte
}

const keepOutput = 1 << 20

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if over := len(o.text) - keepOutput; over > keepOutput {
		o.text = append([]byte(nil), o.text[over:]...)
	}
	return len(p), nil
}

func (o *output) tail(lines int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := bytes.Split(bytes.TrimRight(o.text, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// givenPorts are those that this process has chosen, so that two servers that start
// side by side don't choose the same.
var givenPorts sync.Map

// freePort is a loopback port below the range that systems give to outgoing
// connections (from 32768 on Linux, 49152 elsewhere), and below that of the
// launcher's (from 20000), so that none of these takes it before the server does.
func freePort() (int, error) {
	const first, last = 15000, 19999
	for range 100 {
		port := first + rand.IntN(last-first+1)
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		if _, given := givenPorts.LoadOrStore(port, true); !given {
			return port, listener.Close()
		}
		listener.Close()
	}
	return 0, fmt.Errorf("no free port between %d and %d", first, last)
}

// write puts a file into the server's directory, for it alone to read.
func (s *Server) write(name, content string) error {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	if uid, gid, ok := s.user(); ok {
		return os.Chown(path, uid, gid)
	}
	return nil
}

// run runs a program of the server's to its end.
func (s *Server) run(program string, args ...string) error {
	_, err := outputOf(context.Background(), s, exec.Command(program, args...))
	return err
}

// outputOf runs a program of the server's to its end, and is what it wrote to its
// standard output. It is killed when ctx ends.
func outputOf(ctx context.Context, s *Server, cmd *exec.Cmd) ([]byte, error) {
	bounded := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	var complaints bytes.Buffer
	bounded.Env, bounded.Dir, bounded.Stderr = cmd.Env, s.dir, &complaints
	bounded.WaitDelay = time.Second // for what it leaves behind
	bounded.SysProcAttr = &syscall.SysProcAttr{}
	if uid, gid, ok := s.user(); ok {
		bounded.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	out, err := bounded.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w\n%s%s", filepath.Base(cmd.Path), errors.Join(ctx.Err(), err), out, complaints.Bytes())
	}
	return out, nil
}
