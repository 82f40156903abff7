// Package process runs a service: configuration, logs, traces, the connection
// to the sidecar, the HTTP server with health and tokens, and an ordered end.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/gin-gonic/gin"
)

// The end of a process is bounded by what requests get and what all the rest
// gets after them: together less than what a process is given by the launcher
// (20 s) and, by default, by Kubernetes (30 s).
const (
	requestsTimeout = 12 * time.Second
	closeTimeout    = 7 * time.Second
	// firstRequest is how long a connection may go without a request then.
	firstRequest = 250 * time.Millisecond
)

// Process is what a service is built from.
type Process struct {
	Name   string
	Log    *slog.Logger
	Dapr   dapr.Client // the sidecar
	Public gin.IRoutes // routes for clients
	Events gin.IRoutes // routes for the sidecar alone, behind the app token
	// Admin are routes for operators, behind the app token too. Whoever may call
	// the service through a sidecar is let in: the sidecar adds the token.
	Admin gin.IRoutes

	// Draining is closed when the service begins to end: who waits for
	// something on behalf of a client gives up then.
	Draining <-chan struct{}

	router   *gin.Engine
	sidecar  sidecar
	ready    atomic.Bool
	draining chan struct{}
	closers  []closer

	requestsTimeout, closeTimeout time.Duration
}

type closer struct {
	what  string
	close func(context.Context) error
}

// New is a process without its server: what Main runs, and what a test of a
// service calls directly. sidecarURL is the base of the sidecar's HTTP API.
func New(name string, log *slog.Logger, client dapr.Client, sidecarURL, appToken string) *Process {
	draining := make(chan struct{})
	p := &Process{
		Name: name, Log: log, Dapr: client, Draining: draining, draining: draining, sidecar: sidecar{url: sidecarURL},
		requestsTimeout: requestsTimeout, closeTimeout: closeTimeout,
	}
	p.routes(appToken)
	return p
}

// Handler serves the routes of the process.
func (p *Process) Handler() http.Handler { return p.router }

// Close ends what the service runs, in the reverse of the order in which it was
// registered. Requests must have ended, or end now by themselves. What has not
// ended when ctx has is left behind.
func (p *Process) Close(ctx context.Context) error {
	var errs []error
	for _, c := range slices.Backward(p.closers) {
		ended := make(chan error, 1)
		go func() { ended <- c.close(ctx) }()
		var err error
		select {
		case err = <-ended:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.what, err))
		}
	}
	return errors.Join(errs...)
}

// OnShutdown has f called when the last request is done, and before the
// connection to the sidecar ends; what was registered last is closed first.
func (p *Process) OnShutdown(what string, f func(context.Context) error) {
	p.closers = append(p.closers, closer{what, f})
}

// Main is the main function of a service. configure reads what the service
// needs beyond the common settings; setup builds the service on p, mounts its
// routes, and returns; it must not wait for the sidecar, which may be waiting
// for this service.
func Main[C any](name, about string, configure func(*Env) C, setup func(*Process, C) error) {
	env := NewEnv(os.Getenv)
	common := readCommon(env)
	config := configure(env)
	if len(os.Args) > 1 {
		fmt.Fprintf(os.Stderr, "%s: %s\n\nIt takes no arguments; it is configured by its environment:\n\n", name, about)
		env.usage(os.Stderr)
		if strings.TrimLeft(os.Args[1], "-") == "help" || os.Args[1] == "-h" {
			return
		}
		os.Exit(2)
	}
	if err := env.Err(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: the configuration is not usable (%s --help lists all of it):\n%v\n", name, name, err)
		os.Exit(2)
	}
	log := newLog(os.Stdout, name, common.logLevel)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, name, log, common, func(p *Process) error { return setup(p, config) }); err != nil {
		log.Error("stopped", "error", err)
		os.Exit(1)
	}
	log.Info("stopped")
}

func run(ctx context.Context, name string, log *slog.Logger, c common, setup func(*Process) error) error {
	dapr.SetLogger(nil) // it writes lines to stdout that are not JSON
	flush, err := startTracing(ctx, name, c)
	if err != nil {
		return err
	}
	conn, client, err := dial(c)
	if err != nil {
		return err
	}
	p := New(name, log, client, "http://"+net.JoinHostPort("127.0.0.1", c.daprHTTPPort), c.appToken)
	p.OnShutdown("traces", flush)
	p.OnShutdown("connection to the sidecar", func(context.Context) error { return conn.Close() })
	err = p.serve(ctx, c, setup)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.closeTimeout)
	defer cancel()
	return errors.Join(err, p.Close(closing))
}

// serve builds the service and answers requests until ctx ends, then lets those
// that run come to their end.
func (p *Process) serve(ctx context.Context, c common, setup func(*Process) error) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(c.host, c.port))
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := setup(p); err != nil {
		return err
	}
	server := &http.Server{
		Handler:           p.router,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(p.Log.Handler(), slog.LevelWarn),
	}
	var unused sync.Map // connections that have carried nothing yet
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			unused.Store(c, nil)
		} else {
			unused.Delete(c)
		}
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	p.ready.Store(true)
	if c.appToken == "" {
		p.Log.Warn("APP_API_TOKEN is not set: every local process can send this service events")
	}
	p.Log.Info("listening", "address", listener.Addr().String())

	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	p.Log.Info("shutting down")
	p.ready.Store(false)
	close(p.draining)
	draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.requestsTimeout)
	defer cancel()
	// Shutdown would wait 5 s for a connection that was opened ahead of need, as
	// clients and sidecars do.
	defer time.AfterFunc(firstRequest, func() {
		unused.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
	}).Stop()
	if late := server.Shutdown(draining); late != nil {
		err = errors.Join(err, fmt.Errorf("requests: %w", late), server.Close())
	}
	return err
}
