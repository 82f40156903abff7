package saga

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"orderflow/events"
	"orderflow/internal/daprtest"
	"orderflow/internal/process"
	"orderflow/internal/pubsub"
	"orderflow/services/inventory"
	"orderflow/services/notification"
	"orderflow/services/order"
)

var apps = []string{"order", "inventory", "notification"}

// subscriptions are what components/shared has each topic go to.
var subscriptions = map[string][]string{
	events.TopicOrders:    {"inventory", "notification"},
	events.TopicInventory: {"order", "notification"},
}

var (
	errKilled = errors.New("the process is dead")
	errDown   = errors.New("injected failure")
)

// orderConfig has orders time out within a schedule.
var orderConfig = order.Config{Timeout: time.Minute, SweepAfter: 8 * time.Second, SweepEvery: 2 * time.Second, Now: time.Now}

// world is everything outside of the services, and the services in it.
//
// All goroutines of a schedule live in one bubble of testing/synctest. The
// driver, which is the test's own goroutine, goes on when every other one is
// blocked: at a step that waits to be done, or in a pause. So whatever happens,
// happens because the driver chose it.
type world struct {
	t      *rapid.T
	seen   tally
	start  time.Time
	stores map[string]*daprtest.Store // by app
	broker *broker

	replicas map[string][]*instance // by app
	direct   map[string]*instance   // replicas whose steps are done at once: for looking, not for working
	choice   int                    // which replica the next invocation reaches
	onAck    func(app string, m message)
	pauses   bool // a process was told that something failed

	mu       sync.Mutex        // the driver holds it, except while it waits
	steps    []*step           // that wait to be done
	spoilt   []string          // steps that something went wrong with
	touched  []touched         // since the last check
	begun    int               // operations so far
	running  map[*instance]int // operations that have not ended
	finished []finished        // and those that have, not yet taken note of
	mails    map[string]int    // by Message-ID
}

// touched is a key that somebody has written, or tried to.
type touched struct{ app, key string }

// finished is an operation that has come to its end.
type finished struct {
	number int
	then   func()
}

// instance is a process of a service.
type instance struct {
	world  *world
	app    string
	name   string
	direct bool
	alive  context.Context // ends when the process is killed
	kill   func()

	process *process.Process
	sweep   func(context.Context) error // of order
}

func (in *instance) dead() bool             { return in.alive.Err() != nil }
func (in *instance) store() *daprtest.Store { return in.world.stores[in.app] }

// changed has what stands under keys checked.
func (in *instance) changed(keys ...string) {
	for _, key := range keys {
		in.world.touched = append(in.world.touched, touched{in.app, key})
	}
}

func newWorld(t *rapid.T, mode daprtest.Mode, replicas int) *world {
	w := &world{
		t: t, seen: tally{}, start: time.Now(), broker: &broker{queues: map[string][]*parcel{}},
		stores: map[string]*daprtest.Store{}, replicas: map[string][]*instance{}, direct: map[string]*instance{},
		mails: map[string]int{}, running: map[*instance]int{},
	}
	w.mu.Lock()
	for _, app := range apps {
		w.stores[app] = daprtest.NewStore(mode)
		w.direct[app] = w.newInstance(app, app+" (direct)", true)
		for i := range replicas {
			w.replicas[app] = append(w.replicas[app], w.newInstance(app, fmt.Sprintf("%s %c", app, 'a'+i), false))
		}
	}
	return w
}

func (w *world) newInstance(app, name string, direct bool) *instance {
	in := &instance{world: w, app: app, name: name, direct: direct}
	in.alive, in.kill = context.WithCancel(context.Background())
	in.process = process.New(app, slog.New(slog.DiscardHandler), client{in: in}, "http://sidecar.invalid", "")
	var err error
	switch app {
	case "order":
		in.sweep = order.New(in.process, orderConfig).Sweep
	case "inventory":
		err = inventory.Setup(in.process, inventory.Config{Now: time.Now})
	case "notification":
		env := process.NewEnv(func(name string) string {
			return map[string]string{"MAIL_FROM": "orders@shop.example", "STOCK_ALERT_EMAIL": "stock@shop.example"}[name]
		})
		c := notification.ReadConfig(env)
		c.Dial = in.dialMail
		err = cmp.Or(env.Err(), notification.Setup(in.process, c))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return in
}

// end kills everything and waits until the last goroutine has noticed.
func (w *world) end() {
	for _, app := range apps {
		for _, in := range append(w.replicas[app], w.direct[app]) {
			w.bury(in)
		}
	}
	w.wait(time.Minute)
}

// wait lets time pass, and then everyone who has something to do do it.
func (w *world) wait(d time.Duration) {
	w.mu.Unlock()
	defer w.mu.Lock()
	time.Sleep(d)
	synctest.Wait()
}

// bury kills a process. What it runs still runs for a while, but nothing of it
// reaches the world any more.
func (w *world) bury(in *instance) {
	in.kill()
	go func() { _ = in.process.Close(context.Background()) }()
}

// crash kills replica i of app and starts the next one in its place. What the dead one
// has asked of its sidecar may still come to pass, if late is true.
func (w *world) crash(app string, i int, late bool) {
	old := w.replicas[app][i]
	w.logf("%s is KILLED", old.name)
	w.seen["kills"]++
	if w.running[old] > 0 {
		w.seen["kills with something under way"]++
	}
	w.bury(old)
	if !late {
		w.steps = slices.DeleteFunc(w.steps, func(s *step) bool { return s.in == old })
	}
	w.replicas[app][i] = w.newInstance(app, old.name+"'", false)
}

// replica is one of the living ones.
func (w *world) replica(app string, direct bool) *instance {
	if direct {
		return w.direct[app]
	}
	return w.replicas[app][w.choice%len(w.replicas[app])]
}

func (w *world) logf(format string, args ...any) {
	w.t.Logf("%6.1fs  %s", time.Since(w.start).Seconds(), fmt.Sprintf(format, args...))
}

// kind says what can go wrong with a step.
type kind int

const (
	reading kind = iota
	writing
	publishing
)

// step is one thing that a process asks of the world: a call to its sidecar, an
// e-mail. It has several parts if others can get in between.
type step struct {
	in     *instance
	kind   kind
	verb   string
	parts  []part
	err    error // of the parts so far
	answer chan error
	asked  time.Time
	left   bool // nobody waits for the answer any more
}

// part is what is done at one moment.
type part struct {
	name string
	do   func() error
}

func (s *step) String() string {
	names := make([]string, len(s.parts))
	for i, p := range s.parts {
		names[i] = p.name
	}
	return s.in.name + " " + s.verb + " " + strings.Join(names, ", ")
}

// do has the driver do something, and waits. Who gives up waiting does not know
// whether it will be done.
func (in *instance) do(ctx context.Context, k kind, verb string, parts ...part) error {
	if in.dead() {
		return errKilled
	}
	s := &step{in: in, kind: k, verb: verb, parts: parts, answer: make(chan error, 1), asked: time.Now()}
	if in.direct {
		in.world.mu.Lock()
		defer in.world.mu.Unlock()
		for len(s.parts) > 0 {
			s.part(0)
		}
		return s.err
	}
	w := in.world
	w.mu.Lock()
	w.steps = append(w.steps, s)
	w.mu.Unlock()
	err := error(nil)
	select {
	case err = <-s.answer:
		return err
	case <-in.alive.Done():
		err = errKilled
	case <-ctx.Done():
		err = ctx.Err()
	}
	w.mu.Lock()
	s.left = true
	w.mu.Unlock()
	return err
}

// part does one of the parts that are left.
func (s *step) part(i int) {
	if err := s.parts[i].do(); err != nil {
		s.err = err
	}
	s.parts = slices.Delete(s.parts, i, i+1)
}

// outcome is what becomes of a step.
type outcome int

const (
	done        outcome = iota
	refused             // not done, and said so
	unconfirmed         // done, and reported as failed
	swallowed           // not done, and reported as done: of publishes only
)

func (o outcome) String() string {
	return []string{"done", "refused", "done and reported as failed", "swallowed"}[o]
}

// take does a part of a step, or all of it at once where something goes wrong.
func (w *world) take(s *step, part int, o outcome) {
	w.seen["steps "+o.String()]++
	if o != done {
		w.spoilt = append(w.spoilt, s.String())
	}
	switch o {
	case done:
		w.logf("%s %s %s", s.in.name, s.verb, s.parts[part].name)
		s.part(part)
		if len(s.parts) > 0 {
			return
		}
	case refused:
		w.logf("%s: REFUSED", s)
		s.err = errDown
	case unconfirmed:
		w.logf("%s: done, but reported as FAILED", s)
		for len(s.parts) > 0 {
			s.part(0)
		}
		s.err = errDown
	case swallowed:
		w.logf("%s: SWALLOWED, reported as done", s)
	}
	w.steps = slices.DeleteFunc(w.steps, func(other *step) bool { return other == s })
	w.pauses = w.pauses || s.err != nil
	s.answer <- s.err
}

// lateBy is how long after its process gave it up a write may still be done. A
// sidecar ends a call when its caller does, give or take.
const lateBy = 20 * time.Second

// pauseEnds is longer than a process that failed to write pauses, which is a
// random time (aggregate.Committer): waiting for its end makes the schedule the
// same whenever it is run.
const pauseEnds = 101 * time.Millisecond

// settle waits until nothing happens by itself and takes note of what has.
func (w *world) settle() {
	for {
		w.wait(0)
		if w.pauses {
			w.pauses = false
			w.wait(pauseEnds)
		}
		w.steps = slices.DeleteFunc(w.steps, func(s *step) bool {
			given := s.left && (s.kind == reading || time.Since(s.asked) > lateBy)
			if given {
				w.spoilt = append(w.spoilt, s.String())
			}
			return given
		})
		slices.SortStableFunc(w.steps, func(a, b *step) int {
			return cmp.Or(a.asked.Compare(b.asked), strings.Compare(a.String(), b.String()))
		})
		if len(w.finished) == 0 {
			return
		}
		ended := w.finished
		w.finished = nil
		slices.SortFunc(ended, func(a, b finished) int { return a.number - b.number })
		for _, f := range ended {
			f.then()
		}
	}
}

// run begins an operation of a process. then is called when it has ended, or the
// process was killed in between.
func (w *world) run(in *instance, what string, operation func(ctx context.Context), then func(lost bool)) {
	w.begun++
	number := w.begun
	w.running[in]++
	w.logf("%s: %s", in.name, what)
	go func() {
		operation(in.alive)
		lost := in.dead()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.finished = append(w.finished, finished{number, func() { w.running[in]--; then(lost) }})
	}()
}

// request has the instance answer a request.
func (in *instance) request(ctx context.Context, method, path string, header map[string]string, body any) *httptest.ResponseRecorder {
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		content = bytes.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			panic(err) // strings and numbers: can't be
		}
		content = bytes.NewReader(j)
	}
	r := httptest.NewRequestWithContext(ctx, method, path, content)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	answer := httptest.NewRecorder()
	in.process.Handler().ServeHTTP(answer, r)
	return answer
}

// call is a client's request to some replica; then gets the answer, or status 0
// if there was none.
func (w *world) call(in *instance, method, path string, header map[string]string, body any, then func(status int, body []byte)) {
	var answer *httptest.ResponseRecorder
	w.run(in, fmt.Sprintf("%s %s %v", method, path, header["Idempotency-Key"]), func(ctx context.Context) {
		answer = in.request(ctx, method, path, header, body)
	}, func(lost bool) {
		if lost {
			w.logf("%s %s %s: no answer", method, path, header["Idempotency-Key"])
			then(0, nil)
			return
		}
		w.logf("%s %s %s: answered %d", method, path, header["Idempotency-Key"], answer.Code)
		then(answer.Code, answer.Body.Bytes())
	})
}

// broker holds what was published until each subscriber has acknowledged it.
type broker struct {
	queues map[string][]*parcel // by app
	past   []message
	dead   []string
}

// parcel is a message for one subscriber.
type parcel struct {
	message
	flying    int       // deliveries that have not ended
	notBefore time.Time // when it comes again by itself
}

func (b *broker) take(m message) {
	if subscriptions[m.topic] == nil {
		b.dead = append(b.dead, m.topic+": "+string(m.body))
		return
	}
	b.past = append(b.past, m)
	b.post(m)
}

func (b *broker) post(m message) {
	for _, app := range subscriptions[m.topic] {
		b.queues[app] = append(b.queues[app], &parcel{message: m})
	}
}

// deliver hands a message to a replica. It stays with the broker until it is
// acknowledged, or longer: if keep is true the acknowledgement is lost.
func (w *world) deliver(app string, p *parcel, in *instance, keep bool) {
	var answer *httptest.ResponseRecorder
	p.flying++
	w.run(in, "gets "+p.id, func(ctx context.Context) {
		answer = in.request(ctx, http.MethodPost, pubsub.Path(p.topic), nil, p.body)
	}, func(lost bool) {
		var verdict struct{ Status string }
		if !lost {
			if err := json.Unmarshal(answer.Body.Bytes(), &verdict); err != nil {
				w.t.Fatalf("%s answers %d %q to %s", in.name, answer.Code, answer.Body, p.id)
			}
		}
		w.logf("%s answers %q to %s", in.name, verdict.Status, p.id)
		w.seen[fmt.Sprintf("deliveries answered %q", verdict.Status)]++
		p.flying--
		p.notBefore = time.Now().Add(time.Second)
		if verdict.Status == "DROP" {
			w.broker.dead = append(w.broker.dead, p.id)
		}
		if verdict.Status == "SUCCESS" {
			w.onAck(app, p.message)
		}
		if verdict.Status != "SUCCESS" && verdict.Status != "DROP" || keep {
			return
		}
		w.broker.queues[app] = slices.DeleteFunc(w.broker.queues[app], func(other *parcel) bool { return other == p })
	})
}

// deliverAll hands every message whose time has come to a replica and says
// whether there was any.
func (w *world) deliverAll() bool {
	any := false
	for _, app := range apps {
		for _, p := range w.broker.queues[app] {
			if p.flying == 0 && !time.Now().Before(p.notBefore) {
				w.deliver(app, p, w.replica(app, false), false)
				any = true
			}
		}
	}
	return any
}

// busy counts the operations and messages that have not come to their end.
func (w *world) busy() int {
	n := 0
	for _, of := range w.running {
		n += of
	}
	for _, queue := range w.broker.queues {
		n += len(queue)
	}
	return n
}
