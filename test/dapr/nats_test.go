package dapr

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// startNATS starts a JetStream server in this process, with the stream that the
// launcher makes for orders' events, and answers the secrets of its components.
func startNATS(tb testing.TB) []string {
	tb.Helper()
	const wait = 10 * time.Second
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: tb.TempDir(), NoSigs: true})
	if err != nil {
		tb.Fatal(err)
	}
	ns.Start()
	tb.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	if !ns.ReadyForConnections(wait) {
		tb.Fatalf("NATS is not ready after %s", wait)
	}
	conn, err := nats.Connect(ns.ClientURL())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	js, err := conn.JetStream(nats.MaxWait(wait))
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "order-events", Subjects: []string{"order-events"}, Storage: nats.FileStorage, Duplicates: 5 * time.Second}); err != nil {
		tb.Fatal(err)
	}
	return []string{"NATS_URL=" + ns.ClientURL()}
}
