package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// restartPause is, with keep, the least time between two starts of a process that
	// keeps dying.
	restartPause = time.Second

	// renewAfter is how long a broker may be away without its sidecars being started
	// anew. Dapr's JetStream component looks for it 60 times, every 2 s, and then never
	// more, while its sidecar says that it is well; half of that is on the safe side.
	renewAfter = time.Minute
	// renewGrace is how long such a sidecar may take to end. It hands nothing over any
	// more that would be worth the wait: publishes that wait for a connection that
	// never comes keep it for the whole of its own patience.
	renewGrace = 2 * time.Second
)

// startWatched starts a process whose unintended end is told to deaths.
func (s *system) startWatched(sp spec) (*process, error) {
	p, err := s.spawner.start(sp)
	if err != nil {
		return nil, err
	}
	go func() {
		<-p.exited
		if p.stopping.Load() {
			return
		}
		if s.settings.keep {
			time.Sleep(time.Until(p.begun.Add(restartPause)))
			s.awaitRelease(p.name, func() bool { return !p.stopping.Load() })
		}
		s.deaths <- p
	}()
	return p, nil
}

// awaitRelease waits while the process is held down, for as long as somebody wants
// it started.
func (s *system) awaitRelease(name string, wanted func() bool) {
	for s.isHeldDown(name) && wanted() {
		time.Sleep(20 * time.Millisecond)
	}
}

// isHeldDown says whether there is a file that keeps a process from being
// started: again, if it died, or at all, if it is an app (with its sidecar) and the
// file was there first.
func (s *system) isHeldDown(name string) bool {
	_, err := os.Stat(filepath.Join(s.settings.data, "down", strings.ReplaceAll(name, " ", "-")))
	return err == nil
}

// startLate starts an app that was held down at the start.
func (s *system) startLate(ctx context.Context, a *app) error {
	s.console.say("%s is no longer held down and is started", a.AppID)
	if err := s.startApp(ctx, a); err != nil {
		return err
	}
	return s.writeStatus()
}

// revive starts a process that died again, in its place: with the same arguments,
// environment, ports and log. After a long absence of the broker the sidecars
// are started anew too.
func (s *system) revive(ctx context.Context, died *process) error {
	places := []**process{}
	if s.broker != nil {
		places = append(places, &s.broker.process)
	}
	for _, a := range s.apps {
		places = append(places, &a.process, &a.sidecar)
	}
	for _, place := range places {
		if *place != died {
			continue
		}
		again, err := s.startWatched(died.spec)
		if err != nil {
			return err
		}
		*place = again
		s.console.say("%s ended (%s) and is started again", died.name, died.how())
	}
	if s.broker != nil && died.name == s.broker.process.name && time.Since(died.ended) > s.settings.renewAfter {
		if err := s.renewSidecars(ctx); err != nil {
			return err
		}
	}
	return s.writeStatus()
}

// renewSidecars stops the sidecars, in an orderly way but not for long, and starts
// new ones in their places, once the broker is there. The services go on: to them
// it is a sidecar that was restarted.
func (s *system) renewSidecars(ctx context.Context) error {
	if err := awaitStreams(ctx, s.broker.process, s.broker.url); err != nil {
		s.console.say("%v", err) // gone again: then sidecars end, and are started, until it is there
	}
	s.console.say("the broker was away for longer than %s: the sidecars are started anew", s.settings.renewAfter)
	errs := make([]error, len(s.apps))
	var all sync.WaitGroup
	for i, a := range s.apps {
		all.Go(func() {
			if a.sidecar == nil {
				return // held down from the start
			}
			if err := stopAll(ctx, []*process{a.sidecar}, renewGrace); err != nil {
				s.console.say("%v", err) // nothing is lost: what it held comes again
			}
			again, err := s.startWatched(a.sidecar.spec)
			if err != nil {
				errs[i] = err
				return
			}
			a.sidecar = again
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
