package console

import (
	"context"
	"sync"
	"time"
)

// giveWay is longer than an order takes from its placing to its e-mail on a system
// that does nothing else.
const giveWay = 50 * time.Millisecond

// lull has this service give way to those that it watches. While they work on an
// order it would take processor, store and disk from them at every step: measured on
// two processors, a sixth of the time from an order to its e-mail. So the first
// event after a while waits, and those that come meanwhile wait with it and are
// written together. What comes right behind others does not wait: under load, and
// with what had piled up, nothing is held up.
type lull struct {
	mu   sync.Mutex
	due  time.Time // until when those wait that came before it
	last time.Time // when an event was kept last
}

// await returns when it is this event's turn, or ctx ends.
func (l *lull) await(ctx context.Context) {
	l.mu.Lock()
	now := time.Now()
	if now.Sub(l.due) > giveWay && now.Sub(l.last) > giveWay {
		l.due = now.Add(giveWay)
	}
	turn := time.NewTimer(l.due.Sub(now))
	l.mu.Unlock()
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-ctx.Done():
	}
}

// kept says that an event was kept just now.
func (l *lull) kept() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = time.Now()
}
