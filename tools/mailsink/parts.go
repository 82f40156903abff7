package mailsink

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
)

// maxDepth is how deep multiparts may lie in each other to be looked into.
const maxDepth = 5

// parts are the readable forms of a message, empty where it does not have one.
type parts struct {
	header     mail.Header
	text, html string
}

// readParts takes from a message what it can.
func readParts(content []byte) parts {
	var p parts
	m, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		p.text = strings.ToValidUTF8(string(content), "\uFFFD")
		return p
	}
	p.header = m.Header
	p.read(textproto.MIMEHeader(m.Header), m.Body, 0)
	return p
}

func (p *parts) read(header textproto.MIMEHeader, body io.Reader, depth int) {
	mediaType, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		mediaType = "text/plain" // RFC 2045, section 5.2
	}
	if strings.HasPrefix(mediaType, "multipart/") && depth < maxDepth {
		r := multipart.NewReader(body, params["boundary"])
		for {
			part, err := r.NextRawPart()
			if err != nil {
				return
			}
			p.read(part.Header, part, depth+1)
		}
	}
	into := map[string]*string{"text/plain": &p.text, "text/html": &p.html}[mediaType]
	if into == nil || *into != "" {
		return
	}
	switch strings.ToLower(header.Get("Content-Transfer-Encoding")) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	decoded, _ := io.ReadAll(body) // what could be decoded of a broken part
	*into = strings.ToValidUTF8(string(decoded), "\uFFFD")
}
