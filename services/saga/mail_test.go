package saga

import (
	"context"
	"io"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
)

// dialMail is a connection to a mail server that takes e-mails when the schedule
// has it do so.
func (in *instance) dialMail(context.Context, string, string) (net.Conn, error) {
	if in.dead() {
		return nil, errKilled
	}
	ours, theirs := net.Pipe()
	go in.serveMail(ours)
	return theirs, nil
}

// serveMail speaks as much of SMTP (RFC 5321) as the service needs.
func (in *instance) serveMail(conn net.Conn) {
	stop := context.AfterFunc(in.alive, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	c := textproto.NewConn(conn)
	if c.PrintfLine("220 mail.example") != nil {
		return
	}
	for {
		line, err := c.ReadLine()
		if err != nil {
			return
		}
		answer := "250 OK"
		switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); verb {
		case "EHLO", "HELO", "MAIL", "RCPT", "NOOP", "RSET":
		case "DATA":
			if c.PrintfLine("354 go on") != nil {
				return
			}
			body, err := io.ReadAll(c.DotReader())
			if err != nil {
				return
			}
			m, err := mail.ReadMessage(strings.NewReader(string(body)))
			if err != nil {
				answer = "554 not an e-mail"
				break
			}
			id := strings.Trim(m.Header.Get("Message-ID"), "<>")
			err = in.do(in.alive, writing, "hands over the e-mail", part{id, func() error {
				in.world.mails[id]++
				return nil
			}})
			if err != nil {
				answer = "451 not now"
			}
		case "QUIT":
			_ = c.PrintfLine("221 bye")
			return
		default:
			answer = "500 unknown"
		}
		if c.PrintfLine("%s", answer) != nil {
			return
		}
	}
}
