package system

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Mail is an e-mail that was delivered to the mail sink.
type Mail struct {
	File      string // its name in the sink
	To        string
	From      string
	Subject   string
	MessageID string // without the angle brackets
	Text      string
	HTML      string
}

// mailbox reads the files of the mail sink, each once.
type mailbox struct {
	dir string

	mu   sync.Mutex
	seen map[string]bool
	all  []Mail
}

// Mails are the e-mails delivered to an address so far.
func (s *System) Mails(tb testing.TB, to string) []Mail {
	tb.Helper()
	var found []Mail
	for _, m := range s.AllMails(tb) {
		if m.To == to {
			found = append(found, m)
		}
	}
	return found
}

// AllMails are all e-mails delivered so far.
func (s *System) AllMails(tb testing.TB) []Mail {
	tb.Helper()
	all, err := s.Inbox()
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// Inbox is AllMails for any goroutine.
func (s *System) Inbox() ([]Mail, error) { return s.mails.read() }

func (b *mailbox) read() ([]Mail, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entries, err := os.ReadDir(b.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if b.seen == nil {
		b.seen = map[string]bool{}
	}
	for _, e := range entries {
		name := e.Name()
		if b.seen[name] || filepath.Ext(name) != ".eml" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(b.dir, name))
		if err != nil {
			return nil, err
		}
		m, err := parseMail(content)
		if err != nil {
			return nil, fmt.Errorf("e-mail %s: %w", name, err)
		}
		m.File = name
		b.seen[name] = true
		b.all = append(b.all, m)
	}
	return b.all[:len(b.all):len(b.all)], nil
}

// parseMail reads an RFC 5322 message with text and HTML as alternatives (RFC
// 2046, section 5.1.4).
func parseMail(content []byte) (Mail, error) {
	msg, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		return Mail{}, err
	}
	m := Mail{MessageID: strings.Trim(msg.Header.Get("Message-ID"), "<>")}
	if m.Subject, err = new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject")); err != nil {
		return Mail{}, fmt.Errorf("subject: %w", err)
	}
	for name, field := range map[string]*string{"To": &m.To, "From": &m.From} {
		list, err := msg.Header.AddressList(name)
		if err != nil || len(list) != 1 {
			return Mail{}, fmt.Errorf("header %s is not one address (%w)", name, err)
		}
		*field = list[0].Address
	}
	kind, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		return Mail{}, fmt.Errorf("content type %q (%v), want multipart/alternative", kind, err)
	}
	parts := multipart.NewReader(msg.Body, params["boundary"])
	for {
		part, err := parts.NextPart() // decodes quoted-printable
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return Mail{}, err
		}
		if encoding := part.Header.Get("Content-Transfer-Encoding"); encoding == "base64" {
			return Mail{}, errors.New("a part is in base64")
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return Mail{}, err
		}
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			return Mail{}, err
		}
		switch kind {
		case "text/plain":
			m.Text = string(text)
		case "text/html":
			m.HTML = string(text)
		}
	}
}
