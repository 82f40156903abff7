package process

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func env(vars map[string]string) *Env { return NewEnv(func(name string) string { return vars[name] }) }

func TestEnvReadsValuesAndFallbacks(t *testing.T) {
	e := env(map[string]string{"A": "1", "PORT": "8080", "ADDRESS": "[::1]:25", "WAIT": "90s"})
	for _, got := range [][2]string{
		{e.String("A", "x", ""), "1"},
		{e.String("B", "x", ""), "x"},
		{e.Port("PORT", "", ""), "8080"},
		{e.Port("OTHER_PORT", "3500", ""), "3500"},
		{e.HostPort("ADDRESS", "", ""), "[::1]:25"},
		{e.HostPort("OTHER_ADDRESS", "localhost:1025", ""), "localhost:1025"},
		{e.Duration("WAIT", time.Second, "").String(), "1m30s"},
		{e.Duration("OTHER_WAIT", time.Second, "").String(), "1s"},
	} {
		if got[0] != got[1] {
			t.Errorf("%q, want %q", got[0], got[1])
		}
	}
	e.Check("A", nil)
	if err := e.Err(); err != nil {
		t.Error(err)
	}
}

func TestEnvTellsAllThatIsWrongAtOnce(t *testing.T) {
	e := env(map[string]string{"P0": "0", "P1": "65536", "P2": "http", "H": "localhost", "D0": "fast", "D1": "-1s", "D2": "0s"})
	for _, name := range []string{"P0", "P1", "P2", "P3"} {
		e.Port(name, "", "")
	}
	e.HostPort("H", "", "")
	e.HostPort("H2", "", "")
	for _, name := range []string{"D0", "D1", "D2"} {
		e.Duration(name, time.Second, "")
	}
	e.Check("X", errors.New("must rhyme"))
	want := `P0 is "0": it must be a TCP port, from 1 to 65535
P1 is "65536": it must be a TCP port, from 1 to 65535
P2 is "http": it must be a TCP port, from 1 to 65535
P3 is not set: it must be a TCP port, from 1 to 65535
H is "localhost": it must be host:port
H2 is not set: it must be host:port
D0 is "fast": it must be a positive duration such as 30s or 15m
D1 is "-1s": it must be a positive duration such as 30s or 15m
D2 is "0s": it must be a positive duration such as 30s or 15m
X: must rhyme`
	if got := e.Err().Error(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestUsageListsWhatWasRead(t *testing.T) {
	e := env(map[string]string{"SECRET": "hunter2"})
	e.String("SECRET", "", "what nobody may know")
	e.Port("APP_PORT", "", "port to listen on")
	e.Duration("WAIT", time.Minute, "how long")
	var b strings.Builder
	e.usage(&b)
	for _, want := range []string{"SECRET    what nobody may know\n", "APP_PORT  port to listen on\n", "WAIT      how long (default 1m0s)\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "hunter2") {
		t.Errorf("it tells values:\n%s", b.String())
	}
}

func TestTokenIsNeededOffLoopback(t *testing.T) {
	for host, needed := range map[string]bool{
		"": false, "127.0.0.1": false, "127.8.8.8": false, "localhost": false, "LOCALHOST": false, "::1": false,
		"0.0.0.0": true, "::": true, "10.0.0.1": true, "order": true, "localhost.example.com": true, "127.0.0.1.example.com": true,
	} {
		for _, token := range []string{"", "secret"} {
			e := env(map[string]string{"APP_PORT": "8080", "LISTEN_HOST": host, "APP_API_TOKEN": token})
			readCommon(e)
			if err := e.Err(); (err != nil) != (needed && token == "") {
				t.Errorf("host %q, token %q: %v", host, token, err)
			}
		}
	}
}

func TestCommonSettingsAreChecked(t *testing.T) {
	e := env(map[string]string{"LOG_LEVEL": "LOUD", "DAPR_GRPC_PORT": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"})
	readCommon(e)
	for _, want := range []string{"APP_PORT is not set", "LOG_LEVEL: ", "DAPR_GRPC_PORT is", "OTEL_EXPORTER_OTLP_PROTOCOL: must be"} {
		if !strings.Contains(e.Err().Error(), want) {
			t.Errorf("no %q in %v", want, e.Err())
		}
	}
}
