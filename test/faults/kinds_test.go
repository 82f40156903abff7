package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"orderflow/events"
	"orderflow/test/system"
)

// fault is something that goes wrong.
type fault struct {
	name   string
	groups []string
	most   int // trials, where one takes long
	// needs is the broker or the store without which there is no such fault.
	needsBroker, needsState string
	// inject brings the fault about and returns when it is over: when what was
	// stopped runs again, not when it has recovered.
	inject func(context.Context, *trial) error
}

// impossible says why there is no such fault with this broker and store.
func (f fault) impossible(broker, state string) string {
	switch {
	case f.needsBroker != "" && f.needsBroker != broker:
		return "the broker is " + broker
	case f.needsState != "" && f.needsState != state:
		return "the state store is " + state
	}
	return ""
}

var services = []string{"order", "inventory", "notification"}

// Groups: short is what continuous integration has the time for.
const short = "short"

var faults = allFaults()

func allFaults() (all []fault) {
	add := func(f fault) { all = append(all, f) }
	for _, s := range services {
		add(fault{name: "kill-" + s, groups: []string{"kill", short}, inject: kill(s)})
	}
	for _, s := range services {
		add(fault{name: "kill-" + system.SidecarOf(s), groups: []string{"kill", "sidecar", short}, inject: kill(system.SidecarOf(s))})
	}
	for _, s := range services {
		add(fault{name: "kill-" + s + "-and-sidecar", groups: []string{"kill", "both"}, inject: kill(s, system.SidecarOf(s))})
	}
	add(fault{name: "kill-broker", groups: []string{"kill", short}, needsBroker: "nats", inject: kill(system.Broker)})
	add(fault{name: "kill-redis", groups: []string{"kill", short}, needsState: "redis", inject: killRedis})
	add(fault{name: "rolling-restart", groups: []string{"restart", short}, inject: rollingRestart})
	add(fault{name: "replay", groups: []string{"repeat", short}, inject: replay})
	add(fault{name: "retry-storm", groups: []string{"repeat", short}, inject: storm})
	add(fault{name: "mail-down", groups: []string{"network", short}, inject: mailDown})
	add(fault{name: "redis-parted", groups: []string{"network"}, needsState: "redis", inject: redisParted})
	add(fault{name: "redis-resets", groups: []string{"network", short}, needsState: "redis", inject: redisResets})
	add(fault{name: "redis-slow", groups: []string{"network"}, needsState: "redis", inject: redisSlow})
	add(fault{name: "poison", groups: []string{"poison", short}, inject: poison})
	for _, s := range services {
		add(fault{name: "zombie-" + s, groups: []string{"zombie"}, most: 5, inject: zombie(s)})
	}
	return all
}

// outage draws how long something is down: half of the times it comes back at
// once.
func (t *trial) outage() time.Duration {
	if t.rnd.IntN(2) == 0 {
		return 0
	}
	return between(t.rnd, 0, 3*time.Second)
}

// kill ends processes with SIGKILL; they are started again, at once or after a
// while.
func kill(names ...string) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		return t.Restart(ctx, syscall.SIGKILL, t.outage(), names...)
	}
}

func killRedis(_ context.Context, t *trial) error {
	down := t.outage()
	if err := t.Redis.Kill(); err != nil {
		return err
	}
	time.Sleep(down)
	return t.Redis.Start()
}

// rollingRestart restarts everything, one service with its sidecar after the
// other, as a deployment does: the service is asked to end, then its sidecar.
func rollingRestart(ctx context.Context, t *trial) error {
	for _, i := range t.rnd.Perm(len(services)) {
		for _, name := range []string{services[i], system.SidecarOf(services[i])} {
			if err := t.Restart(ctx, syscall.SIGTERM, 0, name); err != nil {
				return err
			}
		}
		if err := t.ready(ctx, t.Services()[i]); err != nil {
			return err
		}
	}
	return nil
}

// ready waits until a service and its sidecar are.
func (t *trial) ready(ctx context.Context, s system.Service) error {
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		once, cancel := context.WithTimeout(ctx, attempt)
		a, err := system.Send(once, http.MethodGet, s.URL+"/healthz/ready", nil)
		if err == nil && a.Status/100 == 2 {
			a, err = system.Send(once, http.MethodGet, s.Sidecar+"/v1.0/healthz", nil)
		}
		cancel()
		if err == nil && a.Status/100 == 2 {
			return nil
		}
		if time.Since(begin) > 30*time.Second || ctx.Err() != nil {
			return fmt.Errorf("%s is not ready again: %s %w", s.ID, a, err)
		}
	}
}

// replay has every event of the trial delivered once more, then these and the
// copies again.
func replay(_ context.Context, t *trial) error {
	for range 2 {
		for _, topic := range topics {
			if err := t.broker.replay(topic); err != nil {
				return fmt.Errorf("replay %s: %w", topic, err)
			}
		}
	}
	return nil
}

// storm has many clients send the same requests at once.
func storm(ctx context.Context, t *trial) error {
	var all sync.WaitGroup
	for n := range 20 {
		customer := fmt.Sprintf("%s-c%d", t.name, n%clients)
		key := fmt.Sprintf("%s-storm-%d", customer, n)
		p := system.Placement{CustomerID: customer, Email: key + "@customers.example", Items: []events.Item{{ID: t.products[0], Quantity: 1}, {ID: t.products[1], Quantity: 1}}}
		all.Go(func() { t.place(ctx, customer, key, p, 20) })
	}
	all.Wait()
	return nil
}

// zombieFor is longer than the time after which the broker delivers again what
// was not acknowledged (30 s).
const zombieFor = 35 * time.Second

// zombie stops a service in the middle of what it does and has it go on when
// others have long taken it for dead.
func zombie(name string) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		if err := t.Signal(name, syscall.SIGSTOP); err != nil {
			return err
		}
		select {
		case <-time.After(zombieFor):
		case <-ctx.Done():
		}
		return errors.Join(ctx.Err(), t.Signal(name, syscall.SIGCONT))
	}
}

// poison puts messages among the events that nobody can handle. Each is to end in
// the dead letters; everything else goes on.
func poison(_ context.Context, t *trial) error {
	const event = `{"specversion":"1.0","id":"%s","source":"order","type":"ORDER_CREATED","subject":"o","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","dataschema":"%s","data":%s}`
	const v1 = "https://orderflow.example/schemas/ORDER_CREATED/v1"
	for i, form := range []func(id string) string{
		func(id string) string { return `{"specversion":"1.0","id":"` + id + `","data":` },
		func(id string) string { return id + " is not JSON" },
		func(id string) string { return fmt.Sprintf(event, id, v1, `{"orderId":7,"items":"many"}`) },
		func(id string) string { return fmt.Sprintf(event, id, v1, `{}`) },
		func(id string) string { return fmt.Sprintf(event, id, v1, `null`) },
		func(id string) string {
			return fmt.Sprintf(event, id, "https://orderflow.example/schemas/ORDER_CREATED/v99", `{"orderId":"o"}`)
		},
		func(id string) string { return fmt.Sprintf(event, id, v1, `{"orderId":"`+"\xff\xfe"+`"}`) },
		func(id string) string {
			return fmt.Sprintf(event, id, v1, strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000))
		},
		func(id string) string {
			return fmt.Sprintf(event, id, v1, `{"orderId":"`+strings.Repeat("x", 900<<10)+`"}`)
		},
	} {
		id := fmt.Sprintf("poison-%s-%d.", t.name, i)
		if err := t.broker.send(events.TopicOrders, []byte(form(id))); err != nil {
			return fmt.Errorf("send %s: %w", id, err)
		}
		t.poison = append(t.poison, id)
	}
	return nil
}

// mailDown has the mail server refuse connections for a while.
func mailDown(_ context.Context, t *trial) error {
	t.MailProxy.Refuse()
	time.Sleep(between(t.rnd, 200*time.Millisecond, 5*time.Second))
	t.MailProxy.Pass()
	return nil
}

// redisParted has nothing go to and fro between the sidecars and Redis, without
// either being told.
func redisParted(_ context.Context, t *trial) error {
	t.RedisProxy.Hang()
	time.Sleep(between(t.rnd, 200*time.Millisecond, 5*time.Second))
	t.RedisProxy.Pass()
	return nil
}

// redisResets breaks all connections between the sidecars and Redis, time and
// again.
func redisResets(_ context.Context, t *trial) error {
	for range 10 {
		t.RedisProxy.Reset()
		time.Sleep(between(t.rnd, 10*time.Millisecond, 300*time.Millisecond))
	}
	return nil
}

// redisSlow has all that the sidecars and Redis tell each other arrive late.
func redisSlow(_ context.Context, t *trial) error {
	t.RedisProxy.Delay(between(t.rnd, 5*time.Millisecond, 100*time.Millisecond))
	time.Sleep(between(t.rnd, time.Second, 4*time.Second))
	t.RedisProxy.Pass()
	return nil
}
