package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestKeepRenewsSidecarsOfABrokerThatWasLongAway(t *testing.T) {
	for _, test := range []struct {
		patience string
		renewed  bool
	}{{"200ms", true}, {"1h", false}} {
		t.Run(test.patience, func(t *testing.T) {
			st := newStage(t)
			r := st.launch("-keep", "-renew-after", test.patience)
			before := st.ready(r)
			held := filepath.Join(st.dir, "data", "down", "broker")
			if err := os.Mkdir(filepath.Dir(held), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(held, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(before.BrokerPID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			died := time.Now()
			st.eventually("the broker was away for a while", func() bool {
				return !alive(before.BrokerPID) && time.Since(died) > 300*time.Millisecond
			})
			if err := os.Remove(held); err != nil {
				t.Fatal(err)
			}
			var now status
			st.eventually("the broker runs again", func() bool {
				var err error
				if now, err = st.status(); err != nil {
					t.Fatal(err)
				}
				return now.BrokerPID != before.BrokerPID && alive(now.BrokerPID)
			})
			for i, a := range now.Apps {
				if a.PID != before.Apps[i].PID || (a.DaprdPID != before.Apps[i].DaprdPID) != test.renewed || !alive(a.DaprdPID) {
					t.Errorf("%s is process %d (alive %t), its sidecar %d; before %d, %d; want a new sidecar: %t",
						a.ID, a.PID, alive(a.PID), a.DaprdPID, before.Apps[i].PID, before.Apps[i].DaprdPID, test.renewed)
				}
			}
			if got := slices.Contains(st.diary(), "stock sidecar stops"); got != test.renewed {
				t.Errorf("the old sidecar ended as it should: %t", got)
			}
			r.interrupt()
			if err := st.ended(r); err != nil {
				t.Error(err)
			}
			st.nobodyIsLeft()
		})
	}
}

func TestLinks(t *testing.T) {
	st := newStage(t)
	var (
		mu    sync.Mutex
		asked []string
	)
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, q.Get("from")+" to "+q.Get("to"))
		fmt.Fprint(w, q.Get("address"))
	}))
	defer between.Close()
	r := st.launch("-links", between.URL)
	st.ready(r)
	r.interrupt()
	if err := st.ended(r); err != nil {
		t.Error(err)
	}
	slices.Sort(asked)
	want := []string{
		"order to mail", "order to order-sidecar", "order-sidecar to nats", "order-sidecar to order",
		"stock to mail", "stock to stock-sidecar", "stock-sidecar to nats", "stock-sidecar to stock",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

func TestLinksAreWhatProcessesAreTold(t *testing.T) {
	answer := "127.0.0.1:9"
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, answer)
	}))
	defer between.Close()
	l := links(between.URL)
	if port, err := l.viaPort(t.Context(), "a", "b", 8080); err != nil || port != 9 {
		t.Errorf("port %d (%v), want 9", port, err)
	}
	secrets := map[string]string{"NATS_URL": "nats://user:pass@127.0.0.1:4222", "REDIS_HOST": "127.0.0.1:6379", "REDIS_PASSWORD": "p"}
	got, err := l.viaSecrets(t.Context(), "a-sidecar", secrets, "nats", "redis", "sqlite")
	if err != nil || got["NATS_URL"] != "nats://user:pass@127.0.0.1:9" || got["REDIS_HOST"] != "127.0.0.1:9" || got["REDIS_PASSWORD"] != "p" {
		t.Errorf("secrets %v (%v)", got, err)
	}
	if secrets["REDIS_HOST"] != "127.0.0.1:6379" {
		t.Error("the secrets of all sidecars were changed")
	}
	answer = "not an address"
	if _, err := l.via(t.Context(), "a", "b", "127.0.0.1:8080"); err == nil {
		t.Error("any answer is taken for an address")
	}
	answer = "10.0.0.1:9"
	if _, err := l.viaPort(t.Context(), "a", "b", 8080); err == nil {
		t.Error("a port elsewhere is taken for one here")
	}
	if port, err := links("").viaPort(t.Context(), "a", "b", 8080); err != nil || port != 8080 {
		t.Errorf("without anybody in between: port %d (%v)", port, err)
	}
}
