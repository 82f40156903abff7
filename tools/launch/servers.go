package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

// external is what a broker or store needs that the launcher doesn't start: the
// secrets of its component, which are environment variables of the sidecar, with
// what is assumed when they are not set, and which of them is the address.
type external struct {
	address  string
	defaults map[string]string
	help     string
}

// externals by the name of the folder in components/broker or components/state.
var externals = map[string]external{
	"redis": {
		address:  "REDIS_HOST",
		defaults: map[string]string{"REDIS_HOST": "localhost:6379", "REDIS_PASSWORD": ""},
		help:     "start one (`redis-server`, or `docker run -p 6379:6379 redis:8`), or set REDIS_HOST=host:port and REDIS_PASSWORD",
	},
}

// checkExternal returns the sidecars' variables for a broker or store that has
// to be running already, and an error that says what to do if nothing answers
// at its address. What the launcher provides itself needs none.
func checkExternal(ctx context.Context, name string, lookup func(string) (string, bool)) (map[string]string, error) {
	known, ok := externals[name]
	if !ok {
		return nil, nil
	}
	env := map[string]string{}
	for key, value := range known.defaults {
		if set, ok := lookup(key); ok {
			value = set
		}
		env[key] = value
	}
	address := env[known.address]
	conn, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("nothing answers for %s at %s (%w): %s", name, address, err, known.help)
	}
	return env, conn.Close()
}
