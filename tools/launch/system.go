package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"orderflow/tools/internal/runfile"
	"orderflow/tools/mailsink"
)

// How long each stage of the shutdown may take. A service's own limit is
// shorter; what is killed here was stuck.
const (
	servicesGrace = 20 * time.Second
	sidecarsGrace = 10 * time.Second
	mailGrace     = 5 * time.Second
	brokerGrace   = 10 * time.Second
)

// system is everything that runs, in the order in which it is started: broker
// and mail sink, then for each app its sidecar and the app itself.
type system struct {
	settings settings
	console  *console
	lookup   func(string) (string, bool) // the launcher's own environment
	lock     *lock
	ports    *portPicker
	spawner  *spawner
	apps     []*app

	// Beyond the launcher's own environment: what all children get, and what only
	// sidecars get, the secrets of their components.
	common, secrets    map[string]string
	apiToken, appToken string

	broker     *broker // nil if it is not started here
	brokerPort int
	mail       *mailsink.Sink
	mailPorts  [2]int // SMTP, HTTP

	deaths chan *process // those that ended without being asked to
	late   chan *app     // those that were held down at the start, and no longer are

	mu   sync.Mutex // guards logs: apps are started side by side
	logs []*os.File
}

// app is one app of the run file with its sidecar. Either can be started again
// after it has ended: nothing in here but process and sidecar changes.
type app struct {
	runfile.App
	process *process // nil if it has no command, or before it is started
	sidecar *process
}

// sidecarName is what the sidecar is called where names have no blanks.
func (a *app) sidecarName() string { return a.AppID + "-sidecar" }

func (a *app) url() string         { return "http://" + loopback(a.AppPort) }
func (a *app) sidecarHTTP() string { return "http://" + loopback(a.DaprHTTPPort) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// newSystem reads the run file and takes possession of the data directory and the
// ports; it starts nothing.
func newSystem(s settings, out *console, lookup func(string) (string, bool)) (_ *system, err error) {
	getenv := func(name string) string { value, _ := lookup(name); return value }
	apps, err := runfile.Load(s.file, runfile.DaprDir(getenv))
	if err != nil {
		return nil, err
	}
	if err := runfile.SelectComponents(apps, s.broker, s.state); err != nil {
		return nil, err
	}
	for i := range apps {
		if apps[i].UnixDomainSocket != "" {
			return nil, fmt.Errorf("app %s: unixDomainSocket is not supported here; use the Dapr CLI", apps[i].AppID)
		}
		if apps[i].APIListenAddresses == "" {
			apps[i].APIListenAddresses = "127.0.0.1"
		}
	}
	if _, err := os.Stat(s.daprd); err != nil {
		return nil, fmt.Errorf("sidecar: %w (`make build` makes it)", err)
	}

	lock, err := lockData(s.data)
	if err != nil {
		return nil, err
	}
	// From here on a status file is nobody's: a killed launcher left it.
	sys := &system{
		settings: s,
		console:  out,
		lookup:   lookup,
		lock:     lock,
		ports:    newPortPicker(),
		spawner:  newSpawner(),
		apiToken: getenv("DAPR_API_TOKEN"),
		appToken: getenv("APP_API_TOKEN"),
		deaths:   make(chan *process, 2*len(apps)+1),
		late:     make(chan *app, len(apps)),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, sys.stop(context.Background()))
		}
	}()
	if err := sys.removeStatus(); err != nil {
		return nil, err
	}
	if sys.apiToken == "" {
		sys.apiToken = randomToken()
	}
	if sys.appToken == "" {
		sys.appToken = randomToken()
	}

	if err := sys.ports.assign(apps, s.freePorts); err != nil {
		return nil, err
	}
	if sys.brokerPort, err = sys.ports.pick(); err != nil {
		return nil, err
	}
	// 1025 and 8025 are where developers expect a mail sink.
	for i, usual := range []int{1025, 8025} {
		if sys.mailPorts[i], err = sys.ports.prefer(usual, !s.freePorts); err != nil {
			return nil, err
		}
	}
	for i := range apps {
		sys.apps = append(sys.apps, &app{App: apps[i]})
		out.announce(apps[i].AppID, apps[i].AppID+" sidecar")
	}
	out.announce("broker")
	return sys, nil
}

// randomToken returns 128 bits that nobody can guess, in letters and digits.
func randomToken() string { return strings.ToLower(rand.Text()) }

// start brings everything up and returns when all of it is ready, or with the
// reason why something is not.
func (s *system) start(ctx context.Context) error {
	s.common = map[string]string{
		"DAPR_API_TOKEN": s.apiToken,
		"APP_API_TOKEN":  s.appToken,
		"DAPR_HOST_IP":   "127.0.0.1",
	}
	s.secrets = map[string]string{}
	for _, name := range []string{s.settings.broker, s.settings.state} {
		env, err := checkExternal(ctx, name, s.lookup)
		if err != nil {
			return err
		}
		maps.Copy(s.secrets, env)
	}
	for _, dir := range []string{"logs", "config", "state"} {
		if err := os.MkdirAll(filepath.Join(s.settings.data, dir), 0o700); err != nil {
			return err
		}
	}
	if err := s.startBroker(ctx); err != nil {
		return err
	}
	if err := s.startMail(); err != nil {
		return err
	}
	if err := s.forgetNames(); err != nil {
		return err
	}

	running := func() bool { return ctx.Err() == nil }
	starting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, a := range s.apps {
		if s.settings.keep && s.isHeldDown(a.AppID) {
			go func() {
				s.awaitRelease(a.AppID, running)
				s.late <- a
			}()
			continue
		}
		all.Go(func() {
			if err := s.startApp(starting, a); err != nil {
				cancel(err) // the first one is the reason, the others follow from it
			}
		})
	}
	all.Wait()
	return context.Cause(starting)
}

func (s *system) startBroker(ctx context.Context) (err error) {
	if s.settings.broker != "nats" {
		return nil
	}
	each, err := s.log("broker", "broker", runfile.File)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	address := newBrokerURL(s.brokerPort)
	p, err := s.startWatched(spec{
		name: "broker",
		path: self,
		args: []string{brokerCommand, filepath.Join(s.settings.data, "nats")},
		env:  append(os.Environ(), brokerURL+"="+address),
		each: each,
	})
	if err != nil {
		return err
	}
	s.broker = &broker{url: address, process: p}
	s.secrets[brokerURL] = address
	return awaitStreams(ctx, p, address)
}

func (s *system) startMail() (err error) {
	s.mail, err = mailsink.Start(mailsink.Config{
		SMTPAddress: loopback(s.mailPorts[0]),
		HTTPAddress: loopback(s.mailPorts[1]),
		Dir:         s.mailDir(),
	})
	return err
}

func (s *system) mailDir() string { return filepath.Join(s.settings.data, "mail") }

func (s *system) namesFile() string { return filepath.Join(s.settings.data, "names.db") }

// distinctServers are the broker and the store, by their folders; one, where one
// server is both.
func (s *system) distinctServers() []string {
	return slices.Compact([]string{s.settings.broker, s.settings.state})
}

// forgetNames removes where the sidecars of the last run were: what a killed one
// left behind would be taken for true until it expires.
func (s *system) forgetNames() error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(s.namesFile() + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// startApp starts the sidecar, the app once its sidecar can be called, and waits
// until each is ready for the other.
func (s *system) startApp(ctx context.Context, a *app) error {
	if err := s.startSidecar(ctx, a); err != nil {
		return err
	}
	// Outbound: what the app needs of its sidecar. The sidecar is ready as a whole
	// only when it has found the app.
	if err := waitReady(ctx, a.sidecar, a.sidecarHTTP()+"/v1.0/healthz/outbound"); err != nil {
		return err
	}
	if len(a.Command) > 0 {
		if err := s.startProcess(ctx, a); err != nil {
			return err
		}
		if err := waitReady(ctx, a.process, a.url()+"/healthz/ready"); err != nil {
			return err
		}
	}
	return waitReady(ctx, a.sidecar, a.sidecarHTTP()+"/v1.0/healthz")
}

func (s *system) startSidecar(ctx context.Context, a *app) (err error) {
	configured := a.App
	if configured.AppPort, err = s.settings.links.viaPort(ctx, a.sidecarName(), a.AppID, a.AppPort); err != nil {
		return err
	}
	configured.ConfigFilePath = filepath.Join(s.settings.data, "config", a.AppID+".yaml")
	if err := writeConfiguration(a.ConfigFilePath, configured.ConfigFilePath, s.namesFile()); err != nil {
		return err
	}
	each, err := s.log(a.AppID+" sidecar", a.AppID+"-daprd", a.DaprdLogDestination)
	if err != nil {
		return err
	}
	secrets, err := s.settings.links.viaSecrets(ctx, a.sidecarName(), s.secrets, s.distinctServers()...)
	if err != nil {
		return err
	}
	secrets["SQLITE_FILE"] = sqliteURI(filepath.Join(s.settings.data, "state", a.AppID+".db"))
	a.sidecar, err = s.startWatched(spec{
		name: a.AppID + " sidecar",
		path: s.settings.daprd,
		args: append(configured.SidecarArgs(),
			"--dapr-internal-grpc-listen-address", "127.0.0.1",
			"--metrics-listen-address", "127.0.0.1",
			"--enable-mtls=false",
			// dapr-block-shutdown-duration is left out: it keeps the API up for an app
			// that goes on working, and when a sidecar is stopped here its app is gone.
		),
		env:  append(os.Environ(), pairs(s.common, secrets)...),
		dir:  a.AppDirPath,
		each: each,
	})
	return err
}

func (s *system) startProcess(ctx context.Context, a *app) error {
	each, err := s.log(a.AppID, a.AppID, a.AppLogDestination)
	if err != nil {
		return err
	}
	configured := a.App
	if configured.DaprGRPCPort, err = s.settings.links.viaPort(ctx, a.AppID, a.sidecarName(), a.DaprGRPCPort); err != nil {
		return err
	}
	env := append(os.Environ(), configured.AppEnv()...)
	smtp := s.mail.SMTPAddr()
	if other, ok := s.lookup("SMTP_ADDRESS"); ok {
		smtp = other
	}
	if smtp, err = s.settings.links.via(ctx, a.AppID, "mail", smtp); err != nil {
		return err
	}
	env = append(env, pairs(s.common, map[string]string{"SMTP_ADDRESS": smtp})...)
	a.process, err = s.startWatched(spec{
		name: a.AppID, path: a.Command[0], args: a.Command[1:], env: env, dir: a.AppDirPath, each: each,
	})
	return err
}

// log opens the log of a process and returns what takes its lines to where they
// belong. Of a log that only goes to the file, complaints are shown all the same.
func (s *system) log(name, file string, destination runfile.LogDestination) (func(line string), error) {
	var f *os.File
	if destination.ToFile() {
		var err error
		path := filepath.Join(s.settings.data, "logs", file+".log")
		if f, err = os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.logs = append(s.logs, f)
		s.mu.Unlock()
	}
	return func(line string) {
		if f != nil {
			fmt.Fprintln(f, line)
		}
		if destination.ToConsole() || isComplaint(line) {
			s.console.line(name, line)
		}
	}, nil
}

// stop ends everything in the order in which it stops being needed: services
// while their sidecars are there to publish and save what is under way, then the
// sidecars, then what they talk to. What doesn't end in time is killed, at once
// when patient is done; nothing is left behind.
func (s *system) stop(patient context.Context) error {
	errs := []error{s.removeStatus()}
	var services, sidecars []*process
	for _, a := range s.apps {
		services = append(services, a.process)
		sidecars = append(sidecars, a.sidecar)
	}
	errs = append(errs, stopAll(patient, services, servicesGrace), stopAll(patient, sidecars, sidecarsGrace))
	if s.mail != nil {
		ctx, cancel := context.WithTimeout(patient, mailGrace)
		errs = append(errs, s.mail.Close(ctx))
		cancel()
	}
	if s.broker != nil {
		errs = append(errs, stopAll(patient, []*process{s.broker.process}, brokerGrace))
	}
	s.spawner.close()
	s.ports.close()
	for _, f := range s.logs {
		errs = append(errs, f.Close())
	}
	return errors.Join(append(errs, s.lock.release())...)
}

// stopAll stops processes side by side.
func stopAll(patient context.Context, processes []*process, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(patient, grace)
	defer cancel()
	errs := make([]error, len(processes))
	var all sync.WaitGroup
	for i, p := range processes {
		if p != nil {
			all.Go(func() { errs[i] = p.stop(ctx) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// sqliteURI is the connection string for a file whose name may hold anything.
func sqliteURI(path string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath()
}

func pairs(sets ...map[string]string) []string {
	var all []string
	for _, set := range sets {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			all = append(all, name+"="+set[name])
		}
	}
	return all
}
