package aggregate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// ErrNotCommitted says that a command could not be written in time, because the
// store does not answer or others kept changing the same keys. All, some or
// nothing of it may be in the store: doing the same command again is safe and
// settles it.
var ErrNotCommitted = errors.New("not committed")

// ErrFault says that a command failed for a reason of its own: it panicked, it read
// a document that is damaged, or put a value that can't be stored. Doing it again
// ends the same, unless somebody mends the program or the document.
var ErrFault = errors.New("command is at fault")

// ErrClosed says that the committer takes no more commands.
var ErrClosed = errors.New("committer is closed")

const (
	maxBatchCommands = 128
	maxBatchKeys     = 2048
	commitTimeout    = 5 * time.Second
	// A batch that failed this often is cut into ever smaller ones, so that
	// what can't be written fails alone.
	splitAfter = 3
)

// Committer decides and writes commands, many at a time, one batch after the
// other. Its methods may be called from several goroutines.
type Committer struct {
	store   *Store
	timeout time.Duration // of one batch
	queue   chan *command
	stop    chan struct{}
	done    sync.WaitGroup
	once    sync.Once
}

type command struct {
	ctx     context.Context
	keys    []string // those that the caller named
	unnamed []string // others, that decide has put
	decide  func(*Tx) error
	decided bool  // at least once; something of it may be in the store since
	failed  error // why it is left out of every batch, if it is
	answer  chan error
}

// NewCommitter starts a committer over store; Close ends it.
func NewCommitter(store *Store) *Committer { return newCommitter(store, commitTimeout) }

func newCommitter(store *Store, timeout time.Duration) *Committer {
	c := &Committer{store: store, timeout: timeout, queue: make(chan *command), stop: make(chan struct{})}
	c.done.Go(c.run)
	return c
}

// Close waits until the commands that were taken are answered and takes no more.
func (c *Committer) Close() {
	c.once.Do(func() { close(c.stop) })
	c.done.Wait()
}

// Do decides over what keys hold and writes what decide puts, or nothing if
// decide fails; its error is then Do's.
//
// decide may be called several times, each time over freshly read documents,
// and it may find there what an earlier call of it has put, in part or in whole:
// it must then decide the same, or undo it. It does no I/O, and changes nothing
// before it fails. If it panics, that is its error. It is not called any more
// once Do has returned.
//
// Another error wraps ErrNotCommitted or ErrClosed, or is that of ctx, which
// ends the wait for a place in a batch and not what is being written.
func (c *Committer) Do(ctx context.Context, keys []string, decide func(*Tx) error) error {
	cmd := &command{ctx: ctx, keys: keys, decide: decide, answer: make(chan error, 1)}
	tooLong := time.NewTimer(c.timeout)
	defer tooLong.Stop()
	select {
	case c.queue <- cmd:
		return <-cmd.answer
	case <-c.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	case <-tooLong.C:
		return fmt.Errorf("%w: the state store kept those before it for %s", ErrNotCommitted, c.timeout)
	}
}

func (c *Committer) run() {
	for {
		select {
		case <-c.stop:
			return
		case first := <-c.queue:
			c.commit(c.batch(first))
		}
	}
}

// batch is first and whatever else waits at this moment.
func (c *Committer) batch(first *command) []*command {
	batch, keys := []*command{first}, len(first.keys)
	for len(batch) < maxBatchCommands && keys < maxBatchKeys {
		select {
		case cmd := <-c.queue:
			batch = append(batch, cmd)
			keys += len(cmd.keys)
		default:
			return batch
		}
	}
	return batch
}

// commit answers every command of the batch.
func (c *Committer) commit(batch []*command) {
	deadline := time.Now().Add(c.timeout)
	var before error // what failed last
	for attempt := 1; len(batch) > 0; attempt++ {
		size := max(1, len(batch)>>max(0, attempt-splitAfter))
		var left []*command
		var failure error
		for group := range slices.Chunk(batch, size) {
			rest, err := c.attempt(deadline, group)
			left = append(left, rest...)
			if err != nil {
				failure = err
			}
		}
		batch = left
		if failure == nil {
			continue
		}
		// An attempt that the deadline cut off does not know what is wrong.
		if before != nil && !time.Now().Before(deadline) {
			failure = fmt.Errorf("%w (before that: %w)", failure, before)
		}
		before = failure
		if !pause(deadline, attempt) {
			for _, cmd := range batch {
				cmd.answer <- fmt.Errorf("%w within %s: %w", ErrNotCommitted, c.timeout, failure)
			}
			return
		}
	}
}

// attempt decides and writes the commands once, and answers them. It returns
// those that it has not answered: all after an error, and without one those that
// can't be written together with the ones before them. What it asks of the
// sidecar stands in the trace of the first command.
func (c *Committer) attempt(deadline time.Time, group []*command) ([]*command, error) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(group[0].ctx), deadline)
	defer cancel()
	var keys []string
	seen := map[string]bool{}
	for _, cmd := range group {
		for _, named := range [][]string{cmd.keys, cmd.unnamed} {
			for _, key := range named {
				if !seen[key] {
					seen[key] = true
					keys = append(keys, key)
				}
			}
		}
	}
	docs, err := c.store.Load(ctx, keys...)
	if err != nil {
		return group, err
	}
	answers, stages := decide(docs, group)
	for _, docs := range stages {
		if err := c.store.Write(ctx, docs...); err != nil {
			return group, err
		}
	}
	for i, answer := range answers {
		group[i].answer <- answer
	}
	return group[len(answers):], nil
}

// decide has the commands decide in turn. It answers for as many of them, from
// the first on, as can be written together, and with what is to be written.
//
// A command that panics, or puts what can't be stored, may have left the values
// that all share half changed. It is left out, and all begin anew.
func decide(docs map[string]Document, group []*command) (answers []error, stages [][]Document) {
anew:
	for {
		tx := newTx(docs)
		answers = make([]error, len(group))
		for i, cmd := range group {
			answers[i] = tx.run(cmd)
			if tx.clash {
				group = group[:i]
				continue anew
			}
			if tx.spoilt {
				continue anew
			}
		}
		if stages = tx.writes(); tx.spoilt {
			continue anew
		}
		return answers, stages
	}
}

// pause waits a random time that grows with the attempts up to 100 ms, so that
// replicas which collided do not collide again. It returns false at the deadline.
func pause(deadline time.Time, attempt int) bool {
	most := min(time.Millisecond<<min(attempt, 7), 100*time.Millisecond)
	time.Sleep(min(rand.N(most), time.Until(deadline)))
	return time.Now().Before(deadline)
}
