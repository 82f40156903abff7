package system

import (
	"github.com/redis/go-redis/v9"

	"orderflow/test/brokers"
)

// Redis is a Redis server of the test's own.
type Redis struct{ *brokers.Server }

// Client is a new connection to the server; the caller closes it.
func (r *Redis) Client() *redis.Client { return r.RedisClient() }
