package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// readyTimeout is how long a process may take to start. A sidecar waits up to
// 5 s for each component by itself.
const readyTimeout = 60 * time.Second

var probe = &http.Client{
	Timeout: 2 * time.Second,
	// Each probe on a connection of its own: an idle one would hold up the
	// shutdown of the server it points to.
	Transport: &http.Transport{DisableKeepAlives: true},
}

// waitReady waits until url answers with a 2xx. It gives up when p ends, when
// ctx is done and after readyTimeout, and says what the last answer was.
func waitReady(ctx context.Context, p *process, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("%s is not ready after %s", p.name, readyTimeout))
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	last := "no answer"
	for {
		if answer, ok := get(ctx, url); ok {
			return nil
		} else if ctx.Err() == nil {
			last = answer
		}
		select {
		case <-p.exited:
			return p.reason()
		case <-ctx.Done():
			if context.Cause(ctx) == context.Canceled {
				return context.Canceled
			}
			return fmt.Errorf("%w: GET %s: %s", context.Cause(ctx), url, last)
		case <-poll.C:
		}
	}
}

func get(ctx context.Context, url string) (answer string, ok bool) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error(), false
	}
	response, err := probe.Do(request)
	if err != nil {
		return err.Error(), false
	}
	response.Body.Close()
	return response.Status, response.StatusCode/100 == 2
}
