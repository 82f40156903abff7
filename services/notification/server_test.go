package notification

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// mailServer is a real SMTP server on a loopback port, which keeps what it takes.
type mailServer struct {
	tb       testing.TB
	address  string // host:port, the same after stop and start
	tls      *tls.Config
	implicit bool // TLS from the first byte

	server   *smtp.Server
	listener net.Listener

	mu       sync.Mutex
	received []receivedMail
	sessions int
	refuse   func(stage string) error // asked at MAIL, RCPT, DATA and after DATA
	users    map[string]string        // log-in is required if there are any
}

type receivedMail struct {
	from string
	to   []string
	data string
}

func startMailServer(tb testing.TB) *mailServer {
	tb.Helper()
	m := &mailServer{tb: tb, address: "127.0.0.1:0"}
	m.start()
	tb.Cleanup(m.stop)
	return m
}

func (m *mailServer) start() {
	m.tb.Helper()
	listener, err := net.Listen("tcp", m.address)
	if err != nil {
		m.tb.Fatal(err)
	}
	m.address = listener.Addr().String()
	m.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.sessions++
		return &mailSession{server: m}, nil
	}))
	m.server.Domain = "mail.test"
	m.server.TLSConfig = m.tls
	m.server.ReadTimeout = 30 * time.Second
	m.server.ErrorLog = log.New(io.Discard, "", 0)
	if m.implicit {
		listener = tls.NewListener(listener, m.tls)
	}
	m.listener = listener
	server := m.server
	go func() { _ = server.Serve(listener) }()
}

func (m *mailServer) stop() {
	_ = m.listener.Close() // the server may not have got to know it yet
	_ = m.server.Close()
}

// refuseAt has the server answer err at a stage, or nothing any more.
func (m *mailServer) refuseAt(stage string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = func(at string) error {
		if at == stage {
			return err
		}
		return nil
	}
}

func (m *mailServer) at(stage string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse == nil {
		return nil
	}
	return m.refuse(stage)
}

func (m *mailServer) mails() []receivedMail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.received)
}

func (m *mailServer) connections() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions
}

type mailSession struct {
	server   *mailServer
	mail     receivedMail
	loggedIn bool
}

func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if want, ok := s.server.users[user]; !ok || password != want {
			return smtp.ErrAuthFailed
		}
		s.loggedIn = true
		return nil
	}), nil
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	if len(s.server.users) > 0 && !s.loggedIn {
		return smtp.ErrAuthRequired
	}
	s.mail.from = from
	return s.server.at("MAIL")
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.to = append(s.mail.to, to)
	return s.server.at("RCPT")
}

func (s *mailSession) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.server.at("DATA"); err != nil {
		return err
	}
	s.mail.data = string(body)
	s.server.mu.Lock()
	s.server.received = append(s.server.received, s.mail)
	s.server.mu.Unlock()
	return s.server.at("after DATA")
}

func (s *mailSession) Reset() { s.mail = receivedMail{} }

func (s *mailSession) Logout() error { return nil }
