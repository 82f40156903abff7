package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"orderflow/events"
	"orderflow/internal/aggregate"
	"orderflow/internal/problem"
)

// statuses is the only place where an error becomes an HTTP status.
var statuses = problem.Table{
	{errNotFound, func(error) *problem.Problem {
		return problem.New(http.StatusNotFound, "not-found", "There is no such thing", "Nothing is known under this id.")
	}},
	{errDiscarded, func(error) *problem.Problem {
		return problem.New(http.StatusConflict, "discarded", "The letter is discarded", "A discarded letter is not sent again.")
	}},
	{errNotRedrivable, func(err error) *problem.Problem {
		return problem.New(http.StatusUnprocessableEntity, "not-redrivable", "The event can't be sent again", "%v.", err)
	}},
	{errNoRebuild, func(error) *problem.Problem {
		return problem.New(http.StatusConflict, "no-rebuild", "That generation is not being built", "GET /admin/projection says which one is; POST /admin/projection/rebuild begins one.")
	}},
	{errPublish, func(error) *problem.Problem {
		return problem.Unavailable("The broker did not take the event; whether it was sent is not known. Do the same again: it stays one event.")
	}},
	{aggregate.ErrNotLoaded, func(error) *problem.Problem { return problem.Unavailable("The state store does not answer.") }},
	{aggregate.ErrNotCommitted, func(error) *problem.Problem {
		return problem.Unavailable("The state store does not answer. What was asked for may be done; do the same again.")
	}},
	{aggregate.ErrClosed, func(error) *problem.Problem { return problem.Unavailable("The service is ending.") }},
	{events.ErrInvalid, func(err error) *problem.Problem { return problem.Invalid("%v.", err) }},
}

var errPublish = errors.New("not published")

// operatorHeader says who is acting. It is not proven, only noted.
const operatorHeader = "X-Operator"

const (
	maxOperator  = 64  // characters
	maxNote      = 500 // characters
	maxBody      = 1 << 20
	defaultLimit = 50
	maxLimit     = 100
)

// pathID is the id in the path.
func pathID(c *gin.Context) (string, error) {
	id := c.Param("id")
	return id, events.CheckID(id)
}

// operator is who is acting, or "unknown".
func operator(c *gin.Context) (string, error) {
	who := c.GetHeader(operatorHeader)
	if who == "" {
		return "unknown", nil
	}
	if len(who) > maxOperator || strings.ContainsFunc(who, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", problem.Invalid("%s must have 1 to %d printable ASCII characters.", operatorHeader, maxOperator)
	}
	return who, nil
}

// listing is which letters are meant.
type listing struct {
	fits       func(letter) bool
	end, limit int
}

// readListing reads the query of a listing of letters. In fixed are parameters
// that can't be chosen.
func readListing(raw string, fixed url.Values) (listing, error) {
	l := listing{end: -1, limit: defaultLimit}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return l, problem.Invalid("The query can't be read.")
	}
	for name, values := range query {
		if !slices.Contains([]string{"status", "service", "cause", "type", "cursor", "limit"}, name) || len(values) != 1 || fixed.Has(name) {
			return l, problem.Invalid("The query parameters here are service, cause, type, cursor and limit, and for a list status, each once, or letterId.")
		}
	}
	for name, values := range fixed {
		query[name] = values
	}
	if s := query.Get("status"); query.Has("status") && !slices.Contains(allStatuses, s) {
		return l, problem.Invalid("status must be one of %v.", allStatuses)
	}
	if cause := query.Get("cause"); query.Has("cause") && cause != causeUndelivered && !slices.Contains(events.Causes, cause) {
		return l, problem.Invalid("cause must be one of %v or %s.", events.Causes, causeUndelivered)
	}
	if query.Has("limit") {
		if l.limit, err = strconv.Atoi(query.Get("limit")); err != nil || l.limit < 1 || l.limit > maxLimit {
			return l, problem.Invalid("limit must be from 1 to %d.", maxLimit)
		}
	}
	if query.Has("cursor") {
		if l.end, err = strconv.Atoi(query.Get("cursor")); err != nil || l.end < 1 {
			return l, problem.Invalid("cursor is none that the same request has been given; leave it out to begin anew.")
		}
	}
	l.fits = func(d letter) bool {
		for name, value := range map[string]string{"status": d.Status, "service": d.Service, "cause": d.Cause, "type": d.Event.Type} {
			if query.Has(name) && query.Get(name) != value {
				return false
			}
		}
		return true
	}
	return l, nil
}

func (s *server) listLetters(c *gin.Context) error {
	if ids, named := c.GetQueryArray("letterId"); named {
		return s.listNamed(c, ids)
	}
	l, err := readListing(c.Request.URL.RawQuery, nil)
	if err != nil {
		return err
	}
	found, next, err := s.letters.list(c.Request.Context(), l.end, l.limit, l.fits)
	if err != nil {
		return err
	}
	answer := gin.H{"deadLetters": found}
	if next > 0 {
		answer["nextCursor"] = strconv.Itoa(next)
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// listNamed answers with those of the letters that are here: this is how the
// services that gave events up see whether their letters have come.
func (s *server) listNamed(c *gin.Context, ids []string) error {
	if len(c.Request.URL.Query()) > 1 || len(ids) > maxLimit {
		return problem.Invalid("Give letterId at most %d times, and no other parameter with it.", maxLimit)
	}
	for _, id := range ids {
		if err := events.CheckID(id); err != nil {
			return err
		}
	}
	found, err := s.letters.named(c.Request.Context(), ids)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, gin.H{"deadLetters": found})
	return nil
}

// showLetter answers with the letter and its event as it came last, as bytes and,
// if they are JSON, as that.
func (s *server) showLetter(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	l, err := s.letters.find(c.Request.Context(), id)
	if err != nil {
		return err
	}
	raw, err := s.letters.original(c.Request.Context(), l)
	if err != nil {
		return err
	}
	answer := struct {
		letter
		Original []byte          `json:"original"`
		Decoded  json.RawMessage `json:"decoded,omitempty"`
	}{letter: l, Original: raw}
	if json.Valid(raw) && utf8.Valid(raw) {
		answer.Decoded = raw
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

func (s *server) redriveLetter(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	who, err := operator(c)
	if err != nil {
		return err
	}
	var body struct {
		Event json.RawMessage `json:"event"`
	}
	if c.Request.ContentLength != 0 {
		if _, err := problem.ReadJSON(c, maxBody, &body); err != nil {
			return err
		}
	}
	ctx := c.Request.Context()
	l, err := s.letters.find(ctx, id)
	if err != nil {
		return err
	}
	l, err = s.redrive(ctx, l, body.Event, who)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, l)
	return nil
}

// redrive sends the letter's event again and then notes it. If it can't be noted
// the same redrive is done once more, under the same id.
func (s *server) redrive(ctx context.Context, l letter, mended []byte, who string) (letter, error) {
	if l.Status == statusDiscarded {
		return letter{}, errDiscarded
	}
	raw, err := s.letters.original(ctx, l)
	if err != nil {
		return letter{}, err
	}
	e, err := again(l, raw, mended)
	if err != nil {
		return letter{}, err
	}
	at := s.now()
	if err := s.publisher.Publish(ctx, e); err != nil {
		return letter{}, errors.Join(errPublish, err)
	}
	s.log.InfoContext(ctx, "dead letter redriven", "letter_id", l.LetterID, "event_type", e.Type, "redrives", e.Redrives, "mended", mended != nil)
	return s.letters.redriven(ctx, l.LetterID, audit{At: at, Who: who, What: auditRedriven, Number: e.Redrives, Mended: mended != nil})
}

// redriveLetters sends the events of all open letters that match again, as they
// came, at most limit of them.
func (s *server) redriveLetters(c *gin.Context) error {
	who, err := operator(c)
	if err != nil {
		return err
	}
	l, err := readListing(c.Request.URL.RawQuery, url.Values{"status": {statusOpen}})
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	found, next, err := s.letters.list(ctx, l.end, l.limit, l.fits)
	if err != nil {
		return err
	}
	redriven, left := []string{}, []string{}
	for _, d := range found {
		switch _, err := s.redrive(ctx, d, nil, who); {
		case errors.Is(err, errNotRedrivable), errors.Is(err, errDiscarded):
			left = append(left, d.LetterID)
		case err != nil:
			return err
		default:
			redriven = append(redriven, d.LetterID)
		}
	}
	answer := gin.H{"redriven": redriven, "notRedrivable": left, "more": next > 0}
	if next > 0 {
		answer["nextCursor"] = strconv.Itoa(next)
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

func (s *server) discardLetter(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	who, err := operator(c)
	if err != nil {
		return err
	}
	var body struct {
		Note string `json:"note"`
	}
	if _, err := problem.ReadJSON(c, maxBody, &body); err != nil {
		return err
	}
	if n := utf8.RuneCountInString(strings.TrimSpace(body.Note)); n < 1 || n > maxNote {
		return problem.Invalid("note must say why, in 1 to %d characters.", maxNote)
	}
	l, err := s.letters.discard(c.Request.Context(), id, audit{At: s.now(), Who: who, What: auditDiscarded, Note: body.Note})
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, l)
	return nil
}

func (s *server) showTimeline(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	line, err := s.timelines.of(c.Request.Context(), id)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, line)
	return nil
}

func (s *server) showStats(c *gin.Context) error {
	counts, err := s.tally.stats(c.Request.Context())
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, counts)
	return nil
}

func (s *server) showProjection(c *gin.Context) error {
	p, err := s.timelines.projection(c.Request.Context())
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, p)
	return nil
}

// beginRebuild has the timelines built anew, beside those that are shown.
func (s *server) beginRebuild(c *gin.Context) error {
	p, err := s.timelines.begin(c.Request.Context(), s.now())
	if err != nil {
		return err
	}
	s.log.InfoContext(c.Request.Context(), "timelines are being rebuilt", "generation", p.Building, "shown", p.Shown)
	c.JSON(http.StatusOK, p)
	return nil
}

// showRebuilt puts the timelines that were built in the place of those that are
// shown.
func (s *server) showRebuilt(c *gin.Context) error {
	var body struct {
		Generation int `json:"generation"`
	}
	if _, err := problem.ReadJSON(c, maxBody, &body); err != nil {
		return err
	}
	if body.Generation < 1 {
		return problem.Invalid("generation must be the one that is being built.")
	}
	p, err := s.timelines.show(c.Request.Context(), body.Generation)
	if err != nil {
		return err
	}
	s.log.InfoContext(c.Request.Context(), "timelines are shown", "generation", p.Shown)
	c.JSON(http.StatusOK, p)
	return nil
}
