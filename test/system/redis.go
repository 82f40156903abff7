package system

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const redisTimeout = 15 * time.Second

// redisServer is a Redis server of the test's own.
type redisServer struct{ address, password string }

// startRedis starts a Redis server that keeps what it acknowledges, as this
// system needs it, on a free port; it ends with the test, and with it its data.
func startRedis(tb testing.TB) redisServer {
	tb.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		tb.Fatalf("a Redis server is needed and redis-server is not installed (Debian: apt-get install redis-server): %v", err)
	}
	port, err := freePort()
	if err != nil {
		tb.Fatal(err)
	}
	r := redisServer{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), password: rand.Text()}
	log := &output{}
	cmd := exec.Command(program, "-") // the configuration comes by standard input: arguments are for all to see
	cmd.Dir = tb.TempDir()
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`bind 127.0.0.1
port %d
requirepass %s
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
`, port, r.password))
	cmd.Stdout, cmd.Stderr = log, log
	started, exited := make(chan error), make(chan struct{})
	var waitErr error
	go func() {
		endWithTest(cmd)
		err := cmd.Start()
		started <- err
		if err == nil {
			waitErr = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		tb.Fatalf("start redis-server: %v", err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
		select {
		case <-exited:
		case <-time.After(redisTimeout):
			tb.Errorf("redis-server did not stop within %s", redisTimeout)
			_ = cmd.Process.Kill()
			<-exited
		}
	})

	client := redis.NewClient(&redis.Options{Addr: r.address, Password: r.password, MaxRetries: -1})
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), redisTimeout)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := client.Ping(ctx).Err()
		if err == nil {
			return r
		}
		select {
		case <-poll.C:
		case <-exited:
			tb.Fatalf("redis-server ended (%v):\n%s", waitErr, log)
		case <-ctx.Done():
			tb.Fatalf("redis-server does not answer after %s (%v):\n%s", redisTimeout, err, log)
		}
	}
}

// freePort is a loopback port below the range that systems give to outgoing
// connections (from 32768 on Linux, 49152 elsewhere), so that none of these can
// take it before the server does.
func freePort() (int, error) {
	for range 100 {
		port := 20000 + mathrand.IntN(12000)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, errors.New("no free port between 20000 and 31999")
}
