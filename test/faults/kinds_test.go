package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"orderflow/test/system"
)

// fault is something that goes wrong.
type fault struct {
	name   string
	groups []string
	most   int // trials, where one takes minutes
	// there says with which broker and store there is such a fault; nil: with all.
	there func(broker, state string) bool
	// inject brings the fault about and returns when it is over: when what was
	// stopped runs again, not when it has recovered.
	inject func(context.Context, *trial) error
}

var services = []string{"order", "inventory", "notification"}

// With which brokers and stores there is a fault.

// brokerAlone is a broker that is not the store too.
func brokerAlone(broker, state string) bool { return broker != state }

// oneServer is one that is both, which only Redis can be.
func oneServer(broker, state string) bool { return broker == state }

// throughProxy is a broker that is reached by the address that one is given. Kafka's
// clients go on to the one that it advertises, past any proxy.
func throughProxy(broker, _ string) bool { return broker != "kafka" }

// networkStore is a store that sidecars reach by a way of its own: SQLite is a file,
// and a Redis that is the broker too is reached by the broker's.
func networkStore(broker, state string) bool { return state != "sqlite" && state != broker }

// Groups: short is what continuous integration has the time for.
const short = "short"

var faults = allFaults()

func allFaults() (all []fault) {
	add := func(f fault) { all = append(all, f) }
	for _, s := range services {
		add(fault{name: "kill-" + s, groups: []string{"kill"}, inject: kill(s)})
	}
	for _, s := range services {
		add(fault{name: "kill-" + system.SidecarOf(s), groups: []string{"kill", "sidecar"}, inject: kill(system.SidecarOf(s))})
	}
	for _, s := range services {
		add(fault{name: "kill-" + s + "-and-sidecar", groups: []string{"kill", "both"}, inject: kill(s, system.SidecarOf(s))})
	}
	add(fault{name: "kill-broker", groups: []string{"kill", short}, there: brokerAlone, inject: killBroker})
	add(fault{name: "kill-store", groups: []string{"kill", short}, there: networkStore, inject: killStore})
	add(fault{name: "kill-redis", groups: []string{"kill", short}, there: oneServer, inject: killBroker})
	add(fault{name: "rolling-restart", groups: []string{"restart", short}, inject: rollingRestart})
	add(fault{name: "replay", groups: []string{"repeat", short}, inject: replay})
	add(fault{name: "reorder", groups: []string{"repeat", short}, inject: reorder})
	add(fault{name: "retry-storm", groups: []string{"repeat", short}, inject: storm})
	for _, w := range []struct {
		name  string
		way   way
		there func(broker, state string) bool
	}{
		{"broker", toBroker, throughProxy},
		{"store", toStore, networkStore},
		{"sidecar", toSidecar, nil},
		{"service", toService, nil},
	} {
		add(fault{name: w.name + "-parted", groups: []string{"network", short}, there: w.there, inject: parted(w.way)})
		add(fault{name: w.name + "-slow", groups: []string{"network"}, there: w.there, inject: slow(w.way)})
		add(fault{name: w.name + "-resets", groups: []string{"network"}, there: w.there, inject: broken(w.way)})
	}
	add(fault{name: "mail-parted", groups: []string{"network"}, inject: parted(toMail)})
	add(fault{name: "mail-down", groups: []string{"network", short}, inject: mailDown})
	add(fault{name: "poison", groups: []string{"poison", short}, inject: poison})
	for _, s := range services {
		add(fault{name: "zombie-" + s, groups: []string{"zombie"}, inject: zombie(s)})
	}
	add(fault{name: "broker-long-outage", groups: []string{"long"}, most: 3, inject: longOutage})
	// In short: one of each kind.
	for i, f := range all {
		switch f.name {
		case "kill-order", "kill-inventory-sidecar", "kill-notification-and-sidecar":
			all[i].groups = append(f.groups, short)
		}
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

func killBroker(ctx context.Context, t *trial) error { return t.RestartBroker(ctx, t.outage()) }

func killStore(ctx context.Context, t *trial) error { return t.RestartStore(ctx, t.outage()) }

// longOutage is longer than what clients of the broker put up with by themselves:
// Dapr's JetStream component gives up after two minutes. The others never do, and a
// minute is longer than any of their pauses.
func longOutage(ctx context.Context, t *trial) error {
	away := time.Minute
	if t.Options.Broker == "nats" {
		away = 150 * time.Second
	}
	return t.RestartBroker(ctx, away)
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

// zombieFor is longer than the time after which the broker delivers again what was
// not acknowledged (components/broker): ackWait of 8 s on NATS; on Redis
// processingTimeout, 30 s, and redeliverInterval, 5 s. Other brokers deliver
// again when a connection ends, or wait as long as Redis.
func (t *trial) zombieFor() time.Duration {
	if t.Options.Broker == "nats" {
		return 12 * time.Second
	}
	return 37 * time.Second
}

// zombie stops a service in the middle of what it does and has it go on when
// others have long taken it for dead.
func zombie(name string) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		if err := t.Signal(name, syscall.SIGSTOP); err != nil {
			return err
		}
		err := t.pause(ctx, t.zombieFor())
		return errors.Join(err, t.Signal(name, syscall.SIGCONT))
	}
}
