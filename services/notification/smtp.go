package notification

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"sync"
	"time"

	gomail "github.com/wneessen/go-mail"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxConnections is less than what mail servers take from one client (Postfix:
	// half of its 100 processes; hosted ones: about 10).
	maxConnections = 8
	// idleTimeout is how long a connection is kept for the next e-mail. A server
	// keeps it for 5 minutes (RFC 5321, section 4.5.3.2.7), but may be short of them.
	idleTimeout = 30 * time.Second
	// stepTimeout bounds connecting, greeting with log-in, and sending, each;
	// sendTimeout all of it with the wait for a free connection. It is below the
	// time that the sidecar gives the handler of an event.
	stepTimeout = 5 * time.Second
	sendTimeout = 10 * time.Second
)

// refusal is a mail server's final no: the same e-mail will never be taken.
type refusal struct {
	code     int    // RFC 5321, from 500 to 599
	enhanced string // RFC 3463, or empty
}

func (r *refusal) Error() string {
	return fmt.Sprintf("refused with SMTP code %d %s", r.code, r.enhanced)
}

// mailer hands e-mails to a mail server and keeps a few connections for the
// next ones. Its methods may be called from several goroutines.
//
// Its errors hold no addresses: a mail server's answer often repeats that of
// the recipient, so only its codes are passed on.
type mailer struct {
	config smtpConfig
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	trust  *tls.Config   // nil: the system's certificates
	slots  chan struct{} // one for each connection that may be there

	mu     sync.Mutex
	idle   []*connection // the one used last comes last
	closed bool
}

// connection is used by one goroutine at a time.
type connection struct {
	client *gomail.Client
	raw    net.Conn
	reused bool
	expiry *time.Timer // while idle
}

func newMailer(c smtpConfig) *mailer {
	return &mailer{config: c, dial: (&net.Dialer{}).DialContext, slots: make(chan struct{}, maxConnections)}
}

// send hands msg to the server. Its error is a refusal, or may go away with time.
func (m *mailer) send(ctx context.Context, msg *gomail.Msg) (err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	ctx, span := otel.Tracer("orderflow/services/notification").Start(ctx, "smtp send", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("server.address", m.config.host), attribute.Int("server.port", m.config.port)))
	defer func() {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return fmt.Errorf("wait for one of %d connections: %w", maxConnections, ctx.Err())
	}
	for {
		c, err := m.take(ctx)
		if err != nil {
			return fmt.Errorf("connect to the mail server: %w", withoutAnswer(err))
		}
		err = c.send(ctx, msg)
		if err == nil {
			m.keep(c)
			return nil
		}
		_ = c.raw.Close()
		failure := (*gomail.SendError)(nil)
		if !errors.As(err, &failure) {
			return err
		}
		if failure.Reason == gomail.ErrConnCheck && c.reused {
			continue // the server has closed it meanwhile; nothing was said yet
		}
		if final(failure) {
			return &refusal{failure.ErrorCode(), failure.EnhancedStatusCode()}
		}
		return withoutAnswer(err)
	}
}

// final says whether the server refuses this e-mail in particular: its
// recipient, or what is in it. A refusal of the sender, or for want of a log-in
// (530), is about this service and everything it sends: somebody will mend it.
func final(err *gomail.SendError) bool {
	switch err.Reason {
	case gomail.ErrSMTPRcptTo, gomail.ErrSMTPData, gomail.ErrSMTPDataClose:
		return err.ErrorCode() >= 500 && err.ErrorCode() != 530
	}
	return false
}

// withoutAnswer is err without the words of a server's answer.
func withoutAnswer(err error) error {
	if e := (*gomail.SendError)(nil); errors.As(err, &e) {
		if e.ErrorCode() == 0 {
			return fmt.Errorf("%s: the connection failed", e.Reason)
		}
		return fmt.Errorf("%s: SMTP code %d %s", e.Reason, e.ErrorCode(), e.EnhancedStatusCode())
	}
	if e := (*textproto.Error)(nil); errors.As(err, &e) {
		return fmt.Errorf("SMTP code %d", e.Code)
	}
	return err
}

// take is an idle connection or a new one.
func (m *mailer) take(ctx context.Context) (*connection, error) {
	m.mu.Lock()
	for len(m.idle) > 0 {
		c := m.idle[len(m.idle)-1]
		m.idle = m.idle[:len(m.idle)-1]
		if c.expiry.Stop() {
			m.mu.Unlock()
			c.reused = true
			return c, nil
		}
	}
	m.mu.Unlock()
	return m.connect(ctx)
}

// keep puts c by for the next e-mail.
func (m *mailer) keep(c *connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		go c.quit()
		return
	}
	c.expiry = time.AfterFunc(idleTimeout, func() { m.expire(c) })
	m.idle = append(m.idle, c)
}

func (m *mailer) expire(c *connection) {
	m.mu.Lock()
	for i, each := range m.idle {
		if each == c {
			m.idle = append(m.idle[:i], m.idle[i+1:]...)
			break
		}
	}
	m.mu.Unlock()
	c.quit()
}

// close ends the idle connections; one that is in use ends after its e-mail.
func (m *mailer) close() {
	m.mu.Lock()
	idle := m.idle
	m.idle, m.closed = nil, true
	m.mu.Unlock()
	var done sync.WaitGroup
	for _, c := range idle {
		if c.expiry.Stop() {
			done.Go(c.quit)
		}
	}
	done.Wait()
}

// connect opens a connection, with TLS and log-in as configured.
func (m *mailer) connect(ctx context.Context) (*connection, error) {
	c := &connection{}
	stop := func() bool { return true }
	policy := gomail.NoTLS
	if m.config.tls == tlsStart {
		policy = gomail.TLSMandatory
	}
	config := &tls.Config{}
	if m.trust != nil {
		config = m.trust.Clone()
	}
	config.ServerName, config.MinVersion = m.config.host, tls.VersionTLS12
	options := []gomail.Option{
		gomail.WithPort(m.config.port),
		gomail.WithTimeout(stepTimeout),
		gomail.WithTLSPolicy(policy),
		gomail.WithTLSConfig(config),
		gomail.WithoutRset(), // the next MAIL begins a new transaction by itself
		// The library forgets a connection whose greeting failed, without closing it.
		gomail.WithDialContextFunc(func(dialing context.Context, network, address string) (net.Conn, error) {
			conn, err := m.dial(dialing, network, address)
			if err != nil {
				return nil, err
			}
			c.raw = conn
			stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
			if m.config.tls == tlsImplicit {
				return tls.Client(conn, config), nil
			}
			return conn, nil
		}),
	}
	if m.config.username != "" {
		options = append(options, gomail.WithUsername(m.config.username), gomail.WithPassword(m.config.password),
			// PLAIN and LOGIN refuse a connection without TLS, unless it is to this host.
			gomail.WithOpportunisticSMTPAuth(gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin))
	}
	var err error
	if c.client, err = gomail.NewClient(m.config.host, options...); err != nil {
		return nil, err
	}
	defer func() { stop() }()
	if err := c.client.DialWithContext(ctx); err != nil {
		if c.raw != nil {
			_ = c.raw.Close()
		}
		return nil, err
	}
	return c, nil
}

// send sends one e-mail. The library asks first whether the server is still
// there (NOOP), for which the deadline of the last e-mail may have passed.
func (c *connection) send(ctx context.Context, msg *gomail.Msg) error {
	if err := c.raw.SetDeadline(time.Now().Add(stepTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.raw.Close() })
	defer stop()
	return c.client.Send(msg)
}

// quit ends the connection as SMTP wants it, if the server answers soon.
func (c *connection) quit() {
	_ = c.raw.SetDeadline(time.Now().Add(time.Second))
	_ = c.client.Close()
	_ = c.raw.Close()
}
