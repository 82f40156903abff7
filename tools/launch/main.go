// Command launch runs what a run file (dapr.yaml) describes, on a machine that
// has nothing but this repository: the message broker, a mail sink, and each app
// with a Dapr sidecar beside it. It keeps the
// rules of `dapr run -f` (package runfile) and adds to them:
//
//   - it starts the broker, waits until everything is ready, says where it is, and
//     stops it in an order in which nothing under way is lost;
//   - every listener is on loopback, and APIs and event routes want tokens that are
//     new with each run;
//   - sidecars find each other through a file and not by multicast;
//   - the broker, the store and the secrets store of the run file are replaced by
//     the ones asked for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// settings are the command line.
type settings struct {
	file      string
	broker    string
	state     string
	data      string
	status    string
	daprd     string
	freePorts bool
	seed      bool
	keep      bool
	links     links

	renewAfter time.Duration
}

const usage = `Usage: launch [flags]

Runs the apps of a run file with their sidecars, a broker and a mail sink, until
Ctrl-C. A second Ctrl-C doesn't wait for anything.

`

const environment = `
Environment:
  DAPR_API_TOKEN, APP_API_TOKEN   tokens of the sidecars' APIs and of the services'
                                  event routes (default: random)
  SMTP_ADDRESS                    a mail server (host:port) in place of the sink
  REDIS_HOST, REDIS_PASSWORD      for --broker redis, --state redis
  KAFKA_BROKERS                   for --broker kafka; with a password also KAFKA_AUTH_TYPE,
                                  KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD
  RABBITMQ_URL, MQTT_URL          for --broker rabbitmq, --broker mqtt
  POSTGRES_URL, MONGODB_URL       for --state postgres, --state mongodb
  AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
                                  for --broker snssqs, --state dynamodb; AWS_ENDPOINT_URL_SNS and
                                  AWS_ENDPOINT_URL_DYNAMODB for imitations of them
  OTEL_EXPORTER_OTLP_...          handed to services and sidecars
  NO_COLOR                        names without colours
`

func parseFlags(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("launch", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.file, "f", "dapr.yaml", "run `file`")
	flags.StringVar(&s.broker, "broker", "nats", "broker: a `folder` of components/broker; nats is started here, others have to be running")
	flags.StringVar(&s.state, "state", "sqlite", "state store: a `folder` of components/state")
	flags.StringVar(&s.data, "data", ".run", "`directory` for everything that is stored; delete it to start afresh")
	flags.StringVar(&s.status, "status", "", "`file` that says, while the system is ready, where everything is (default: status.json in the data directory)")
	flags.StringVar(&s.daprd, "daprd", "", "sidecar `program` (default: daprd beside this one)")
	flags.BoolVar(&s.freePorts, "free-ports", false, "use free ports throughout, also in place of those fixed in the run file")
	flags.BoolVar(&s.seed, "seed", false, "create two products to order if there is none")
	flags.BoolVar(&s.keep, "keep", false, "start again what dies, as an orchestrator does, instead of ending; a file of its name\n(inventory, inventory-sidecar, broker) in the data directory's down/ holds that back,\nan app's also its first start")
	flags.DurationVar(&s.renewAfter, "renew-after", renewAfter, "with -keep: start the sidecars anew when the broker was away for longer; theirs may have given it up by then")
	flags.StringVar((*string)(&s.links), "links", "", "`URL` that says where each connection is to go, for who wants to stand in between (links.go)")
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
		fmt.Fprint(stderr, environment)
	}
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	// Sidecars and services have working directories of their own.
	var err error
	if s.data, err = filepath.Abs(s.data); err != nil {
		return s, err
	}
	if s.status == "" {
		s.status = filepath.Join(s.data, "status.json")
	}
	if s.daprd == "" {
		self, err := os.Executable()
		if err != nil {
			return s, err
		}
		s.daprd = filepath.Join(filepath.Dir(self), "daprd")
	}
	s.daprd, err = filepath.Abs(s.daprd)
	return s, err
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == brokerCommand {
		syscall.Umask(0o077)
		if err := brokerMain(os.Args[2], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	s, err := parseFlags(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, "launch:", err)
		os.Exit(2)
	}
	// Orders and e-mails are stored by processes that know nothing of modes.
	syscall.Umask(0o077)
	// The first signal asks for an orderly end, the second for an end.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	running, stop := context.WithCancel(context.Background())
	patient, kill := context.WithCancel(context.Background())
	go func() {
		<-signals
		stop()
		// One signal may come twice: timeout(1), for one, sends it to the process and
		// to its group.
		for first := time.Now(); time.Since(first) < 500*time.Millisecond; {
			<-signals
		}
		kill()
	}()
	if err := run(running, patient, s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "launch:", err)
		os.Exit(1)
	}
}

// run runs the system until running is done or something in it dies, which is
// the error; with keep, what dies is started again. What is being drained then is killed when patient is done.
func run(running, patient context.Context, s settings, out io.Writer) (err error) {
	begun := time.Now()
	sys, err := newSystem(s, newConsole(out, os.Getenv), os.LookupEnv)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.stop(patient)) }()

	if err := sys.start(running); err != nil {
		if running.Err() != nil {
			return nil // interrupted while starting: that is how it was meant to end
		}
		return err
	}
	if s.seed {
		if err := sys.seed(running); err != nil && running.Err() == nil {
			return err
		}
	}
	if err := sys.writeStatus(); err != nil {
		return err
	}
	sys.describe(time.Since(begun))

	for {
		select {
		case <-running.Done():
			sys.console.say("\nstopping: services, sidecars, mail, broker (again to kill)")
			return nil
		case died := <-sys.deaths:
			if !s.keep {
				return died.reason()
			}
			err = sys.revive(running, died)
		case a := <-sys.late:
			err = sys.startLate(running, a)
		}
		if err != nil && running.Err() == nil {
			return err
		}
	}
}
