package notification

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"slices"
	"strconv"
	"strings"

	"orderflow/events"
	"orderflow/internal/process"
)

// Config is what this service needs beyond the common settings.
type Config struct {
	// Dial opens connections to the mail server; a net.Dialer's, unless a test
	// has another one.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	smtp        smtpConfig
	from        mail.Address // of every e-mail
	stockAlerts string       // address that is told of low stock
}

type smtpConfig struct {
	host               string
	port               int
	tls                tlsMode
	username, password string
}

// tlsMode is how the connection to the mail server is encrypted.
type tlsMode string

const (
	tlsNone     tlsMode = "none"     // not at all
	tlsStart    tlsMode = "starttls" // after a greeting in the clear, or nothing is sent
	tlsImplicit tlsMode = "tls"      // from the first byte
)

var tlsModes = []tlsMode{tlsNone, tlsStart, tlsImplicit}

// ReadConfig reads the configuration from the environment.
func ReadConfig(env *process.Env) Config {
	c := Config{Dial: (&net.Dialer{}).DialContext}
	address := env.HostPort("SMTP_ADDRESS", "127.0.0.1:1025", "mail server")
	mode := env.String("SMTP_TLS", "", "none (to a loopback address only), starttls or tls; where it is empty, none to a loopback address and starttls to any other")
	c.smtp.username = env.String("SMTP_USERNAME", "", "user at the mail server; without one there is no log-in")
	c.smtp.password = env.String("SMTP_PASSWORD", "", "that user's password")
	from := env.String("MAIL_FROM", "", "sender of every e-mail, name@host or Name <name@host>")
	c.stockAlerts = env.String("STOCK_ALERT_EMAIL", "", "who is told of low stock, name@host")

	var err error
	c.smtp.host, c.smtp.port, err = splitAddress(address)
	env.Check("SMTP_ADDRESS", err)
	c.smtp.tls, err = chooseTLS(mode, c.smtp.host)
	env.Check("SMTP_TLS", err)
	if (c.smtp.username == "") != (c.smtp.password == "") {
		env.Check("SMTP_USERNAME", errors.New("goes with SMTP_PASSWORD: set both or neither"))
	}
	sender, err := mail.ParseAddress(from)
	if err != nil {
		env.Check("MAIL_FROM", errors.New("must be name@host or Name <name@host>"))
	} else {
		c.from = *sender
		env.Check("MAIL_FROM", events.CheckEmail(sender.Address))
	}
	if c.stockAlerts == "" {
		env.Check("STOCK_ALERT_EMAIL", errors.New("must be name@host"))
	} else {
		env.Check("STOCK_ALERT_EMAIL", events.CheckEmail(c.stockAlerts))
	}
	return c
}

// splitAddress leaves a host:port that can't be split to the one who read it.
func splitAddress(address string) (host string, port int, err error) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, nil
	}
	port, err = strconv.Atoi(digits)
	if err != nil || port < 1 || port > 65535 || host == "" {
		return "", 0, errors.New("must be host:port, with a port from 1 to 65535")
	}
	return host, port, nil
}

// chooseTLS refuses to send what e-mails hold over a network in the clear.
func chooseTLS(mode, host string) (tlsMode, error) {
	ip := net.ParseIP(host)
	local := strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
	switch {
	case mode == "" && local:
		return tlsNone, nil
	case mode == "":
		return tlsStart, nil
	case !slices.Contains(tlsModes, tlsMode(mode)):
		return "", fmt.Errorf("is %q: it must be one of %v", mode, tlsModes)
	case tlsMode(mode) == tlsNone && !local:
		return "", fmt.Errorf("can't be none for %s: e-mails would cross the network in the clear", host)
	}
	return tlsMode(mode), nil
}
