package brokers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const rabbitDirs = "/usr/lib/rabbitmq/bin" // the script itself: the one in PATH changes to another user

// rabbitMQ is a node that knows of no other: its name server (epmd), which Erlang
// would start as a daemon for all nodes of the machine, is one of its own.
var rabbitMQ = kind{
	missing: func() error {
		_, err := rabbitProgram("rabbitmq-server")
		_, errEpmd := program("epmd")
		return firstOf(err, errEpmd)
	},
	prepare: func(s *Server) error {
		names, err := freePort()
		if err != nil {
			return err
		}
		dist, err := freePort()
		if err != nil {
			return err
		}
		epmd, err := program("epmd")
		if err != nil {
			return err
		}
		if err := s.help(exec.Command(epmd, "-address", "127.0.0.1", "-port", strconv.Itoa(names))); err != nil {
			return err
		}
		if err := await(func(ctx context.Context) error { return dials(ctx, loopback(names)) }); err != nil {
			return fmt.Errorf("epmd: %w", err)
		}
		return errors.Join(
			s.write("ports", fmt.Sprintf("%d %d", names, dist)),
			s.write("plugins", "[]."),
			s.write("rabbitmq.conf", fmt.Sprintf(`listeners.tcp.1 = 127.0.0.1:%d
default_user = orderflow
default_pass = %s
log.console = true
log.console.level = warning
log.file = false
disk_free_limit.absolute = 50MB
`, s.port, s.secret)))
	},
	command: func(s *Server) (*exec.Cmd, error) {
		cmd, err := rabbitCommand(s, "rabbitmq-server")
		if err != nil {
			return nil, err
		}
		cmd.Env = append(cmd.Env,
			// The script becomes the server then, instead of starting it: the process that
			// is killed is the right one. The input that it allows is taken away again.
			"RABBITMQ_ALLOW_INPUT=1",
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput -kernel inet_dist_use_interface {127,0,0,1}",
		)
		return cmd, nil
	},
	backlog: func(ctx context.Context, s *Server) (string, error) {
		cmd, err := rabbitCommand(s, "rabbitmqctl", "--quiet", "list_queues", "name", "messages")
		if err != nil {
			return "", err
		}
		out, err := outputOf(ctx, s, cmd)
		return backlog(out, 0, 1), err
	},
	answers: greets("AMQP\x00\x00\x09\x01", 1), // a frame of type 1, method: connection.start
	env: func(s *Server, address string) []string {
		return []string{"RABBITMQ_URL=" + (&url.URL{Scheme: "amqp", User: url.UserPassword("orderflow", s.secret), Host: address, Path: "/"}).String()}
	},
}

// rabbitCommand is a program of RabbitMQ's, for the node of s.
func rabbitCommand(s *Server, name string, args ...string) (*exec.Cmd, error) {
	path, err := rabbitProgram(name)
	if err != nil {
		return nil, err
	}
	var names, dist int
	content, err := os.ReadFile(filepath.Join(s.dir, "ports"))
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Sscan(string(content), &names, &dist); err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(),
		"HOME="+s.dir, // of the cookie that nodes know each other by
		"RABBITMQ_NODENAME=orderflow-"+strconv.Itoa(s.port)+"@localhost",
		"RABBITMQ_BASE="+s.dir,
		"RABBITMQ_MNESIA_BASE="+filepath.Join(s.dir, "mnesia"),
		"RABBITMQ_LOG_BASE="+filepath.Join(s.dir, "log"),
		"RABBITMQ_CONFIG_FILE="+filepath.Join(s.dir, "rabbitmq.conf"),
		"RABBITMQ_CONF_ENV_FILE="+filepath.Join(s.dir, "none"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(s.dir, "plugins"),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(dist),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_EPMD_PORT="+strconv.Itoa(names),
	)
	return cmd, nil
}

func rabbitProgram(name string) (string, error) {
	path := filepath.Join(rabbitDirs, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return program(name)
}

// greets says whether a server that is sent hello answers with something that
// begins with the byte want.
func greets(hello string, want byte) func(context.Context, *Server) error {
	return func(ctx context.Context, s *Server) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Address())
		if err != nil {
			return err
		}
		defer conn.Close()
		if deadline, ok := ctx.Deadline(); ok {
			if err := conn.SetDeadline(deadline); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(conn, hello); err != nil {
			return err
		}
		answer := make([]byte, 1)
		if _, err := io.ReadFull(conn, answer); err != nil {
			return err
		}
		if answer[0] != want {
			return fmt.Errorf("its answer begins with %#x, want %#x", answer[0], want)
		}
		return nil
	}
}

func dials(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// await tries until it succeeds or startTimeout is over.
func await(try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return err
		}
	}
}
