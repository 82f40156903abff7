package console

import (
	"context"
	"errors"
	"time"

	"orderflow/internal/aggregate"
)

// projectionKey holds which generation of the timelines is shown.
const projectionKey = "projection"

// errNoRebuild: nobody has begun to rebuild that generation.
var errNoRebuild = errors.New("no such generation is being built")

// projection says how far a rebuild is. Timelines are written once for each
// generation that counts:
//
//	        begin: the next generation is built beside the one that is shown
//	Building == 0 ──────────────────────────────────▶ Building == Shown+1
//	       ▲                                               │
//	       └─── show: it takes that one's place, ──────────┘
//	            which is dropped, order by order
//
// Every event goes into both, those of the topics and those of a replay, and each
// once. So nothing need be in step: what was published before the rebuild began is
// in the services' records, which the replay tells; what was published after it
// goes into both here. A generation that is shown too early is filled by the rest
// of its replay.
type projection struct {
	Shown    int       `json:"shown"`
	Building int       `json:"building,omitempty"` // 0: none
	Since    time.Time `json:"since,omitzero"`     // when it was begun
}

// written are the generations that an event goes into.
func (p projection) written() []int {
	if p.Building == 0 {
		return []int{p.Shown}
	}
	return []int{p.Shown, p.Building}
}

// begin begins to build the next generation, unless one is being built.
func (t *timelines) begin(ctx context.Context, at time.Time) (projection, error) {
	return t.change(ctx, func(p *projection) error {
		if p.Building == 0 {
			p.Building, p.Since = p.Shown+1, at
		}
		return nil
	})
}

// show has the generation shown that was built. Doing it again changes nothing.
func (t *timelines) show(ctx context.Context, generation int) (projection, error) {
	return t.change(ctx, func(p *projection) error {
		switch generation {
		case p.Shown:
		case p.Building:
			*p = projection{Shown: generation}
		default:
			return errNoRebuild
		}
		return nil
	})
}

func (t *timelines) change(ctx context.Context, f func(*projection) error) (changed projection, err error) {
	err = t.committer.Do(ctx, []string{projectionKey}, func(tx *aggregate.Tx) error {
		p, err := readProjection(tx)
		if err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
		tx.Put(projectionKey, p)
		changed = *p
		return nil
	})
	return changed, err
}

// projection is how things stand.
func (t *timelines) projection(ctx context.Context) (projection, error) {
	docs, err := t.store.Load(ctx, projectionKey)
	if err != nil {
		return projection{}, err
	}
	return projectionOf(docs[projectionKey])
}

// The first generation is number 1, and needs no document.

func projectionOf(doc aggregate.Document) (projection, error) {
	p, err := read[projection](doc)
	if errors.Is(err, errNotFound) {
		return projection{Shown: 1}, nil
	}
	return p, err
}

func readProjection(tx *aggregate.Tx) (*projection, error) {
	p, err := aggregate.Get[projection](tx, projectionKey)
	if err == nil && p == nil {
		p = &projection{Shown: 1}
	}
	return p, err
}
