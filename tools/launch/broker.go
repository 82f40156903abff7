package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
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
	topic  string
	maxAge time.Duration
}{
	// Events are messages here, not the record (that is in the services' stores):
	// a week bridges a service that was off over a long weekend.
	{"order-events", 7 * 24 * time.Hour},
	{"inventory-events", 7 * 24 * time.Hour},
	// Dead letters wait for a person.
	{"dead-letters", 90 * 24 * time.Hour},
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
)

// broker is the NATS server inside the launcher.
type broker struct {
	server *server.Server
	url    string // with credentials: whoever knows it may publish
}

// startBroker starts the server on loopback, with its streams on disk under dir.
// Its credentials are new with every start.
func startBroker(ctx context.Context, dir string, port int, log server.Logger) (*broker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	const user = "orderflow"
	password := randomToken()
	ns, err := server.NewServer(&server.Options{
		ServerName: "orderflow",
		Host:       "127.0.0.1",
		Port:       port,
		Username:   user,
		Password:   password,
		JetStream:  true,
		StoreDir:   dir,
		// The server acknowledges before the disk has it; what a killed launcher
		// wrote is with the system and safe, and a power cut costs at most this
		// (default: 2 minutes). Publishers then publish again: see DESIGN, rule 2.
		SyncInterval: time.Second,
		NoSigs:       true,
	})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	ns.SetLoggerV2(log, false, false, false)
	ns.Start()
	b := &broker{
		server: ns,
		url:    (&url.URL{Scheme: "nats", User: url.UserPassword(user, password), Host: fmt.Sprintf("127.0.0.1:%d", port)}).String(),
	}
	if !ns.ReadyForConnections(10 * time.Second) {
		b.close()
		return nil, fmt.Errorf("broker: not ready after 10 s; its log is in the data directory")
	}
	if err := createStreams(ctx, ns, user, password); err != nil {
		b.close()
		return nil, fmt.Errorf("broker: %w", err)
	}
	return b, nil
}

func createStreams(ctx context.Context, ns *server.Server, user, password string) error {
	conn, err := nats.Connect("", nats.InProcessServer(ns), nats.UserInfo(user, password))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
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
			Duplicates: duplicateWindow,
		})
		if err != nil {
			return fmt.Errorf("stream %s: %w", s.topic, err)
		}
	}
	return nil
}

// close stops the server and returns when its files are written.
func (b *broker) close() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
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
