package notification

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	htmltemplate "html/template"
	"net/mail"
	"strings"
	texttemplate "text/template"
	"unicode"

	gomail "github.com/wneessen/go-mail"

	"orderflow/events"
)

//go:embed templates
var templates embed.FS

var (
	textTemplates = texttemplate.Must(texttemplate.New("").Funcs(texttemplate.FuncMap(functions)).ParseFS(templates, "templates/*.txt"))
	htmlTemplates = htmltemplate.Must(htmltemplate.New("").Funcs(functions).ParseFS(templates, "templates/*.html"))
)

var functions = htmltemplate.FuncMap{
	"money": formatMoney,
	"sum": func(l events.Line) events.Money {
		return events.Money{Amount: l.UnitPrice.Amount * int64(l.Quantity), Currency: l.UnitPrice.Currency}
	},
}

// reasons say in plain words why an order was cancelled.
var reasons = map[string]string{
	events.ReasonRejected: "not everything that you ordered is in stock",
	events.ReasonCustomer: "you asked us to",
	events.ReasonTimeout:  "we could not make sure in time that everything is in stock",
}

// content is what an e-mail says, in both of its forms.
type content struct{ subject, text, html string }

func writeCompleted(p events.OrderCompleted) (content, error) {
	return write("completed", "Your order "+p.OrderID+" is complete", p)
}

func writeCancelled(p events.OrderCancelled) (content, error) {
	return write("cancelled", "Your order "+p.OrderID+" is cancelled", struct {
		events.OrderCancelled
		Why string
	}{p, reasons[p.Reason]})
}

func writeStockLow(id string, p product) (content, error) {
	p.Name = oneLine(p.Name)
	return write("stock-low", "Stock is low: "+id, struct {
		ID string
		product
	}{id, p})
}

// write fills the templates of a name, one for each form.
func write(name, subject string, data any) (content, error) {
	var text, html bytes.Buffer
	if err := textTemplates.ExecuteTemplate(&text, name+".txt", data); err != nil {
		return content{}, err
	}
	if err := htmlTemplates.ExecuteTemplate(&html, name+".html", data); err != nil {
		return content{}, err
	}
	return content{subject, text.String(), html.String()}, nil
}

// oneLine is s with a blank for everything that is not a visible character, so
// that a name can't pose as another line of the e-mail.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// messageID is the Message-ID of the notification of key, always the same, by
// which a mail program knows a repeated e-mail. The dots of an id need not stand
// alone, those of a Message-ID must (RFC 5322, dot-atom-text), hence the escape.
func messageID(key, from string) string {
	return strings.ReplaceAll(key, ".", "=2E") + from[strings.LastIndexByte(from, '@'):]
}

// envelope is the e-mail of the notification of key. It is the same byte for
// byte in every attempt. Its Date is when the notification was begun, which is
// what Date means (RFC 5322, section 3.6.1: the e-mail is complete and ready);
// the event's own time may be long past, or missing.
func envelope(from mail.Address, to, key string, r record, c content) (*gomail.Msg, error) {
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	m.FromMailAddress(&from)
	if err := m.To(to); err != nil {
		return nil, fmt.Errorf("the address of %s is refused", key) // err holds the address
	}
	m.Subject(c.subject)
	m.SetMessageIDWithValue(r.MessageID)
	m.SetDateWithValue(r.CreatedAt)
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: asks for no out-of-office reply
	boundary := sha256.Sum256([]byte(key))
	m.SetBoundary(hex.EncodeToString(boundary[:16]))
	m.SetBodyString(gomail.TypeTextPlain, c.text)
	m.AddAlternativeString(gomail.TypeTextHTML, c.html)
	return m, nil
}
