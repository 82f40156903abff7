package process

import (
	"context"
	"time"
)

// Every calls f once in each interval, one call after the other, until the function
// that it answers is called: that ends the context of the call that runs, and waits
// until it returns or its own context ends.
func Every(interval time.Duration, f func(context.Context)) (stop func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				f(ctx)
			}
		}
	}()
	return func(stopping context.Context) error {
		cancel()
		select {
		case <-ended:
			return nil
		case <-stopping.Done():
			return stopping.Err()
		}
	}
}
