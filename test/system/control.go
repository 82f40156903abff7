package system

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"orderflow/test/brokers"
)

// Names of processes, for the methods below: a service's is its id, its
// sidecar's SidecarOf of that.
const Broker = "broker"

// SidecarOf is the name of a service's sidecar.
func SidecarOf(service string) string { return service + "-sidecar" }

// PID is the process id under which the process runs, or ran last.
func (s *System) PID(name string) (int, error) {
	content, err := os.ReadFile(s.StatusFile)
	if err != nil {
		return 0, err
	}
	var st status
	if err := json.Unmarshal(content, &st); err != nil {
		return 0, fmt.Errorf("status file: %w", err)
	}
	if name == Broker && st.BrokerPID != 0 {
		return st.BrokerPID, nil
	}
	for _, a := range st.Apps {
		switch name {
		case a.ID:
			return a.PID, nil
		case SidecarOf(a.ID):
			return a.DaprdPID, nil
		}
	}
	return 0, fmt.Errorf("there is no process %q", name)
}

// Signal sends a signal to a process.
func (s *System) Signal(name string, sig syscall.Signal) error {
	pid, err := s.PID(name)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("signal %s (process %d): %w", name, pid, err)
	}
	return nil
}

// held is the file that keeps a process from being started.
func (s *System) held(name string) string { return filepath.Join(s.Data, "down", name) }

func (s *System) hold(names ...string) error {
	if err := os.MkdirAll(s.held(""), 0o700); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.WriteFile(s.held(name), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Release has services started that came late (Options.Late); they are ready some
// time after.
func (s *System) Release(names ...string) error {
	for _, name := range names {
		if err := os.Remove(s.held(name)); err != nil {
			return err
		}
	}
	return nil
}

// RestartBroker kills the broker and returns when it runs again, on the data that it
// had, not before down has passed.
func (s *System) RestartBroker(ctx context.Context, down time.Duration) error {
	if s.BrokerServer == nil {
		return s.Restart(ctx, syscall.SIGKILL, down, Broker)
	}
	return restart(ctx, s.BrokerServer, down)
}

// RestartStore does the same to the store, which must be a server.
func (s *System) RestartStore(ctx context.Context, down time.Duration) error {
	return restart(ctx, s.StateServer, down)
}

func restart(ctx context.Context, server *brokers.Server, down time.Duration) error {
	if err := server.Kill(); err != nil {
		return err
	}
	select {
	case <-time.After(down):
	case <-ctx.Done():
	}
	return server.Start()
}

// Restart ends processes with a signal and returns when each has been started
// again, which must have been asked for (Options.Keep) and does not happen before
// down has passed.
func (s *System) Restart(ctx context.Context, sig syscall.Signal, down time.Duration, names ...string) error {
	before := map[string]int{}
	for _, name := range names {
		pid, err := s.PID(name)
		if err != nil {
			return err
		}
		before[name] = pid
	}
	if err := s.hold(names...); err != nil {
		return err
	}
	for _, name := range names {
		if err := s.Signal(name, sig); err != nil {
			return err
		}
	}
	select {
	case <-time.After(down):
	case <-ctx.Done():
	}
	if err := s.Release(names...); err != nil {
		return err
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		again := 0
		for _, name := range names {
			pid, err := s.PID(name)
			if err != nil {
				return err
			}
			if pid != before[name] {
				again++
			}
		}
		if again == len(names) {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%v: not all started again: %w", names, ctx.Err())
		}
	}
}
