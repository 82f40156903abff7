package flow

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"orderflow/test/brokers"
	"orderflow/test/system"
)

func TestZZKill(t *testing.T) {
	f := &flow{System: system.Start(t, options())}
	id := f.stock(t, "kill", 100, 1000)
	victim := f.BrokerServer
	if os.Getenv("VICTIM") == "state" {
		victim = f.StateServer
	}
	kill(t, f, id, victim)
}

func kill(t *testing.T, f *flow, id string, victim *brokers.Server) {
	var mu sync.Mutex
	var ids []string
	var wg sync.WaitGroup
	refused := 0
	stop := time.After(12 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	wg.Go(func() {
		time.Sleep(3 * time.Second)
		if err := victim.Kill(); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		if err := victim.Start(); err != nil {
			t.Error(err)
		}
	})
loop:
	for {
		select {
		case <-stop:
			break loop
		case <-tick.C:
			wg.Go(func() {
				o, _, err := f.Place(t.Context(), placement(item(id, 1)))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					refused++
				} else {
					ids = append(ids, o.OrderID)
				}
			})
		}
	}
	wg.Wait()
	begin := time.Now()
	for _, o := range ids {
		f.Ended(t, o)
	}
	ended := time.Since(begin)
	for _, o := range ids {
		f.Notified(t, o)
	}
	fmt.Printf("KILL broker %s state %s: %d accepted, %d refused, ended %.1f s, told %.1f s after the load, %d dead letters\n", os.Getenv("BROKER"), os.Getenv("STATE"), len(ids), refused, ended.Seconds(), time.Since(begin).Seconds(), len(f.DeadLetters(t, nil)))
	f.counted(t, id, int64(1000-len(ids)), 0, int64(len(ids)))
}
