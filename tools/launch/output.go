package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
)

// maxLine bounds what is kept of output that has no line breaks; the rest goes
// on in the next line.
const maxLine = 64 << 10

// console is where all processes and the launcher itself write, whole lines at
// a time, each under its writer's name.
type console struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
	width  int // of the longest name
	names  []string
}

// newConsole colours the names if out is a terminal and NO_COLOR is not set
// (https://no-color.org).
func newConsole(out io.Writer, getenv func(string) string) *console {
	return &console{out: out, colour: isTerminal(out) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && info.Name() != "null"
}

// announce reserves room for a name, so that all text starts in one column, and
// gives it its colour.
func (c *console) announce(names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		c.width = max(c.width, len(name))
		c.names = append(c.names, name)
	}
}

func (c *console) line(name, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	prefix := fmt.Sprintf("%-*s", c.width, name)
	if c.colour {
		colour := 0
		for i, known := range c.names {
			if known == name {
				colour = i
			}
		}
		// The six colours that are neither black nor white, from cyan on.
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", 31+(colour+5)%6, prefix)
	}
	fmt.Fprintf(c.out, "%s | %s\n", prefix, text)
}

// say prints a message of the launcher itself.
func (c *console) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.out, format+"\n", args...)
}

// lines cuts what a process writes into lines and hands each on; it remembers
// the last ones, which say why the process died. It is safe for use by several
// goroutines.
type lines struct {
	mu      sync.Mutex
	partial []byte
	tail    []string
	each    func(line string)
}

const tailLines = 12

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		end := bytes.IndexByte(l.partial, '\n')
		switch {
		case end >= 0:
			l.emit(l.partial[:end])
			l.partial = l.partial[end+1:]
		case len(l.partial) > maxLine:
			l.emit(l.partial)
			l.partial = nil
		default:
			return len(p), nil
		}
	}
}

// flush hands on what came without a line break at the end.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.emit(l.partial)
		l.partial = nil
	}
}

func (l *lines) emit(line []byte) {
	text := strings.TrimRight(string(line), "\r")
	if len(l.tail) == tailLines {
		l.tail = l.tail[1:]
	}
	l.tail = append(l.tail, text)
	l.each(text)
}

// last returns the last lines, oldest first.
func (l *lines) last() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.tail...)
}

var complaint = regexp.MustCompile(`\blevel=(error|fatal)\b|"level":"(error|fatal)"|^panic:|^fatal error:`)

// isComplaint picks the lines of a sidecar's log that are worth showing when the
// log as a whole goes to a file. Warnings aren't: each start has some, about what
// is left out on purpose (mTLS, actors, the scheduler).
func isComplaint(line string) bool { return complaint.MatchString(line) }
