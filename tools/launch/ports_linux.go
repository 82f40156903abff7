package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portOwner names the process that listens on the port, as far as the reader's
// rights go: the sockets of others' processes have no names for us.
func portOwner(port int) string {
	inode := listeningInode(port)
	if inode == "" {
		return "another process"
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "another process"
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(link, "/")[2]
		cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil {
			return "process " + pid
		}
		command, _, _ := strings.Cut(string(cmdline), "\x00")
		return fmt.Sprintf("process %s (%s)", pid, command)
	}
	return "a process of another user"
}

// listeningInode finds the listening socket of the port in the kernel's tables
// (proc_pid_net(5)): the local address is column 1, in hex; the state column 3,
// 0A for listening; the inode column 9.
func listeningInode(port int) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(table)
		if err != nil {
			continue
		}
		defer file.Close()
		for scanner := bufio.NewScanner(file); scanner.Scan(); {
			columns := strings.Fields(scanner.Text())
			if len(columns) < 10 || columns[3] != "0A" {
				continue
			}
			_, hex, _ := strings.Cut(columns[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == port {
				return columns[9]
			}
		}
	}
	return ""
}
