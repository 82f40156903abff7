// Mailsink is a mail server for development: it takes every message, delivers
// none, and shows them on a page.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"orderflow/tools/mailsink"
)

func main() {
	smtpAddress := flag.String("smtp", "127.0.0.1:1025", "`host:port` to take mail on, of a loopback host")
	httpAddress := flag.String("http", "127.0.0.1:8025", "`host:port` of the page, of a loopback host")
	dir := flag.String("dir", ".run/mail", "`directory` to keep the messages in, one .eml file each")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "mailsink takes every e-mail and delivers none; a page shows them.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "mailsink takes no argument %q (see mailsink --help)\n", flag.Arg(0))
		os.Exit(2)
	}
	if err := run(mailsink.Config{SMTPAddress: *smtpAddress, HTTPAddress: *httpAddress, Dir: *dir}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs a sink until a signal ends it.
func run(cfg mailsink.Config) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	sink, err := mailsink.Start(cfg)
	if err != nil {
		return err
	}
	fmt.Printf("mail: SMTP %s, page %s, messages in %s\n", sink.SMTPAddr(), sink.HTTPURL(), cfg.Dir)
	<-ctx.Done()
	stop() // a second signal ends the process at once
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return sink.Close(closing)
}
