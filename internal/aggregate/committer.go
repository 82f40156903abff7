package aggregate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// ErrNotCommitted says that a command could not be written in time, because the
// store does not answer or others kept changing the same keys. All, some or
// nothing of it may be in the store: doing the same command again is safe and
// settles it.
var ErrNotCommitted = errors.New("not committed")

// ErrClosed says that the committer takes no more commands.
var ErrClosed = errors.New("committer is closed")

const (
	maxBatchCommands = 128
	maxBatchKeys     = 2048
	commitTimeout    = 5 * time.Second
	// A batch that failed this often is split, so that what can't be written
	// fails alone.
	splitAfter = 3
)

// Committer decides and writes commands, many at a time, one batch after the
// other. Its methods may be called from several goroutines.
type Committer struct {
	store *Store
	queue chan *command
	stop  chan struct{}
	done  sync.WaitGroup
	once  sync.Once
}

type command struct {
	ctx    context.Context
	keys   []string
	decide func(*Tx) error
	answer chan error
}

// NewCommitter starts a committer over store; Close ends it.
func NewCommitter(store *Store) *Committer {
	c := &Committer{store: store, queue: make(chan *command), stop: make(chan struct{})}
	c.done.Add(1)
	go c.run()
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
// before it fails. Another error wraps ErrNotCommitted or ErrClosed, or is that
// of ctx: the command may then have been done all the same.
func (c *Committer) Do(ctx context.Context, keys []string, decide func(*Tx) error) error {
	cmd := &command{ctx: ctx, keys: keys, decide: decide, answer: make(chan error, 1)}
	select {
	case c.queue <- cmd:
	case <-c.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-cmd.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Committer) run() {
	defer c.done.Done()
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

// commit answers every command of the batch. What it asks of the sidecar stands
// in the trace of the first one.
func (c *Committer) commit(batch []*command) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), commitTimeout)
	defer cancel()
	written := map[string]bool{} // keys beyond those named, of attempts that failed
	for attempt := 1; ; attempt++ {
		err := c.attempt(ctx, batch, written)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			for _, cmd := range batch {
				cmd.answer <- fmt.Errorf("%w within %s: %w", ErrNotCommitted, commitTimeout, err)
			}
			return
		}
		if attempt == splitAfter && len(batch) > 1 {
			for _, cmd := range batch {
				c.commit([]*command{cmd})
			}
			return
		}
		pause(ctx, attempt)
	}
}

// attempt decides and writes the batch once. It has answered all commands if it
// returns nil, and none otherwise.
func (c *Committer) attempt(ctx context.Context, batch []*command, written map[string]bool) error {
	keys := make([]string, 0, len(written)+len(batch))
	seen := make(map[string]bool, cap(keys))
	add := func(key string) {
		if !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	for _, cmd := range batch {
		for _, key := range cmd.keys {
			add(key)
		}
	}
	for key := range written {
		add(key)
	}
	docs, err := c.store.Load(ctx, keys...)
	if err != nil {
		return err
	}
	tx := newTx(docs)
	answers := make([]error, len(batch))
	for i, cmd := range batch {
		if answers[i] = cmd.ctx.Err(); answers[i] == nil {
			answers[i] = cmd.decide(tx)
		}
	}
	stages, err := tx.writes()
	if err != nil {
		return err
	}
	for _, docs := range stages {
		for _, d := range docs {
			written[d.Key] = true
		}
		if err := c.store.Write(ctx, docs...); err != nil {
			return err
		}
	}
	for i, cmd := range batch {
		cmd.answer <- answers[i]
	}
	return nil
}

// pause waits a random time that grows with the attempts up to 100 ms, so that
// replicas which collided do not collide again.
func pause(ctx context.Context, attempt int) {
	most := min(time.Millisecond<<min(attempt, 7), 100*time.Millisecond)
	timer := time.NewTimer(rand.N(most))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
