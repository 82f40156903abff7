package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"orderflow/internal/daprtest"
)

// patience is a time limit that only a test that fails reaches.
const patience = 10 * time.Second

// tally is an aggregate that recognises a command that it has seen.
type tally struct {
	Seen []string `json:"seen"`
}

// record has the tallies of keys see id, each once.
func record(id string, keys ...string) func(*Tx) error {
	return func(tx *Tx) error {
		for _, key := range keys {
			v, err := Get[tally](tx, key)
			if err != nil {
				return err
			}
			if v == nil {
				v = &tally{}
			}
			if !slices.Contains(v.Seen, id) {
				v.Seen = append(v.Seen, id)
			}
			tx.Put(key, v)
		}
		return nil
	}
}

func seen(t *testing.T, s *daprtest.Sidecar, key string) []string {
	t.Helper()
	b := s.State(key)
	if b == nil {
		return nil
	}
	var v tally
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s holds %q: %v", key, b, err)
	}
	return v.Seen
}

func wantSeen(t *testing.T, s *daprtest.Sidecar, key string, want ...string) {
	t.Helper()
	if got := seen(t, s, key); !slices.Equal(got, want) {
		t.Errorf("%s has seen %q, want %q", key, got, want)
	}
}

func inBothModes(t *testing.T, test func(*testing.T, *daprtest.Sidecar, *Store)) {
	for name, mode := range map[string]daprtest.Mode{"Redis": daprtest.RedisLike, "SQL": daprtest.SQLLike} {
		t.Run(name, func(t *testing.T) {
			sidecar, client := daprtest.Start(t, mode)
			test(t, sidecar, NewStore(client, "statestore"))
		})
	}
}

func startCommitter(t *testing.T, store *Store, timeout time.Duration) *Committer {
	c := newCommitter(store, timeout)
	t.Cleanup(c.Close)
	return c
}

// together commits commands as one batch and returns their answers.
func together(store *Store, timeout time.Duration, commands ...*command) []error {
	c := &Committer{store: store, timeout: timeout}
	for _, cmd := range commands {
		cmd.answer = make(chan error, 1)
		if cmd.ctx == nil {
			cmd.ctx = context.Background()
		}
	}
	c.commit(slices.Clone(commands))
	answers := make([]error, len(commands))
	for i, cmd := range commands {
		answers[i] = <-cmd.answer
	}
	return answers
}

func noErrors(t *testing.T, errs ...error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
}

// receive fails the test if nothing comes.
func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// gate holds calls of a name until it is opened.
type gate struct {
	reached chan struct{}
	open    chan struct{}
}

func holdCalls(t *testing.T, s *daprtest.Sidecar, name string) *gate {
	g := &gate{reached: make(chan struct{}, 1000), open: make(chan struct{})}
	s.Fail(func(call string) error {
		if call == name {
			g.reached <- struct{}{}
			<-g.open
		}
		return nil
	})
	t.Cleanup(g.release)
	return g
}

func (g *gate) release() {
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

func TestConcurrentCommandsOnOneKeyAllCountOnce(t *testing.T) {
	const clients, each = 64, 15
	for _, committers := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d committers", committers), func(t *testing.T) {
			inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
				var cs []*Committer
				for range committers {
					cs = append(cs, startCommitter(t, store, 30*time.Second))
				}
				var want []string
				var wg sync.WaitGroup
				for i := range clients {
					for j := range each {
						want = append(want, fmt.Sprintf("%d-%d", i, j))
					}
					wg.Go(func() {
						for j := range each {
							id := fmt.Sprintf("%d-%d", i, j)
							if err := cs[i%committers].Do(t.Context(), []string{"hot", "other"}, record(id, "hot", "other")); err != nil {
								t.Errorf("%s: %v", id, err)
							}
						}
					})
				}
				wg.Wait()
				slices.Sort(want)
				for _, key := range []string{"hot", "other"} {
					got := seen(t, s, key)
					slices.Sort(got)
					if !slices.Equal(got, want) {
						t.Errorf("%s has seen %d commands, want %d, each once", key, len(got), len(want))
					}
				}
				loads := s.Calls("GetBulkState")
				t.Logf("%d commands took %d loads", clients*each, loads)
				if committers == 1 && loads > clients*each/4 {
					t.Errorf("%d commands took %d loads: they were not merged", clients*each, loads)
				}
			})
		})
	}
}

func TestLoneCommandTakesOneLoadAndOneWrite(t *testing.T) {
	inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
		c := startCommitter(t, store, patience)
		noErrors(t, c.Do(t.Context(), []string{"k"}, record("1", "k")))
		if loads, saves := s.Calls("GetState"), s.Calls("SaveState"); loads != 1 || saves != 1 {
			t.Errorf("%d loads and %d saves, want one each", loads, saves)
		}
	})
}

func TestHalfAppliedTransactionIsSettledByDecidingAgain(t *testing.T) {
	inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
		noErrors(t, together(store, patience, &command{keys: []string{"a", "b"}, decide: record("first", "a", "b")})...)

		// Another replica changes b between our load and our transaction.
		var once sync.Once
		s.Fail(func(call string) error {
			if call == "ExecuteStateTransaction" {
				once.Do(func() {
					noErrors(t, together(store, patience, &command{keys: []string{"b"}, decide: record("rival", "b")})...)
				})
			}
			return nil
		})
		var found [][]string // what decide saw of a, call by call
		noErrors(t, together(store, patience, &command{keys: []string{"a", "b"}, decide: func(tx *Tx) error {
			a, err := Get[tally](tx, "a")
			if err != nil {
				return err
			}
			found = append(found, slices.Clone(a.Seen))
			return record("ours", "a", "b")(tx)
		}})...)

		wantSeen(t, s, "a", "first", "ours")
		wantSeen(t, s, "b", "first", "rival", "ours")
		want := [][]string{{"first"}, {"first"}}
		if t.Name() == "TestHalfAppliedTransactionIsSettledByDecidingAgain/Redis" {
			want[1] = []string{"first", "ours"} // the half that Redis applied
		}
		if fmt.Sprint(found) != fmt.Sprint(want) {
			t.Errorf("decide saw %v, want %v", found, want)
		}
	})
}

func TestOfTwoThatCreateAKeyOneWinsAndTheOtherSeesIt(t *testing.T) {
	inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
		// Both have read that there is nothing before either writes.
		var loaded sync.WaitGroup
		loaded.Add(2)
		var loads atomic.Int32
		s.Fail(func(call string) error {
			if call == "GetBulkState" && loads.Add(1) <= 2 {
				loaded.Done()
				loaded.Wait()
			}
			return nil
		})
		type owner struct{ Name string }
		create := func(name string) func(*Tx) error {
			return func(tx *Tx) error {
				for _, key := range []string{"x", "y"} {
					o, err := Get[owner](tx, key)
					if err != nil {
						return err
					}
					if o != nil && o.Name != name {
						return errors.New("taken by " + o.Name)
					}
					if key == "x" {
						tx.Put(key, &owner{name})
					} else {
						tx.PutAfter(key, &owner{name}) // who gets x gets y
					}
				}
				return nil
			}
		}
		answers := map[string]error{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, name := range []string{"ann", "bob"} {
			wg.Go(func() {
				err := together(store, patience, &command{keys: []string{"x", "y"}, decide: create(name)})[0]
				mu.Lock()
				answers[name] = err
				mu.Unlock()
			})
		}
		wg.Wait()
		var x, y owner
		if json.Unmarshal(s.State("x"), &x) != nil || json.Unmarshal(s.State("y"), &y) != nil {
			t.Fatalf("x is %q, y is %q", s.State("x"), s.State("y"))
		}
		if x != y {
			t.Fatalf("x is %s's and y is %s's", x.Name, y.Name)
		}
		for name, err := range answers {
			if lost := err != nil; lost != (name != x.Name) || lost && !strings.Contains(err.Error(), "taken by "+x.Name) {
				t.Errorf("%s owns both; the answer to %s is %v", x.Name, name, err)
			}
		}
	})
}

// failNth fails the nth moment of a write: before a call, after it, and at each
// key that is saved. It reports whether there was one.
func failNth(s *daprtest.Sidecar, n int64) (failed func() bool) {
	var count atomic.Int64
	s.Fail(func(call string) error {
		if strings.HasPrefix(call, "Get") {
			return nil
		}
		if count.Add(1) == n {
			return errors.New("injected at " + call)
		}
		return nil
	})
	return func() bool { return count.Load() >= n }
}

func TestStagesAreInOrderWhicheverWriteFails(t *testing.T) {
	put := func(id string, set func(*Tx, string, any), key string) func(*Tx) error {
		return func(tx *Tx) error {
			v, err := Get[tally](tx, key)
			if err != nil {
				return err
			}
			if v == nil {
				v = &tally{}
			}
			if !slices.Contains(v.Seen, id) {
				v.Seen = append(v.Seen, id)
			}
			set(tx, key, v)
			return nil
		}
	}
	inStages := func(id string, first, second, third string) *command {
		return &command{keys: []string{first, second, third}, decide: func(tx *Tx) error {
			return errors.Join(put(id, (*Tx).PutBefore, first)(tx), put(id, (*Tx).Put, second)(tx), put(id, (*Tx).PutAfter, third)(tx))
		}}
	}
	// What a command puts late must not be there without what it puts early.
	type dependence struct{ id, late, early string }
	cases := []struct {
		name     string
		commands func(p string) []*command // over keys that begin with p
		order    []dependence
	}{
		{"one command", func(p string) []*command {
			return []*command{inStages("1", p+"a", p+"b", p+"c")}
		}, []dependence{{"1", "b", "a"}, {"1", "c", "b"}}},
		{"two commands over the same keys", func(p string) []*command {
			return []*command{inStages("1", p+"a", p+"b", p+"c"), inStages("2", p+"a", p+"b", p+"c")}
		}, []dependence{{"1", "b", "a"}, {"1", "c", "b"}, {"2", "b", "a"}, {"2", "c", "b"}}},
		{"the other way round", func(p string) []*command {
			return []*command{inStages("1", p+"a", p+"b", p+"c"), inStages("2", p+"c", p+"b", p+"a")}
		}, []dependence{{"1", "b", "a"}, {"1", "c", "b"}, {"2", "b", "c"}, {"2", "a", "b"}}},
		{"what one puts late, the next puts as usual", func(p string) []*command {
			return []*command{
				{keys: []string{p + "index", p + "order"}, decide: func(tx *Tx) error {
					return errors.Join(put("1", (*Tx).Put, p+"index")(tx), put("1", (*Tx).PutAfter, p+"order")(tx))
				}},
				{keys: []string{p + "order"}, decide: put("2", (*Tx).Put, p+"order")},
			}
		}, []dependence{{"1", "order", "index"}}},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
				for n := int64(1); ; n++ {
					prefix := fmt.Sprint(n, "-")
					commands := tt.commands(prefix)
					check := func(when string) {
						for _, d := range tt.order {
							if slices.Contains(seen(t, s, prefix+d.late), d.id) && !slices.Contains(seen(t, s, prefix+d.early), d.id) {
								t.Errorf("write %d failed: %s %s holds %s and %s does not", n, when, d.late, d.id, d.early)
							}
						}
					}
					failed := failNth(s, n)
					// One attempt, as if the process died then.
					c := &Committer{store: store}
					left := commands
					for _, cmd := range commands {
						cmd.ctx, cmd.answer = t.Context(), make(chan error, 1)
					}
					var err error
					for len(left) > 0 && err == nil {
						left, err = c.attempt(time.Now().Add(patience), left)
						check("after an attempt")
					}
					if !failed() {
						if err != nil {
							t.Fatalf("nothing failed, and yet: %v", err)
						}
						return
					}
					s.Fail(nil)
					noErrors(t, together(store, patience, commands...)...)
					check("in the end")
					for _, d := range tt.order {
						if !slices.Contains(seen(t, s, prefix+d.late), d.id) {
							t.Errorf("write %d failed: %s never came to hold %s", n, d.late, d.id)
						}
					}
				}
			})
		})
	}
}

func TestStoreThatIsDownEndsInErrNotCommittedInTime(t *testing.T) {
	const timeout = 300 * time.Millisecond
	for name, down := range map[string]func(*testing.T, *daprtest.Sidecar){
		"it fails":   func(_ *testing.T, s *daprtest.Sidecar) { s.Fail(func(string) error { return errors.New("down") }) },
		"it hangs":   func(t *testing.T, s *daprtest.Sidecar) { holdCalls(t, s, "GetBulkState") },
		"writes do":  func(t *testing.T, s *daprtest.Sidecar) { holdCalls(t, s, "SaveState") },
		"after them": func(t *testing.T, s *daprtest.Sidecar) { holdCalls(t, s, "after SaveState") },
	} {
		t.Run(name, func(t *testing.T) {
			s, client := daprtest.Start(t, daprtest.RedisLike)
			c := startCommitter(t, NewStore(client, "statestore"), timeout)
			down(t, s)
			begin := time.Now()
			var wg sync.WaitGroup
			for i := range 1500 { // many batches
				wg.Go(func() {
					key := fmt.Sprint("k", i)
					if err := c.Do(t.Context(), []string{key, "shared"}, record("1", key, "shared")); !errors.Is(err, ErrNotCommitted) {
						t.Errorf("%s: %v, want ErrNotCommitted", key, err)
					}
				})
			}
			wg.Wait()
			// The wait for a place and its own batch; the rest is for a slow machine.
			if took := time.Since(begin); took > 2*timeout+2*time.Second {
				t.Errorf("it took %s to give up", took)
			}
		})
	}
}

func TestErrorOfAnAttemptCutOffByTheDeadlineNamesTheOneBefore(t *testing.T) {
	inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
		var calls atomic.Int32
		cutOff := make(chan struct{})
		s.Fail(func(string) error {
			if calls.Add(1) == 1 {
				return errors.New("the store is away")
			}
			<-cutOff
			return nil
		})
		err := together(store, time.Second, &command{keys: []string{"k"}, decide: record("1", "k")})[0]
		close(cutOff)
		if !errors.Is(err, ErrNotCommitted) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the store is away") {
			t.Errorf("%v", err)
		}
	})
}

func TestWhatWasWrittenByATimedOutCommitIsSettledByTheNext(t *testing.T) {
	inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
		g := holdCalls(t, s, "after SaveState")
		err := together(store, 50*time.Millisecond, &command{keys: []string{"k"}, decide: record("1", "k")})[0]
		if !errors.Is(err, ErrNotCommitted) {
			t.Fatalf("%v, want ErrNotCommitted", err)
		}
		g.release()
		noErrors(t, together(store, patience, &command{keys: []string{"k"}, decide: record("1", "k")})...)
		wantSeen(t, s, "k", "1")
	})
}

func TestWhatTheStoreRefusesFailsAlone(t *testing.T) {
	inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
		s.Fail(func(call string) error {
			if call == "save k7" {
				return errors.New("this key is not for you")
			}
			return nil
		})
		var commands []*command
		for i := range maxBatchCommands {
			key := fmt.Sprint("k", i)
			commands = append(commands, &command{keys: []string{key}, decide: record("1", key)})
		}
		for i, err := range together(store, time.Second, commands...) {
			if refused := i == 7; refused != errors.Is(err, ErrNotCommitted) || !refused && err != nil {
				t.Errorf("answer %d: %v", i, err)
			}
			if i != 7 {
				wantSeen(t, s, fmt.Sprint("k", i), "1")
			}
		}
	})
}

func TestCommandThatSpoilsABatchIsLeftOutOfIt(t *testing.T) {
	type strange struct{ N float64 }
	spoil := map[string]struct {
		decide func(*Tx) error
		want   string
	}{
		"panics":                     {func(*Tx) error { panic("ouch") }, "ouch"},
		"indexes out of range":       {func(tx *Tx) error { var none []int; return fmt.Errorf("%d", none[len(tx.entries)]) }, "out of range"},
		"puts what JSON has not":     {func(tx *Tx) error { tx.Put("mine", &strange{math.NaN()}); return nil }, "NaN"},
		"puts what is no pointer":    {func(tx *Tx) error { tx.Put("mine", strange{}); return nil }, "pointer"},
		"puts a nil pointer":         {func(tx *Tx) error { tx.Put("mine", (*strange)(nil)); return nil }, "pointer"},
		"puts what is far too large": {func(tx *Tx) error { tx.Put("mine", &tally{[]string{strings.Repeat("x", maxWriteBytes)}}); return nil }, "too many"},
	}
	for name, tt := range spoil {
		t.Run(name, func(t *testing.T) {
			inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
				noErrors(t, together(store, patience, &command{keys: []string{"k"}, decide: record("0", "k")})...)
				before := s.Calls("GetBulkState")
				answers := together(store, patience,
					&command{keys: []string{"k"}, decide: record("1", "k")},
					&command{keys: []string{"k", "mine"}, decide: func(tx *Tx) error {
						v, err := Get[tally](tx, "k")
						if err != nil {
							return err
						}
						v.Seen = append(v.Seen, "half") // and then it fails
						return tt.decide(tx)
					}},
					&command{keys: []string{"k"}, decide: record("2", "k")},
				)
				noErrors(t, answers[0], answers[2])
				if err := answers[1]; err == nil || errors.Is(err, ErrNotCommitted) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("answer to the one that %s: %v", name, err)
				}
				wantSeen(t, s, "k", "0", "1", "2")
				if s.State("mine") != nil {
					t.Errorf("it wrote %q", s.State("mine"))
				}
				if loads := s.Calls("GetBulkState") - before; loads != 1 {
					t.Errorf("%d loads, want 1", loads)
				}
			})
		})
	}
}

func TestCommitterOutlivesAPanic(t *testing.T) {
	s, client := daprtest.Start(t, daprtest.RedisLike)
	c := startCommitter(t, NewStore(client, "statestore"), patience)
	err := c.Do(t.Context(), []string{"k"}, func(*Tx) error { panic("ouch") })
	if err == nil || !strings.Contains(err.Error(), "committer_test.go") {
		t.Errorf("%v, want an error that says where it was", err)
	}
	noErrors(t, c.Do(t.Context(), []string{"k"}, record("1", "k")))
	wantSeen(t, s, "k", "1")
}

func TestDecideThatFailsWritesNothing(t *testing.T) {
	inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
		refused := errors.New("refused")
		answers := together(store, patience,
			&command{keys: []string{"k"}, decide: func(*Tx) error { return refused }},
			&command{keys: []string{"k"}, decide: func(tx *Tx) error { _, err := Get[tally](tx, "not named"); return err }},
		)
		if answers[0] != refused {
			t.Errorf("%v, want decide's own error", answers[0])
		}
		if answers[1] == nil || !strings.Contains(answers[1].Error(), "not named") {
			t.Errorf("%v, want the key", answers[1])
		}
		if n := s.Calls("SaveState") + s.Calls("ExecuteStateTransaction"); n != 0 || s.Keys() != 0 {
			t.Errorf("%d writes, %d keys", n, s.Keys())
		}
	})
}

func TestWhatTheStoreHoldsAlreadyIsNotWritten(t *testing.T) {
	s, client := daprtest.Start(t, daprtest.RedisLike)
	c := startCommitter(t, NewStore(client, "statestore"), patience)
	for range 3 {
		noErrors(t, c.Do(t.Context(), []string{"a", "b"}, record("1", "a", "b")))
	}
	if saves, transactions := s.Calls("SaveState"), s.Calls("ExecuteStateTransaction"); saves != 1 || transactions != 0 {
		t.Errorf("%d saves and %d transactions, want only the one that created", saves, transactions)
	}
}

func TestCommandsOfABatchSeeEachOther(t *testing.T) {
	s, client := daprtest.Start(t, daprtest.SQLLike)
	store := NewStore(client, "statestore")
	var commands []*command
	for i := range 10 {
		commands = append(commands, &command{keys: []string{"k"}, decide: func(tx *Tx) error {
			v, err := Get[tally](tx, "k")
			if err != nil {
				return err
			}
			if n := 0; v != nil {
				n = len(v.Seen)
				if n != i {
					return fmt.Errorf("command %d sees %d before it", i, n)
				}
			}
			return record(fmt.Sprint(i), "k")(tx)
		}})
	}
	noErrors(t, together(store, patience, commands...)...)
	if n := s.Calls("SaveState"); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
}

func TestCancelledCommand(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()

	t.Run("waiting for a place", func(t *testing.T) {
		s, client := daprtest.Start(t, daprtest.RedisLike)
		c := startCommitter(t, NewStore(client, "statestore"), patience)
		g := holdCalls(t, s, "GetState")
		first := make(chan error, 1)
		go func() { first <- c.Do(t.Context(), []string{"a"}, record("1", "a")) }()
		receive(t, g.reached, "the first command's load")

		ctx, cancel := context.WithCancel(t.Context())
		second := make(chan error, 1)
		go func() {
			second <- c.Do(ctx, []string{"b"}, func(*Tx) error { t.Error("it was decided"); return nil })
		}()
		cancel()
		if err := receive(t, second, "the cancelled command"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
		g.release()
		noErrors(t, receive(t, first, "the first command"))
	})

	t.Run("in a batch, not decided yet", func(t *testing.T) {
		s, client := daprtest.Start(t, daprtest.RedisLike)
		answers := together(NewStore(client, "statestore"), patience,
			&command{keys: []string{"k"}, decide: record("1", "k"), ctx: cancelled},
			&command{keys: []string{"k"}, decide: record("2", "k")})
		noErrors(t, answers[1])
		if !errors.Is(answers[0], context.Canceled) {
			t.Errorf("%v, want context.Canceled", answers[0])
		}
		wantSeen(t, s, "k", "2")
	})

	t.Run("decided and half written is carried through", func(t *testing.T) {
		s, client := daprtest.Start(t, daprtest.RedisLike)
		store := NewStore(client, "statestore")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		s.Fail(func(call string) error {
			if call == "save b" && ctx.Err() == nil {
				cancel()
				return errors.New("injected")
			}
			return nil
		})
		noErrors(t, together(store, patience, &command{keys: []string{"a", "b"}, decide: record("1", "a", "b"), ctx: ctx})...)
		wantSeen(t, s, "a", "1")
		wantSeen(t, s, "b", "1")
	})

	t.Run("Do does not return while decide may run", func(t *testing.T) {
		s, client := daprtest.Start(t, daprtest.RedisLike)
		c := startCommitter(t, NewStore(client, "statestore"), patience)
		g := holdCalls(t, s, "SaveState")
		ctx, cancel := context.WithCancel(t.Context())
		decided := "" // unguarded: the race detector watches it
		answer := make(chan error, 1)
		go func() {
			err := c.Do(ctx, []string{"k"}, func(tx *Tx) error { decided += "x"; return record("1", "k")(tx) })
			decided += " and read"
			answer <- err
		}()
		receive(t, g.reached, "the save")
		cancel()
		g.release()
		noErrors(t, receive(t, answer, "the answer"))
		wantSeen(t, s, "k", "1")
	})
}

func TestCloseAnswersWhatWasTakenAndRefusesTheRest(t *testing.T) {
	s, client := daprtest.Start(t, daprtest.RedisLike)
	c := NewCommitter(NewStore(client, "statestore"))
	g := holdCalls(t, s, "GetState")
	taken := make(chan error, 1)
	go func() { taken <- c.Do(t.Context(), []string{"a"}, record("1", "a")) }()
	receive(t, g.reached, "the load")

	waiting := make(chan error, 1)
	go func() { waiting <- c.Do(t.Context(), []string{"b"}, record("1", "b")) }()
	closed := make(chan error, 2)
	for range 2 {
		go func() { c.Close(); closed <- nil }()
	}
	if err := receive(t, waiting, "the one that waits"); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	select {
	case <-closed:
		t.Error("Close returned before what was taken is answered")
	default:
	}
	g.release()
	noErrors(t, receive(t, taken, "the one that was taken"), receive(t, closed, "Close"), receive(t, closed, "Close again"))
	wantSeen(t, s, "a", "1")
	if err := c.Do(t.Context(), []string{"c"}, record("1", "c")); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		if !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "aggregate.(*Committer)") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a goroutine is left:\n%s", stacks)
		}
	}
}

func TestGetSaysWhatIsWrong(t *testing.T) {
	tx := newTx(map[string]Document{
		"none":   {Key: "none"},
		"broken": {Key: "broken", Value: []byte("{"), ETag: "1"},
		"good":   {Key: "good", Value: []byte(`{"seen":["1"]}`), ETag: "1"},
	})
	if v, err := Get[tally](tx, "none"); v != nil || err != nil {
		t.Errorf("none: %v, %v", v, err)
	}
	if _, err := Get[tally](tx, "broken"); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("broken: %v", err)
	}
	v, err := Get[tally](tx, "good")
	if err != nil || len(v.Seen) != 1 {
		t.Errorf("good: %v, %v", v, err)
	}
	if again, err := Get[tally](tx, "good"); again != v || err != nil {
		t.Errorf("good, again: %v, %v", again, err)
	}
	if _, err := Get[int](tx, "good"); err == nil || !strings.Contains(err.Error(), "tally") {
		t.Errorf("as another type: %v", err)
	}
}
