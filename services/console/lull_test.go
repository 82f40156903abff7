package console

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestLull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lull
		waits := func(want time.Duration) {
			t.Helper()
			begin := time.Now()
			l.await(t.Context())
			if waited := time.Since(begin); waited != want {
				t.Errorf("it waited %s, want %s", waited, want)
			}
		}

		go waits(giveWay) // the first after a while
		time.Sleep(giveWay / 4)
		waits(giveWay * 3 / 4) // with the first
		synctest.Wait()
		waits(0) // behind them, which are being written
		l.kept()
		waits(0) // right behind
		time.Sleep(giveWay)
		l.kept()
		time.Sleep(giveWay)
		waits(0) // still busy
		time.Sleep(giveWay + 1)
		waits(giveWay)

		time.Sleep(2 * giveWay)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(giveWay/2, cancel)
		begin := time.Now()
		l.await(ctx)
		if waited := time.Since(begin); waited != giveWay/2 {
			t.Errorf("it waited %s, and nobody for the answer", waited)
		}
	})
}
