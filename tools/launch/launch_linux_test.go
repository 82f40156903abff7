package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"orderflow/tools/internal/runfile"
)

func TestKilledLauncherLeavesNothing(t *testing.T) {
	st := newStage(t)
	launcher := exec.Command(os.Args[0], append([]string{"launcher"}, st.flags()...)...)
	if err := launcher.Start(); err != nil {
		t.Fatal(err)
	}
	st.eventually("the launcher is ready", func() bool { _, err := st.status(); return err == nil })
	if err := launcher.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := launcher.Wait(); err == nil {
		t.Error("the launcher ended by itself")
	}
	if n := len(st.pids()); n != 5 {
		t.Errorf("%d processes were started, want 5", n)
	}
	st.nobodyIsLeft()
}

func TestClashIsNamedWithItsOwner(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port

	apps := []runfile.App{{AppID: "order", AppPort: port}}
	ports := newPortPicker()
	defer ports.close()
	err = ports.assign(apps, false)
	want := fmt.Sprintf("port %d (appPort of order) is taken by process %d (%s)", port, os.Getpid(), os.Args[0])
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := ports.assign(apps, true); err != nil || apps[0].AppPort == port {
		t.Errorf("with free ports: port %d, %v", apps[0].AppPort, err)
	}
}
