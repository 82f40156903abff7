package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// processesWith are the processes, command lines by PID, that have variable
// (NAME=value) in their environment, which every process inherits from the one
// that started it. There are none where there is no /proc.
func processesWith(variable string) map[int]string {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil
	}
	found := map[int]string{}
	for _, file := range files {
		dir := filepath.Dir(file)
		environ, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(environ), "\x00"), variable) {
			continue // gone meanwhile, or another user's
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		found[pid] = strings.ReplaceAll(string(command), "\x00", " ")
	}
	return found
}

// ResidentBytes is how much memory the process holds at this moment (its
// resident set).
func ResidentBytes(pid int) (int64, error) {
	var kib string
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // proc_pid_status(5)
	if err == nil {
		_, rest, _ := strings.Cut(string(status), "\nVmRSS:")
		kib, _, _ = strings.Cut(rest, "kB")
	} else {
		out, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		kib = string(out)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(kib), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	return n << 10, nil
}
