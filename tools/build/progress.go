package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// goBuild is one `go build`.
type goBuild struct {
	label    string
	dir      string // where go runs, which decides the module
	out      string // a file, or a directory that is there for several programs
	packages []string
	flags    []string
	count    bool // find out how many packages there are first; takes a second
}

// run builds and shows how far it is. It prints nothing if that takes no time.
// Programs are static and the same wherever they are built: no cgo, no paths.
func (b goBuild) run() error {
	progress := newProgress(b.label)
	defer progress.close()
	if b.count {
		list := append([]string{"list", "-deps"}, b.flags...)
		out, err := goCommand(b.dir, progress, append(list, b.packages...)...)
		if err != nil {
			return err
		}
		progress.expect(bytes.Count(out, []byte("\n")))
	}
	args := append([]string{"build", "-v", "-trimpath", "-buildvcs=false", "-o", b.out}, b.flags...)
	_, err := goCommand(b.dir, progress, append(args, b.packages...)...)
	return err
}

// goCommand runs go and hands on what it says; an error has what was not progress.
func goCommand(dir string, progress *progress, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var trouble []string
	scanner := bufio.NewScanner(stderr)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if line := scanner.Text(); !progress.take(line) {
			trouble = append(trouble, line)
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // if a line was too long: go must not block on it
	if err := cmd.Wait(); err != nil {
		progress.close()
		return nil, fmt.Errorf("go %s in %s: %w\n%s", args[0], filepath.Base(dir), err, strings.Join(trouble, "\n"))
	}
	return out.Bytes(), nil
}

// progress is one line that says what has been done so far: rewritten in place on
// a terminal, else a new line now and then.
type progress struct {
	label string
	begun time.Time
	stop  chan struct{}
	done  sync.WaitGroup
	once  sync.Once

	mu                             sync.Mutex
	downloaded, compiled, expected int
}

func newProgress(label string) *progress {
	p := &progress{label: label, begun: time.Now(), stop: make(chan struct{})}
	every, start, end := 10*time.Second, "", "\n"
	info, err := os.Stdout.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	if terminal {
		every, start, end = 500*time.Millisecond, "\r\x1b[K", ""
	}
	p.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-tick.C:
				fmt.Print(start + p.String() + end)
				shown = true
			case <-p.stop:
				if shown {
					fmt.Print(start + p.String() + "\n")
				}
				return
			}
		}
	})
	return p
}

// take reports whether the line was progress: a download, or the name of a package
// that go is about to compile.
func (p *progress) take(line string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case strings.HasPrefix(line, "go: downloading"):
		p.downloaded++
	case strings.ContainsAny(line, " :#"):
		return false
	default:
		p.compiled++
	}
	return true
}

func (p *progress) expect(packages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = packages
}

func (p *progress) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	what := fmt.Sprintf("%d modules downloaded", p.downloaded)
	switch {
	case p.expected > 0:
		what = fmt.Sprintf("%d of at most %d packages compiled", p.compiled, p.expected)
	case p.compiled > 0:
		what = fmt.Sprintf("%d packages compiled", p.compiled)
	}
	return fmt.Sprintf("%s: %s, %s", p.label, what, time.Since(p.begun).Round(time.Second))
}

// close ends the line. It may be called more than once.
func (p *progress) close() {
	p.once.Do(func() { close(p.stop) })
	p.done.Wait()
}
