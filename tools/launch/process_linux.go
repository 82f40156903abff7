package main

import (
	"runtime"
	"syscall"
)

// childAttributes puts a child into a group of its own and has the kernel kill
// it when the launcher is gone, even by SIGKILL.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// spawner starts children from one operating system thread that lasts as long
// as the launcher: the kernel takes the death of the thread that started a child
// for the death of its parent (PR_SET_PDEATHSIG, prctl(2)), and Go ends threads
// as it likes.
type spawner struct {
	jobs chan func()
}

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for job := range s.jobs {
			job()
		}
		// Ends only when nothing is left to be killed by it.
		runtime.UnlockOSThread()
	}()
	return s
}

func (s *spawner) do(start func() error) error {
	result := make(chan error, 1)
	s.jobs <- func() { result <- start() }
	return <-result
}

// close ends the thread. Only when every child is gone.
func (s *spawner) close() { close(s.jobs) }
