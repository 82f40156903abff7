package mailsink

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/mail"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Message is what the list says about a message.
type Message struct {
	ID        string    `json:"id"`        // the file's name without .eml
	MessageID string    `json:"messageId"` // without the angle brackets
	To        []string  `json:"to"`        // recipients of the envelope
	Subject   string    `json:"subject"`
	Time      time.Time `json:"time"` // when it came in
	Size      int       `json:"size"` // bytes of the file
}

const (
	suffix      = ".eml"
	draftPrefix = ".draft-"
	// idTime begins an id. Ids sort by it, and no two messages have the same.
	idTime = "20060102T150405.000000000Z"
	// maxHeaderBytes is how much of a file is read to list it.
	maxHeaderBytes = 64 << 10
)

// messages are the files of one directory and a list of them in memory.
type messages struct {
	root *os.Root
	most int

	mu   sync.Mutex
	list []Message // oldest first
	last time.Time // of the newest id
}

// openMessages lists what dir holds already.
func openMessages(dir string, most int) (*messages, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	m := &messages{root: root, most: most}
	if err := m.load(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return m, nil
}

func (m *messages) load() error {
	entries, err := fs.ReadDir(m.root.FS(), ".") // sorted by name
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), draftPrefix) { // of a sink that was killed
			if err := m.root.Remove(e.Name()); err != nil {
				return err
			}
			continue
		}
		id, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || len(id) < len(idTime) || !e.Type().IsRegular() {
			continue
		}
		at, err := time.Parse(idTime, id[:len(idTime)])
		if err != nil {
			continue // somebody else's file
		}
		message, err := m.describe(id, at)
		if err != nil {
			return err
		}
		m.list = append(m.list, message)
		m.last = at
	}
	return m.trim()
}

// describe reads the head of a file.
func (m *messages) describe(id string, at time.Time) (Message, error) {
	f, err := m.root.Open(id + suffix)
	if err != nil {
		return Message{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Message{}, err
	}
	head, err := io.ReadAll(io.LimitReader(f, maxHeaderBytes))
	if err != nil {
		return Message{}, err
	}
	return newMessage(id, at, int(info.Size()), head), nil
}

// newMessage takes from content what it can: a message that is none is listed too.
func newMessage(id string, at time.Time, size int, content []byte) Message {
	message := Message{ID: id, Time: at, Size: size, To: []string{}}
	parsed, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		return message
	}
	message.To = append(message.To, parsed.Header["Delivered-To"]...)
	message.MessageID = strings.Trim(parsed.Header.Get("Message-Id"), "<> ")
	message.Subject = decodeHeader(parsed.Header.Get("Subject"))
	return message
}

func decodeHeader(s string) string {
	decoded, err := new(mime.WordDecoder).DecodeHeader(s)
	if err != nil {
		return s
	}
	return decoded
}

// add writes a message to a file, as a whole or not at all, and lists it. The
// envelope stands in front, in the fields that a mail server adds on delivery.
func (m *messages) add(from string, to []string, body []byte) error {
	var content bytes.Buffer
	fmt.Fprintf(&content, "Return-Path: <%s>\r\n", oneLine(from))
	for _, recipient := range to {
		fmt.Fprintf(&content, "Delivered-To: %s\r\n", oneLine(recipient))
	}
	content.Write(body)
	at := m.nextTime()
	message := newMessage("", at, content.Len(), content.Bytes())
	message.ID = at.Format(idTime) + "-" + fileName(message.MessageID)
	message.To = append([]string{}, to...) // not what the message itself says in such fields
	draft := draftPrefix + message.ID
	if err := m.root.WriteFile(draft, content.Bytes(), 0o600); err != nil {
		return errors.Join(err, m.discard(draft))
	}
	if err := m.root.Rename(draft, message.ID+suffix); err != nil {
		return errors.Join(err, m.discard(draft))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, _ := slices.BinarySearchFunc(m.list, message.ID, func(each Message, id string) int { return cmp.Compare(each.ID, id) })
	m.list = slices.Insert(m.list, i, message)
	return m.trim()
}

func (m *messages) discard(draft string) error {
	if err := m.root.Remove(draft); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// nextTime is now, or just after the last one.
func (m *messages) nextTime() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().UTC()
	if !now.After(m.last) {
		now = m.last.Add(time.Nanosecond)
	}
	m.last = now
	return now
}

// trim removes the oldest messages beyond the most that are kept. A file that
// is gone already was removed by somebody else.
func (m *messages) trim() error {
	for len(m.list) > m.most {
		if err := m.root.Remove(m.list[0].ID + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		m.list = slices.Delete(m.list, 0, 1)
	}
	return nil
}

// find lists at most limit messages for which match holds, newest first.
func (m *messages) find(limit int, match func(Message) bool) []Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := []Message{}
	for _, message := range slices.Backward(m.list) {
		if len(found) == limit {
			break
		}
		if match(message) {
			found = append(found, message)
		}
	}
	return found
}

// read is the message of an id with its file's content. Its error is
// fs.ErrNotExist if there is none; what is not in the list is not looked for.
func (m *messages) read(id string) (Message, []byte, error) {
	m.mu.Lock()
	i, ok := slices.BinarySearchFunc(m.list, id, func(each Message, id string) int { return cmp.Compare(each.ID, id) })
	var message Message
	if ok {
		message = m.list[i]
	}
	m.mu.Unlock()
	if !ok {
		return Message{}, nil, fs.ErrNotExist
	}
	content, err := m.root.ReadFile(id + suffix)
	return message, content, err
}

func (m *messages) close() error { return m.root.Close() }

// oneLine keeps an address from adding a header field.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// fileName is as much of a message id as a file's name and a URL can hold.
func fileName(messageID string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(".-@=", r):
			return r
		}
		return '_'
	}, messageID)
	return name[:min(len(name), 150)]
}
