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
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/gin-gonic/gin"
)

// shutdownTimeout bounds the whole end of a process. It is shorter than the
// time that Kubernetes gives one by default (30 s).
const shutdownTimeout = 20 * time.Second

// Process is what a service is built from.
type Process struct {
	Name   string
	Log    *slog.Logger
	Dapr   dapr.Client // the sidecar
	Public gin.IRoutes // routes for clients
	Events gin.IRoutes // routes for the sidecar alone, behind the app token

	// Draining is closed when the service begins to end: who waits for
	// something on behalf of a client gives up then.
	Draining <-chan struct{}

	router  *gin.Engine
	sidecar sidecar
	ready   atomic.Bool
	closers []closer
}

type closer struct {
	what  string
	close func(context.Context) error
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
}

func run(ctx context.Context, name string, log *slog.Logger, c common, setup func(*Process) error) (err error) {
	flush, err := startTracing(ctx, name, c)
	if err != nil {
		return err
	}
	conn, client, err := dial(c)
	if err != nil {
		return err
	}
	draining := make(chan struct{})
	p := &Process{Name: name, Log: log, Dapr: client, Draining: draining, sidecar: sidecar{url: "http://127.0.0.1:" + c.daprHTTPPort}}
	p.routes(c)
	if c.appToken == "" {
		log.Warn("APP_API_TOKEN is not set: every local process can send this service events")
	}
	p.closers = append(p.closers,
		closer{"traces", flush},
		closer{"connection to the sidecar", func(context.Context) error { return conn.Close() }},
	)
	listener, err := net.Listen("tcp", net.JoinHostPort(c.host, c.port))
	if err != nil {
		return err
	}
	if err := setup(p); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{
		Handler:           p.router,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	p.ready.Store(true)
	log.Info("listening", "address", listener.Addr().String())

	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	return errors.Join(err, p.shutdown(server, draining))
}

// shutdown ends the process in the reverse of the order in which it began:
// readiness, requests, what the service runs on its own, the sidecar, traces.
func (p *Process) shutdown(server *http.Server, draining chan struct{}) error {
	begin := time.Now()
	p.Log.Info("shutting down")
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	p.ready.Store(false)
	close(draining)
	var errs []error
	if err := server.Shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("requests: %w", err), server.Close())
	}
	for i := len(p.closers) - 1; i >= 0; i-- {
		if err := p.closers[i].close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.closers[i].what, err))
		}
	}
	p.Log.Info("stopped", "ms", time.Since(begin).Milliseconds())
	return errors.Join(errs...)
}
