package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// streams are what the sidecars publish to and read from: Dapr's JetStream
// component creates consumers but no streams. One stream for each topic, under
// the topic's name. The dead letters need one of their own in any case: a message
// keeps its id when the sidecar gives it up, and JetStream would take the copy
// for a repetition of the original and drop it, within one stream.
var streams = []struct {
	topic      string
	maxAge     time.Duration
	duplicates time.Duration // how long ids are remembered
}{
	// Events are messages here, not the record (that is in the services' stores):
	// a week bridges a service that was off over a long weekend.
	{"order-events", 7 * 24 * time.Hour, duplicateWindow},
	{"inventory-events", 7 * 24 * time.Hour, duplicateWindow},
	// Dead letters wait for a person.
	{"dead-letters", 90 * 24 * time.Hour, duplicateWindow},
	// A replay is read while it runs, or asked for again; and when it is, within
	// a moment of the last one, nothing of it may be missing.
	{"replay", time.Hour, shortestWindow},
}

const (
	// maxStreamBytes keeps a forgotten development machine from filling its disk;
	// an event is about 1 KiB, so that is a million of them for each topic. The
	// oldest go first.
	maxStreamBytes = 1 << 30

	// duplicateWindow is how long JetStream remembers message ids. It must be
	// shorter than the time after which a service publishes again what had no
	// effect (order's SWEEP_AFTER, 8 s), or the repetition would be dropped as a
	// duplicate; the server's default of 2 minutes isn't. The consumers don't need it: they are idempotent.
	duplicateWindow = 5 * time.Second
	// shortestWindow is the shortest that the server takes; 0 would mean its default.
	shortestWindow = 100 * time.Millisecond

	brokerTimeout = 10 * time.Second
)

// broker is the NATS server: this program once more, as a process of its own, so
// that it can die like any other without taking the launcher with it.
type broker struct {
	url     string // with credentials: whoever knows it may publish
	process *process
}

// brokerCommand is the first argument of the program as the broker, and the
// directory of its streams the second. Its URL is in the environment, where not
// everybody can read it.
const (
	brokerCommand = "broker"
	brokerURL     = "NATS_URL"
)

// newBrokerURL is an address on loopback with credentials that are new.
func newBrokerURL(port int) string {
	return (&url.URL{Scheme: "nats", User: url.UserPassword("orderflow", randomToken()), Host: loopback(port)}).String()
}

// brokerMain is the broker's main function. It ends at a signal.
func brokerMain(dir string, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ns, err := serveBroker(dir, os.Getenv(brokerURL), brokerLog{func(line string) { fmt.Fprintln(out, line) }})
	if err != nil {
		return err
	}
	<-ctx.Done()
	closeBroker(ns)
	return nil
}

// serveBroker starts the server at address, with its streams on disk under dir.
func serveBroker(dir, address string, log server.Logger) (*server.Server, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return nil, fmt.Errorf("broker: port: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	password, _ := u.User.Password()
	ns, err := server.NewServer(&server.Options{
		ServerName: "orderflow",
		Host:       u.Hostname(),
		Port:       port,
		Username:   u.User.Username(),
		Password:   password,
		JetStream:  true,
		StoreDir:   dir,
		// The server acknowledges before the disk has it; what a killed server wrote
		// is with the system and safe, and a power cut costs at most this (default: 2
		// minutes). Publishers then publish again: see README.md, rule 2.
		SyncInterval: time.Second,
		NoSigs:       true,
	})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	ns.SetLoggerV2(log, false, false, false)
	ns.Start()
	if !ns.ReadyForConnections(brokerTimeout) {
		closeBroker(ns)
		return nil, fmt.Errorf("broker: not ready after %s", brokerTimeout)
	}
	return ns, nil
}

// closeBroker stops the server and returns when its files are written.
func closeBroker(ns *server.Server) {
	ns.Shutdown()
	ns.WaitForShutdown()
}

// awaitStreams waits until the server answers and sees to it that it has the
// streams. It gives up when the server's process, p, has ended.
func awaitStreams(ctx context.Context, p *process, address string) error {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		conn, err := nats.Connect(address, nats.Timeout(time.Second), nats.NoReconnect())
		if err == nil {
			defer conn.Close()
			return createStreams(ctx, conn)
		}
		select {
		case <-p.exited:
			return p.reason()
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return context.Canceled
			}
			return fmt.Errorf("broker: not ready after %s: %w", brokerTimeout, err)
		case <-poll.C:
		}
	}
}

func createStreams(ctx context.Context, conn *nats.Conn) error {
	js, err := jetstream.New(conn)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	for _, s := range streams {
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name:       s.topic,
			Subjects:   []string{s.topic},
			Storage:    jetstream.FileStorage,
			Retention:  jetstream.LimitsPolicy,
			Discard:    jetstream.DiscardOld,
			MaxAge:     s.maxAge,
			MaxBytes:   maxStreamBytes,
			Duplicates: s.duplicates,
		})
		if err != nil {
			return fmt.Errorf("broker: stream %s: %w", s.topic, err)
		}
	}
	return nil
}

// brokerLog writes the server's log to a file and shows its complaints.
type brokerLog struct {
	each func(line string)
}

func (l brokerLog) write(level, format string, v []any) {
	l.each(fmt.Sprintf("time=%q level=%s msg=%q", time.Now().Format(time.RFC3339Nano), level, fmt.Sprintf(format, v...)))
}

func (l brokerLog) Noticef(format string, v ...any) { l.write("info", format, v) }
func (l brokerLog) Warnf(format string, v ...any)   { l.write("warning", format, v) }
func (l brokerLog) Fatalf(format string, v ...any)  { l.write("fatal", format, v) }
func (l brokerLog) Errorf(format string, v ...any)  { l.write("error", format, v) }
func (l brokerLog) Debugf(format string, v ...any)  { l.write("debug", format, v) }
func (l brokerLog) Tracef(format string, v ...any)  { l.write("debug", format, v) }
