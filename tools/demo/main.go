// Command demo places some orders in the running system and shows what becomes
// of each: one line for every event, with the time since the order was placed,
// up to the e-mail. It fails if something does not come out as it should.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `Usage: demo [flags]

Places some orders in the running system (make run) and shows what becomes of
each. Exit code 1: something did not come out as it should.

`

// patience is how long the demo waits for one order, its e-mail included. A
// delivery that was lost comes again after 30 s.
const patience = 45 * time.Second

func main() {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	file := flags.String("status", ".run/status.json", "status `file` of the launcher, which says where everything is")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "demo: unexpected argument %q\n", flags.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *file, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, statusFile string, out io.Writer) error {
	api, err := open(statusFile)
	if err != nil {
		return err
	}
	if err := seed(ctx, api, out); err != nil {
		return err
	}
	failed := 0
	for i, s := range stories {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, s.title)
		if err := s.tell(ctx, api, out); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			fmt.Fprintf(out, "   NOT as it should be: %v\n", err)
			failed++
		}
	}
	fmt.Fprintf(out, "\nAll e-mails: %s\n", api.mail)
	if failed > 0 {
		return fmt.Errorf("%d of %d orders did not come out as they should", failed, len(stories))
	}
	fmt.Fprintf(out, "All %d orders came out as they should.\n", len(stories))
	return nil
}

// open reads the launcher's status file.
func open(file string) (*api, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no system is running: %s is not there. Start one with `make run` in another terminal and wait until it is ready", file)
	}
	if err != nil {
		return nil, err
	}
	var status struct {
		Apps []struct{ ID, URL string }
		Mail struct{ URL string }
	}
	if err := json.Unmarshal(content, &status); err != nil {
		return nil, fmt.Errorf("status file %s: %w", file, err)
	}
	a := &api{mail: status.Mail.URL}
	for _, app := range status.Apps {
		switch app.ID {
		case "order":
			a.order = app.URL
		case "inventory":
			a.inventory = app.URL
		case "notification":
			a.notification = app.URL
		}
	}
	if a.order == "" || a.inventory == "" || a.notification == "" || a.mail == "" {
		return nil, fmt.Errorf("status file %s does not say where order, inventory, notification and the mail sink are", file)
	}
	return a, nil
}
