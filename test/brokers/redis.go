package brokers

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/redis/go-redis/v9"
)

// redisServer keeps what it acknowledges, as this system needs it.
var redisServer = kind{
	missing: func() error { _, err := program("redis-server"); return err },
	command: func(s *Server) (*exec.Cmd, error) {
		path, err := program("redis-server")
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(path, "-") // the configuration comes by standard input: arguments are for all to see
		cmd.Stdin = strings.NewReader(fmt.Sprintf(`bind 127.0.0.1
port %d
requirepass %s
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
`, s.port, s.secret))
		return cmd, nil
	},
	answers: func(ctx context.Context, s *Server) error {
		client := s.RedisClient()
		defer client.Close()
		return client.Ping(ctx).Err()
	},
	env: func(s *Server, address string) []string {
		return []string{"REDIS_HOST=" + address, "REDIS_PASSWORD=" + s.secret}
	},
}

// RedisClient is a new connection to a Redis server; the caller closes it.
func (s *Server) RedisClient() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Address(), Password: s.secret, MaxRetries: -1})
}
