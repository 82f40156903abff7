package mailsink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T, dir string) *Sink {
	t.Helper()
	s, err := Start(Config{SMTPAddress: "127.0.0.1:0", HTTPAddress: "127.0.0.1:0", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Sink) {
	t.Helper()
	if s.messages == nil {
		return // stopped already
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	s.messages = nil
}

func send(t *testing.T, s *Sink, to []string, content string) {
	t.Helper()
	if err := smtp.SendMail(s.SMTPAddr(), nil, "orders@shop.example", to, []byte(strings.ReplaceAll(content, "\n", "\r\n"))); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *Sink, path string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Get(s.HTTPURL() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func list(t *testing.T, s *Sink, query string) []Message {
	t.Helper()
	resp, body := get(t, s, "/messages"+query)
	var found []Message
	if err := json.Unmarshal([]byte(body), &found); err != nil || resp.StatusCode != http.StatusOK || found == nil {
		t.Fatalf("%s: %d %s", query, resp.StatusCode, body)
	}
	return found
}

const simple = `From: Shop <orders@shop.example>
To: ada@example.org
Subject: =?utf-8?q?Caf=C3=A9?=
Message-ID: <o-1@shop.example>
Content-Type: multipart/alternative; boundary=x

--x
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Tea =E2=82=AC 15

--x
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

PHA+VGVhIDxiPjE1PC9iPjwvcD4=
--x--
`

func TestMessageIsKeptListedAndShown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mail", "box")
	s := start(t, dir)
	if _, body := get(t, s, "/"); !strings.Contains(body, "No mail yet") {
		t.Errorf("empty page:\n%s", body)
	}
	if found := list(t, s, ""); len(found) != 0 {
		t.Errorf("%+v", found)
	}
	before := time.Now()
	send(t, s, []string{"ada@example.org", "bob@example.org"}, simple)

	found := list(t, s, "")
	if len(found) != 1 {
		t.Fatalf("%+v", found)
	}
	m := found[0]
	if m.MessageID != "o-1@shop.example" || m.Subject != "Café" || strings.Join(m.To, " ") != "ada@example.org bob@example.org" || m.Time.Before(before) {
		t.Errorf("%+v", m)
	}
	content, err := os.ReadFile(filepath.Join(dir, m.ID+".eml"))
	if err != nil {
		t.Fatal(err)
	}
	want := "Return-Path: <orders@shop.example>\r\nDelivered-To: ada@example.org\r\nDelivered-To: bob@example.org\r\n" + strings.ReplaceAll(simple, "\n", "\r\n")
	if string(content) != want || m.Size != len(want) {
		t.Errorf("file of %d bytes:\n%s", m.Size, content)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}

	resp, body := get(t, s, "/messages/"+m.ID)
	if body != want || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v\n%s", resp.Header, body)
	}
	resp, body = get(t, s, "/messages/"+m.ID+"/html")
	if body != "<p>Tea <b>15</b></p>" || !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "sandbox;") {
		t.Errorf("%v\n%s", resp.Header, body)
	}
	if _, body = get(t, s, "/"); !strings.Contains(body, "Café") || !strings.Contains(body, "/view/"+m.ID) {
		t.Errorf("page:\n%s", body)
	}
	if _, body = get(t, s, "/view/"+m.ID); !strings.Contains(body, "Tea € 15") || !strings.Contains(body, `<iframe sandbox `) {
		t.Errorf("view:\n%s", body)
	}
}

func TestListIsFiltered(t *testing.T) {
	s := start(t, t.TempDir())
	for i, to := range []string{"ada@example.org", "bob@example.org", "ada@example.org"} {
		send(t, s, []string{to}, fmt.Sprintf("Subject: %d\nMessage-ID: <same@shop.example>\n\nx\n", i))
	}
	send(t, s, []string{"ada@example.org"}, "Message-ID: <other@shop.example>\n\nx\n")
	all := list(t, s, "")
	if len(all) != 4 {
		t.Fatalf("%+v", all)
	}
	for i := range all[1:] {
		if all[i].ID <= all[i+1].ID || !all[i].Time.After(all[i+1].Time) {
			t.Errorf("not newest first: %s, %s", all[i].ID, all[i+1].ID)
		}
	}
	second := all[2].Time.Format(time.RFC3339Nano)
	for query, want := range map[string]int{
		"?to=ADA@example.org":                                                3,
		"?to=eve@example.org":                                                0,
		"?messageId=same@shop.example":                                       3, // sent again: a file each
		"?messageId=" + url.QueryEscape("<same@shop.example>"):               3,
		"?messageId=same@shop.example&to=bob@example.org":                    1,
		"?since=" + url.QueryEscape(second):                                  2,
		"?since=" + url.QueryEscape(second) + "&messageId=same@shop.example": 1,
	} {
		if got := list(t, s, query); len(got) != want {
			t.Errorf("%s: %d, want %d", query, len(got), want)
		}
	}
	if resp, _ := get(t, s, "/messages?since=yesterday"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("bad since: %d", resp.StatusCode)
	}
}

func TestMessagesOutliveTheSink(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"notes.txt", "short.eml", draftPrefix + "half"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := start(t, dir)
	send(t, first, []string{"ada@example.org"}, simple)
	send(t, first, []string{"bob@example.org"}, simple)
	before := list(t, first, "")
	stop(t, first)
	after := list(t, start(t, dir), "")
	if fmt.Sprint(before) != fmt.Sprint(after) || len(after) != 2 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes.txt")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, draftPrefix+"half")); !os.IsNotExist(err) {
		t.Errorf("draft: %v", err)
	}
}

func TestOldestMessagesGo(t *testing.T) {
	dir := t.TempDir()
	m, err := openMessages(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	for i := range 5 {
		if err := m.add("", nil, fmt.Appendf(nil, "Subject: %d\r\n\r\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Errorf("%v, %v", files, err)
	}
	found := m.find(10, func(Message) bool { return true })
	if len(found) != 3 || found[0].Subject != "4" || found[2].Subject != "2" {
		t.Errorf("%+v", found)
	}
}

func TestHostileMessage(t *testing.T) {
	s := start(t, t.TempDir())
	send(t, s, []string{"ada@example.org"}, `From: "<script>alert(1)</script>" <eve@example.net>
Subject: </title><script>alert(2)</script>
Message-ID: <../../../../etc/<passwd>&"'@x>
Delivered-To: somebody.else@example.org
Content-Type: text/html

<script>alert(3)</script><p>hello</p>
`)
	send(t, s, []string{"ada@example.org"}, "Content-Type: multipart/mixed; boundary=x\n\n"+strings.Repeat("--x\nContent-Type: multipart/mixed; boundary=x\n\n", 50))
	send(t, s, []string{"ada@example.org"}, "no header at all <script>alert(4)</script>\n")
	for _, m := range list(t, s, "") {
		if strings.ContainsAny(m.ID, "/\\<>\"'&") || len(m.To) != 1 || m.To[0] != "ada@example.org" {
			t.Errorf("%+v", m)
		}
		for _, page := range []string{"/", "/view/" + url.PathEscape(m.ID)} {
			resp, body := get(t, s, page)
			if resp.StatusCode != http.StatusOK || strings.Contains(body, "<script") || strings.Count(body, "</title>") != 1 {
				t.Errorf("%s: %d\n%s", page, resp.StatusCode, body)
			}
			if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "script-src") {
				t.Errorf("%s: policy %q", page, policy)
			}
		}
		resp, body := get(t, s, "/messages/"+url.PathEscape(m.ID)+"/html")
		if policy := resp.Header.Get("Content-Security-Policy"); resp.StatusCode == http.StatusOK &&
			(!strings.Contains(body, "<script>") || !strings.HasPrefix(policy, "sandbox;") || strings.Contains(policy, "allow-")) {
			t.Errorf("policy %q\n%s", policy, body)
		}
	}
}

func TestPathTricks(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "mail")
	if err := os.WriteFile(filepath.Join(outer, "20260131T120000.000000000Z-secret.eml"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir)
	send(t, s, []string{"ada@example.org"}, simple)
	for _, id := range []string{
		"nothing", "..", ".", "%2e%2e%2f20260131T120000.000000000Z-secret", "..%2f20260131T120000.000000000Z-secret",
		"..%5c20260131T120000.000000000Z-secret", "%2fetc%2fpasswd", "%00", list(t, s, "")[0].ID + ".eml",
	} {
		for _, path := range []string{"/messages/" + id, "/messages/" + id + "/html", "/view/" + id} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.HTTPURL(), "http://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n", path) // as it is: a client would tidy it up
			answer, err := io.ReadAll(conn)
			_ = conn.Close()
			if err != nil {
				t.Fatal(err)
			}
			if bytes.HasPrefix(answer, []byte("HTTP/1.0 200")) {
				t.Errorf("%s:\n%s", path, answer)
			}
		}
	}
}

func TestForeignHostNameIsTurnedAway(t *testing.T) {
	s := start(t, t.TempDir())
	for host, want := range map[string]int{"localhost:8025": 200, "127.0.0.1": 200, "[::1]:8025": 200, "evil.example:8025": 421, "evil.example": 421} {
		req, err := http.NewRequest(http.MethodGet, s.HTTPURL()+"/messages", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

func TestLimits(t *testing.T) {
	s := start(t, t.TempDir())
	large := "Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", MaxMessageBytes/72+1)
	err := smtp.SendMail(s.SMTPAddr(), nil, "orders@shop.example", []string{"ada@example.org"}, []byte(large))
	if err == nil || !strings.HasPrefix(err.Error(), "552") {
		t.Errorf("too large: %v", err)
	}
	var many []string
	for i := range MaxRecipients + 1 {
		many = append(many, fmt.Sprintf("c%d@example.org", i))
	}
	err = smtp.SendMail(s.SMTPAddr(), nil, "orders@shop.example", many, []byte("\r\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "452") {
		t.Errorf("too many recipients: %v", err)
	}
	if found := list(t, s, ""); len(found) != 0 {
		t.Errorf("%+v", found)
	}
	send(t, s, many[:MaxRecipients], simple)
}

func TestLimitOfConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 1)
	accepted := make(chan net.Conn)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	for range 2 {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("two are open, one is allowed")
	case <-time.After(50 * time.Millisecond):
	}
	for range 2 { // the second time changes nothing
		_ = first.Close()
	}
	second := <-accepted
	if second == nil {
		t.Fatal("the second never came in")
	}
	_ = inner.Close()
	_ = second.Close()
	if conn, ok := <-accepted; ok {
		t.Errorf("accepted %v after the end", conn.RemoteAddr())
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:25", "mail.example.com:25", "127.0.0.1"} {
		for _, cfg := range []Config{
			{SMTPAddress: address, HTTPAddress: "127.0.0.1:0", Dir: t.TempDir()},
			{SMTPAddress: "127.0.0.1:0", HTTPAddress: address, Dir: t.TempDir()},
		} {
			if s, err := Start(cfg); err == nil {
				stop(t, s)
				t.Errorf("%+v is accepted", cfg)
			}
		}
	}
}

// An error gives the ports back.
func TestStartFailsWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.Addr().String()
	_ = probe.Close()
	if _, err := Start(Config{SMTPAddress: address, HTTPAddress: "127.0.0.1:0", Dir: file}); err == nil {
		t.Fatal("a file is taken for a directory")
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}
