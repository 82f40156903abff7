package mailsink

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageSource string

var pages = template.Must(template.New("").Parse(pageSource))

// shown is how many messages the page lists.
const shown = 200

// Nothing in a message may run or fetch. Its HTML part is a document of its own
// origin, without scripts, forms or links that open (CSP sandbox), so that it
// can't read the other messages.
const (
	pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	htmlPolicy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
)

// newPage serves the page and the API over messages.
func newPage(m *messages) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		render(w, "list", m.find(shown, func(Message) bool { return true }))
	})
	mux.HandleFunc("GET /view/{id}", func(w http.ResponseWriter, r *http.Request) {
		message, content, ok := read(w, r, m)
		if !ok {
			return
		}
		p := readParts(content)
		render(w, "message", struct {
			Message
			From, Date, Text string
			HTML             bool
		}{message, decodeHeader(p.header.Get("From")), p.header.Get("Date"), p.text, p.html != ""})
	})
	mux.HandleFunc("GET /messages", func(w http.ResponseWriter, r *http.Request) { answerList(w, r, m) })
	mux.HandleFunc("GET /messages/{id}", func(w http.ResponseWriter, r *http.Request) {
		if _, content, ok := read(w, r, m); ok {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write(content)
		}
	})
	mux.HandleFunc("GET /messages/{id}/html", func(w http.ResponseWriter, r *http.Request) {
		_, content, ok := read(w, r, m)
		if !ok {
			return
		}
		html := readParts(content).html
		if html == "" {
			http.Error(w, "The message has no HTML part.", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Security-Policy", htmlPolicy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(html))
	})
	return guard(mux)
}

// guard turns away requests that a web page elsewhere sends under a name of its
// own that leads here (DNS rebinding), and sets what every answer has.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if host != "localhost" && net.ParseIP(strings.Trim(host, "[]")) == nil {
			http.Error(w, "Use the address, or localhost.", http.StatusMisdirectedRequest)
			return
		}
		w.Header().Set("Content-Security-Policy", pagePolicy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// answerList lists all messages, or those of a recipient (to), of a Message-ID
// (messageId), or that came in after a time (since, RFC 3339); newest first.
func answerList(w http.ResponseWriter, r *http.Request, m *messages) {
	query := r.URL.Query()
	to, messageID := query.Get("to"), strings.Trim(query.Get("messageId"), "<>")
	var since time.Time
	if s := query.Get("since"); s != "" {
		var err error
		if since, err = time.Parse(time.RFC3339Nano, s); err != nil {
			http.Error(w, "The parameter since must be a time such as 2026-01-31T12:00:00Z.", http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(m.find(MaxMessages, func(each Message) bool {
		return (messageID == "" || each.MessageID == messageID) &&
			(to == "" || slices.ContainsFunc(each.To, func(address string) bool { return strings.EqualFold(address, to) })) &&
			each.Time.After(since)
	}))
}

// read reads the message that the path names, or answers why not.
func read(w http.ResponseWriter, r *http.Request, m *messages) (Message, []byte, bool) {
	message, content, err := m.read(r.PathValue("id"))
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "There is no such message.", http.StatusNotFound)
		return Message{}, nil, false
	}
	if err != nil {
		http.Error(w, "The message can't be read.", http.StatusInternalServerError)
		return Message{}, nil, false
	}
	return message, content, true
}

func render(w http.ResponseWriter, name string, data any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "The page can't be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}
