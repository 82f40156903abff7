package brokers

import (
	"os/exec"
	"runtime"
	"syscall"
)

// endWithTest has the kernel kill the server if the test dies without a chance to
// clean up (a panic, a time-out of go test). The calling goroutine must start the
// process and stay until it has ended: the kernel takes the end of the thread that
// started a child for the end of its parent (PR_SET_PDEATHSIG, prctl(2)).
func endWithTest(cmd *exec.Cmd) {
	runtime.LockOSThread()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
