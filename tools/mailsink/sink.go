// Package mailsink is a mail server for development: it takes every message,
// delivers none, keeps each as a file and shows them on a page.
//
//	SMTP ─▶ Dir/{time}-{message id}.eml ─▶ GET /                    the list, for people
//	                                       GET /view/{id}           one message, for people
//	                                       GET /messages            the list, as JSON
//	                                       GET /messages/{id}       the file
//	                                       GET /messages/{id}/html  its HTML part
//
// Messages come from anyone who reaches the port, and are shown in a browser, so
// it listens on loopback addresses only, limits what it takes, and lets nothing
// in a message run.
package mailsink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Limits of what is taken and kept.
const (
	MaxMessageBytes = 1 << 20
	MaxRecipients   = 10
	MaxMessages     = 10_000 // the oldest goes when there are more
	maxConnections  = 100
)

// Config says where the sink listens and keeps messages. A port of 0 stands for
// one that is free.
type Config struct {
	SMTPAddress string // host:port, of a loopback host
	HTTPAddress string // host:port, of a loopback host
	Dir         string // made if it is not there; what it holds is shown again
}

// Sink is a running sink.
type Sink struct {
	smtp         *smtp.Server
	http         *http.Server
	smtpListener net.Listener
	httpListener net.Listener
	messages     *messages
	serving      sync.WaitGroup
}

// Start listens and serves until Close.
func Start(cfg Config) (_ *Sink, err error) {
	s := &Sink{}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if s.smtpListener, err = listen(cfg.SMTPAddress); err != nil {
		return nil, fmt.Errorf("mail sink: SMTP: %w", err)
	}
	if s.httpListener, err = listen(cfg.HTTPAddress); err != nil {
		return nil, fmt.Errorf("mail sink: page: %w", err)
	}
	if s.messages, err = openMessages(cfg.Dir, MaxMessages); err != nil {
		return nil, fmt.Errorf("mail sink: %w", err)
	}

	s.smtp = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &session{messages: s.messages}, nil
	}))
	s.smtp.Domain = "localhost"
	s.smtp.MaxMessageBytes = MaxMessageBytes
	s.smtp.MaxRecipients = MaxRecipients
	s.smtp.ReadTimeout = time.Minute
	s.smtp.WriteTimeout = 10 * time.Second
	s.smtp.EnableSMTPUTF8 = true
	s.smtp.ErrorLog = log.New(io.Discard, "", 0) // clients that went away; whoever sends is told of the rest

	s.http = &http.Server{
		Handler:           newPage(s.messages),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	s.serving.Go(func() { _ = s.smtp.Serve(limit(s.smtpListener, maxConnections)) })
	s.serving.Go(func() { _ = s.http.Serve(limit(s.httpListener, maxConnections)) })
	return s, nil
}

// SMTPAddr is where mail is taken, host:port.
func (s *Sink) SMTPAddr() string { return s.smtpListener.Addr().String() }

// HTTPURL is where the page is, without a slash at the end.
func (s *Sink) HTTPURL() string { return "http://" + s.httpListener.Addr().String() }

// Close stops the sink. A message that it has said yes to is in its file; one
// that is being sent is broken off, and its sender knows.
func (s *Sink) Close(ctx context.Context) error {
	s.release() // the servers close only the listeners that they have got to
	err := errors.Join(ignoreClosed(s.smtp.Close()), ignoreClosed(s.http.Shutdown(ctx)))
	if err != nil {
		_ = s.http.Close()
	}
	s.serving.Wait()
	return errors.Join(err, s.messages.close())
}

// ignoreClosed is err unless it says that a listener was closed before.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// release gives the ports back.
func (s *Sink) release() {
	for _, l := range []net.Listener{s.smtpListener, s.httpListener} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// listen refuses addresses that other machines could reach.
func listen(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%s is not a loopback address: anyone in reach could send mail and read it", address)
	}
	return net.Listen("tcp", address)
}

// limit has l accept a connection only while fewer than n are open.
func limit(l net.Listener, n int) net.Listener { return limited{l, make(chan struct{}, n)} }

type limited struct {
	net.Listener
	open chan struct{}
}

func (l limited) Accept() (net.Conn, error) {
	l.open <- struct{}{}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.open
		return nil, err
	}
	return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.open })}, nil
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// session is one SMTP connection.
type session struct {
	messages *messages
	from     string
	to       []string
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.messages.add(s.from, s.to, body); err != nil {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "The message could not be stored"}
	}
	return nil
}

func (s *session) Reset() { s.from, s.to = "", nil }

func (s *session) Logout() error { return nil }
