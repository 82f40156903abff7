package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// spec is how a process is started; starting it twice gives two processes.
type spec struct {
	name string
	path string
	args []string
	env  []string
	dir  string
	each func(line string) // gets every line of output, standard error too
}

// process is one running child, the leader of a process group of its own: a
// Ctrl-C at the terminal reaches the launcher only, which stops its children in
// the right order, and what a child started itself is stopped with it.
type process struct {
	spec
	cmd    *exec.Cmd
	begun  time.Time
	output *lines
	exited chan struct{} // closed when it is gone and all its output was read
	err    error         // how it ended; valid once exited is closed
	ended  time.Time     // when, likewise

	stopping atomic.Bool // set once its end is intended
}

// start starts the process; whoever sees it exit unasked asks reason.
func (s *spawner) start(sp spec) (*process, error) {
	p := &process{spec: sp, begun: time.Now(), output: &lines{each: sp.each}, exited: make(chan struct{})}
	p.cmd = exec.Command(sp.path, sp.args...)
	p.cmd.Dir, p.cmd.Env = sp.dir, sp.env
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = childAttributes()
	// A grandchild that keeps the pipe open must not keep Wait from returning.
	p.cmd.WaitDelay = time.Second
	if err := s.do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", sp.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		p.output.flush()
		p.signal(syscall.SIGKILL) // what it left behind in its group
		p.ended = time.Now()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(sig syscall.Signal) {
	// The only error to expect is that nothing is left to signal.
	_ = syscall.Kill(-p.pid(), sig)
}

// stop asks the process to end and kills it, with all it started, when ctx is
// done before it has. It returns when the process is gone.
func (p *process) stop(ctx context.Context) error {
	p.stopping.Store(true)
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		p.signal(syscall.SIGKILL)
		<-p.exited
		return fmt.Errorf("%s did not stop in time and was killed", p.name)
	}
}

// how says how the process ended.
func (p *process) how() string {
	if p.err != nil && !errors.Is(p.err, exec.ErrWaitDelay) {
		return p.err.Error()
	}
	return "exit status 0"
}

// reason says that too, and what the process said last.
func (p *process) reason() error {
	last := p.output.last()
	if len(last) == 0 {
		return fmt.Errorf("%s ended (%s) without a word", p.name, p.how())
	}
	return fmt.Errorf("%s ended (%s); its last lines:\n    %s", p.name, p.how(), strings.Join(last, "\n    "))
}
