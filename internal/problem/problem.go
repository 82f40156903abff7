// Package problem is how every service says no: RFC 9457 problem details, and
// the strict reading of requests that leads to most of them.
package problem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
)

// ContentType is the media type of a problem (RFC 9457, section 3).
const ContentType = "application/problem+json"

const (
	typeBase     = "https://orderflow.example/problems/"
	maxKeyLength = 255 // characters of an Idempotency-Key
)

// Problem is an error that a client is told. Type is stable and made for
// programs; Detail is for people and says what to change.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Products are the ids that the problem is about, if it is about products.
	Products []string `json:"products,omitempty"`

	retryAfter time.Duration
}

func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// New is a problem of a kind, a short name that becomes the end of its type.
func New(status int, kind, title, detail string, args ...any) *Problem {
	return &Problem{Type: typeBase + kind, Title: title, Status: status, Detail: fmt.Sprintf(detail, args...)}
}

// Invalid is a request that can't be meant: 400.
func Invalid(detail string, args ...any) *Problem {
	return New(http.StatusBadRequest, "invalid-request", "The request is not valid", detail, args...)
}

// Unavailable is a request that may be sent again later, as it is: 503.
func Unavailable(detail string, args ...any) *Problem {
	p := New(http.StatusServiceUnavailable, "unavailable", "The service can't do this right now", detail, args...)
	p.retryAfter = time.Second
	return p
}

// Internal is a failure of the service itself: 500. Its cause is for the log.
func Internal() *Problem {
	return New(http.StatusInternalServerError, "internal", "Internal error", "The service failed; its log says why.")
}

// Table says which problem an error is to a client: the first whose Err the
// error wraps. A Problem is itself; a context that ended is a 503; everything
// else is a 500 whose cause is logged and not told.
type Table []struct {
	Err     error
	Problem func(error) *Problem
}

// Handle makes a gin handler of one that returns its error.
func (t Table) Handle(log *slog.Logger, handle func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		err := handle(c)
		if err == nil {
			return
		}
		p := t.of(err)
		if p.Status >= http.StatusInternalServerError {
			log.ErrorContext(c.Request.Context(), "request failed", "route", c.FullPath(), "status", p.Status, "error", err)
		}
		Write(c, p)
	}
}

func (t Table) of(err error) *Problem {
	if p := (*Problem)(nil); errors.As(err, &p) {
		return p
	}
	for _, row := range t {
		if errors.Is(err, row.Err) {
			return row.Problem(err)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unavailable("The request took too long, or was given up.")
	}
	return Internal()
}

// Write answers with p and ends the handling of the request.
func Write(c *gin.Context, p *Problem) {
	if p.retryAfter > 0 {
		c.Header("Retry-After", strconv.Itoa(int(p.retryAfter/time.Second)))
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers: can't be
	}
	c.Abort()
	c.Data(p.Status, ContentType, body)
}

// ReadJSON reads the body into v, strictly: one JSON object in UTF-8, of at most
// limit bytes, without a name that v does not have and with none twice. It
// returns the bytes read. Its error is a Problem.
func ReadJSON(c *gin.Context, limit int64, v any) ([]byte, error) {
	if mediaType, _, err := mime.ParseMediaType(c.GetHeader("Content-Type")); err != nil || mediaType != "application/json" {
		return nil, New(http.StatusUnsupportedMediaType, "unsupported-media-type", "The body must be JSON",
			"Send the header Content-Type: application/json.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, limit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, New(http.StatusRequestEntityTooLarge, "too-large", "The body is too large", "At most %d bytes are taken.", limit)
	}
	if err != nil {
		return nil, Invalid("The body could not be read: %v.", err)
	}
	if err := decode(body, v); err != nil {
		return nil, Invalid("The body is not the JSON that is expected here: %v.", err)
	}
	return body, nil
}

// IdempotencyKey reads the header of draft-ietf-httpapi-idempotency-key-header:
// a structured-field string, or the same without its quotes, as most clients
// send it. It is empty if there is none. Its error is a Problem.
func IdempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := strings.TrimSpace(values[0])
	if len(key) >= 2 && strings.HasPrefix(key, `"`) && strings.HasSuffix(key, `"`) {
		key = key[1 : len(key)-1]
	}
	visible := func(r rune) bool { return r >= 0x20 && r < 0x7f && r != '"' && r != '\\' }
	if len(values) > 1 || key == "" || len(key) > maxKeyLength || strings.ContainsFunc(key, func(r rune) bool { return !visible(r) }) {
		return "", Invalid("Idempotency-Key must be one string of 1 to %d visible ASCII characters.", maxKeyLength)
	}
	return key, nil
}

func decode(body []byte, v any) error {
	trimmed := bytes.TrimSpace(body)
	switch {
	case len(trimmed) == 0:
		return errors.New("it is empty")
	case !utf8.Valid(body):
		return errors.New("it is not UTF-8")
	case trimmed[0] != '{': // null would be taken for an empty object
		return errors.New("it must be one object and begin with {")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	var wrong *json.UnmarshalTypeError
	switch err := d.Decode(v); {
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("%s can't be a %s", wrong.Field, wrong.Value)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ends too early")
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more after the object")
	}
	return checkNames(body)
}

// checkNames refuses an object in which two names are equal, or equal but for
// the case: the decoder takes the last of them without a word, others the first.
// The body is valid JSON.
func checkNames(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	type level struct {
		names   map[string]bool // nil in an array
		isValue bool            // a name was read, its value comes next
	}
	var levels []level
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
			continue
		}
		if n := len(levels); n > 0 && levels[n-1].names != nil {
			inner := &levels[n-1]
			if !inner.isValue {
				name := token.(string)
				folded := strings.Map(fold, name)
				if inner.names[folded] {
					return fmt.Errorf("%q is given twice", name)
				}
				inner.names[folded], inner.isValue = true, true
				continue
			}
			inner.isValue = false
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{names: map[string]bool{}})
		case json.Delim('['):
			levels = append(levels, level{})
		}
	}
}

// fold is the same for all cases of a letter, those that Unicode counts among
// them too (ſ is an s to the decoder).
func fold(r rune) rune {
	for {
		next := unicode.SimpleFold(r)
		if next <= r {
			return next
		}
		r = next
	}
}
