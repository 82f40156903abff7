//go:build unix && !linux

package main

import "syscall"

// childAttributes puts a child into a group of its own. Only Linux can be told
// to kill it when the launcher is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

type spawner struct{}

func newSpawner() *spawner { return &spawner{} }

func (*spawner) do(start func() error) error { return start() }

func (*spawner) close() {}
