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

// Redis is a Redis server of the test's own.
type Redis struct {
	address, password string

	program, dir string
	log          output
	cmd          *exec.Cmd
	exited       chan struct{}
	waitErr      error // valid once exited is closed
}

// startRedis starts a Redis server that keeps what it acknowledges, as this
// system needs it, on a free port; it ends with the test, and with it its data.
func startRedis(tb testing.TB) *Redis {
	tb.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		tb.Fatalf("a Redis server is needed and redis-server is not installed (Debian: apt-get install redis-server): %v", err)
	}
	port, err := freePort()
	if err != nil {
		tb.Fatal(err)
	}
	r := &Redis{
		address:  net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		password: rand.Text(),
		program:  program,
		dir:      tb.TempDir(),
	}
	tb.Cleanup(func() {
		if r.exited == nil {
			return
		}
		_ = r.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
		select {
		case <-r.exited:
		case <-time.After(redisTimeout):
			tb.Errorf("redis-server did not stop within %s", redisTimeout)
			_ = r.cmd.Process.Kill()
			<-r.exited
		}
	})
	if err := r.Start(); err != nil {
		tb.Fatal(err)
	}
	return r
}

// Start starts the server on the data that it has, which must not be running, and
// returns when it answers.
func (r *Redis) Start() error {
	host, port, err := net.SplitHostPort(r.address)
	if err != nil {
		return err
	}
	cmd := exec.Command(r.program, "-") // the configuration comes by standard input: arguments are for all to see
	cmd.Dir = r.dir
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`bind %s
port %s
requirepass %s
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
`, host, port, r.password))
	cmd.Stdout, cmd.Stderr = &r.log, &r.log
	started, exited := make(chan error), make(chan struct{})
	go func() {
		endWithTest(cmd)
		err := cmd.Start()
		started <- err
		if err == nil {
			r.waitErr = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	r.cmd, r.exited = cmd, exited

	client := r.Client()
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), redisTimeout)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := client.Ping(ctx).Err()
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-exited:
			return fmt.Errorf("redis-server ended (%w):\n%s", r.waitErr, &r.log)
		case <-ctx.Done():
			return fmt.Errorf("redis-server does not answer after %s (%w):\n%s", redisTimeout, err, &r.log)
		}
	}
}

// Kill ends the server with SIGKILL. What it acknowledged it wrote to its log
// file before; only the disk may not have it yet.
func (r *Redis) Kill() error {
	if err := r.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill redis-server: %w", err)
	}
	<-r.exited
	return nil
}

// Client is a new connection to the server; the caller closes it.
func (r *Redis) Client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: r.address, Password: r.password, MaxRetries: -1})
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
