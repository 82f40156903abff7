package notification

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"

	gomail "github.com/wneessen/go-mail"

	"orderflow/internal/process"
)

func someMail(tb testing.TB) *gomail.Msg {
	tb.Helper()
	m, err := envelope(mail.Address{Address: "orders@shop.example"}, customer, "notification-o-1-COMPLETED",
		record{MessageID: "id@shop.example", CreatedAt: placed}, content{"Subject", "text\n", "<p>text</p>\n"})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// certificate is one for 127.0.0.1, and the pool that trusts it.
func certificate(t *testing.T) (*tls.Config, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool}
}

func TestEncryptionAndLogIn(t *testing.T) {
	server, trust := certificate(t)
	tests := []struct {
		name               string
		mode               tlsMode
		offered, implicit  bool
		trusted            bool
		username, password string
		err                string // part of it; empty: the e-mail arrives
	}{
		{"plain, without log-in", tlsNone, false, false, true, "", "", ""},
		{"STARTTLS", tlsStart, true, false, true, "", "", ""},
		{"STARTTLS with log-in", tlsStart, true, false, true, "shop", "secret", ""},
		{"TLS", tlsImplicit, true, true, true, "", "", ""},
		{"TLS with log-in", tlsImplicit, true, true, true, "shop", "secret", ""},
		{"STARTTLS is not offered", tlsStart, false, false, true, "", "", "STARTTLS"},
		{"STARTTLS with a certificate of nobody", tlsStart, true, false, false, "", "", "certificate"},
		{"TLS with a certificate of nobody", tlsImplicit, true, true, false, "", "", "certificate"},
		{"wrong password", tlsStart, true, false, true, "shop", "guess", "SMTP code 535"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &mailServer{tb: t, address: "127.0.0.1:0", implicit: tt.implicit}
			if tt.offered {
				s.tls = server
			}
			if tt.username != "" {
				s.users = map[string]string{"shop": "secret"}
			}
			s.start()
			t.Cleanup(s.stop)
			host, port, err := splitAddress(s.address)
			if err != nil {
				t.Fatal(err)
			}
			m := newMailer(smtpConfig{host: host, port: port, tls: tt.mode, username: tt.username, password: tt.password})
			t.Cleanup(m.close)
			if tt.trusted {
				m.trust = trust
			}
			err = m.send(t.Context(), someMail(t))
			if tt.err == "" {
				if err != nil || len(s.mails()) != 1 {
					t.Errorf("%v, %d e-mails", err, len(s.mails()))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || len(s.mails()) != 0 {
				t.Errorf("%v, want %s; %d e-mails", err, tt.err, len(s.mails()))
			}
		})
	}
}

func TestConnectionIsUsedAgain(t *testing.T) {
	s := startMailServer(t)
	host, port, err := splitAddress(s.address)
	if err != nil {
		t.Fatal(err)
	}
	m := newMailer(smtpConfig{host: host, port: port, tls: tlsNone})
	for range 5 {
		if err := m.send(t.Context(), someMail(t)); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.connections(); got != 1 {
		t.Errorf("%d connections for 5 e-mails", got)
	}
	m.close()
	if len(m.idle) != 0 {
		t.Errorf("%d connections after close", len(m.idle))
	}
}

// A server that takes the connection and says nothing holds nobody for longer
// than the caller allows.
func TestSilentServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	host, port, err := splitAddress(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	m := newMailer(smtpConfig{host: host, port: port, tls: tlsNone})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := m.send(ctx, someMail(t)); err == nil || time.Since(begin) > 3*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
}

func TestConfig(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string // on top of a usable one
		tls  tlsMode
		err  string // names the variable; empty: the configuration is usable
	}{
		{"loopback", nil, tlsNone, ""},
		{"localhost", map[string]string{"SMTP_ADDRESS": "localhost:25"}, tlsNone, ""},
		{"elsewhere", map[string]string{"SMTP_ADDRESS": "mail.example.com:587"}, tlsStart, ""},
		{"elsewhere with TLS", map[string]string{"SMTP_ADDRESS": "mail.example.com:465", "SMTP_TLS": "tls"}, tlsImplicit, ""},
		{"elsewhere in the clear", map[string]string{"SMTP_ADDRESS": "mail.example.com:25", "SMTP_TLS": "none"}, "", "SMTP_TLS"},
		{"no such mode", map[string]string{"SMTP_TLS": "ssl"}, "", "SMTP_TLS"},
		{"no port", map[string]string{"SMTP_ADDRESS": "mail.example.com"}, "", "SMTP_ADDRESS"},
		{"odd port", map[string]string{"SMTP_ADDRESS": "127.0.0.1:smtp"}, "", "SMTP_ADDRESS"},
		{"no host", map[string]string{"SMTP_ADDRESS": ":25"}, "", "SMTP_ADDRESS"},
		{"user without password", map[string]string{"SMTP_USERNAME": "shop"}, "", "SMTP_PASSWORD"},
		{"no sender", map[string]string{"MAIL_FROM": ""}, "", "MAIL_FROM"},
		{"odd sender", map[string]string{"MAIL_FROM": "shop"}, "", "MAIL_FROM"},
		{"nobody to tell", map[string]string{"STOCK_ALERT_EMAIL": ""}, "", "STOCK_ALERT_EMAIL"},
		{"odd one to tell", map[string]string{"STOCK_ALERT_EMAIL": "Stock <stock@example.com>"}, "", "STOCK_ALERT_EMAIL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{"MAIL_FROM": "Shop <shop@example.com>", "STOCK_ALERT_EMAIL": "stock@example.com"}
			for name, value := range tt.env {
				env[name] = value
			}
			e := process.NewEnv(func(name string) string { return env[name] })
			c := ReadConfig(e)
			err := e.Err()
			if tt.err == "" && (err != nil || c.smtp.tls != tt.tls) {
				t.Errorf("%v, tls %s, want %s", err, c.smtp.tls, tt.tls)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%v, want one about %s", err, tt.err)
			}
		})
	}
}

func BenchmarkSend(b *testing.B) {
	s := startMailServer(b)
	host, port, err := splitAddress(s.address)
	if err != nil {
		b.Fatal(err)
	}
	m := newMailer(smtpConfig{host: host, port: port, tls: tlsNone})
	b.Cleanup(m.close)
	msg := someMail(b)
	for b.Loop() {
		if err := m.send(b.Context(), msg); err != nil {
			b.Fatal(err)
		}
	}
}
