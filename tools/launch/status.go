package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"
)

// status is what the status file says: where everything is, for tests and tools.
// It holds the tokens, so it is readable by its owner only, and it is there
// exactly while the system is ready.
type status struct {
	Broker   string      `json:"broker"`
	State    string      `json:"state"`
	Data     string      `json:"data"`
	APIToken string      `json:"apiToken"` // header dapr-api-token, to a sidecar
	AppToken string      `json:"appToken"` // header dapr-api-token, to a service's event routes
	Apps     []appStatus `json:"apps"`
	Mail     mailStatus  `json:"mail"`
	NATSURL  string      `json:"natsURL,omitempty"` // with credentials

	// BrokerPID is the broker's process; there is none if it is not started here.
	BrokerPID int `json:"brokerPid,omitempty"`
}

type appStatus struct {
	ID       string `json:"id"`
	URL      string `json:"url"`
	DaprHTTP string `json:"daprHTTP"` // URL
	DaprGRPC string `json:"daprGRPC"` // host:port
	PID      int    `json:"pid"`      // 0 if it is held down from the start
	DaprdPID int    `json:"daprdPid"` // the same
}

type mailStatus struct {
	SMTP string `json:"smtp"` // host:port
	URL  string `json:"url"`  // the page
	Dir  string `json:"dir"`  // of the .eml files
}

func (s *system) status() status {
	st := status{
		Broker: s.settings.broker, State: s.settings.state, Data: s.settings.data,
		APIToken: s.apiToken, AppToken: s.appToken,
		Mail: mailStatus{SMTP: s.mail.SMTPAddr(), URL: s.mail.HTTPURL(), Dir: s.mailDir()},
	}
	if s.broker != nil {
		st.NATSURL, st.BrokerPID = s.broker.url, s.broker.process.pid()
	}
	for _, a := range s.apps {
		each := appStatus{ID: a.AppID, URL: a.url(), DaprHTTP: a.sidecarHTTP(), DaprGRPC: loopback(a.DaprGRPCPort)}
		if a.process != nil {
			each.PID = a.process.pid()
		}
		if a.sidecar != nil {
			each.DaprdPID = a.sidecar.pid()
		}
		st.Apps = append(st.Apps, each)
	}
	return st
}

// writeStatus writes the status file as a whole: a reader sees all of it or none.
func (s *system) writeStatus() error {
	content, err := json.MarshalIndent(s.status(), "", "  ")
	if err != nil {
		return err
	}
	draft, path := s.settings.status+".new", s.settings.status
	if err := os.WriteFile(draft, append(content, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, path)
}

func (s *system) removeStatus() error {
	if err := os.Remove(s.settings.status); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

const order = `{"customerId":"c-1","email":"ada@example.com","items":[{"id":"espresso-beans","quantity":2}]}`

// describe says where everything is, for people.
func (s *system) describe(took time.Duration) {
	st := s.status()
	say := s.console.say
	say("\nready in %.1fs: broker %s, state %s, data in %s\n", took.Seconds(), st.Broker, st.State, st.Data)
	for _, a := range st.Apps {
		say("  %-14s %s   sidecar %s", a.ID, a.URL, a.DaprHTTP)
	}
	say("  %-14s %s   SMTP %s, messages in %s", "mail", st.Mail.URL, st.Mail.SMTP, st.Mail.Dir)
	say("  %-14s %s", "logs", s.settings.data+"/logs")
	say("  %-14s %s   (header dapr-api-token, for the sidecars)", "token", st.APIToken)

	i := indexOf(s.apps, "order")
	if i < 0 {
		say("")
		return
	}
	const request = ` -H 'Content-Type: application/json' -H 'Prefer: wait=10' -d '` + order + `'`
	say("\nPlace an order, directly and through the sidecar:\n")
	say("  curl -sS -X POST %s/orders%s", st.Apps[i].URL, request)
	say("  curl -sS -X POST %s/v1.0/invoke/order/method/orders -H 'dapr-api-token: %s'%s", st.Apps[i].DaprHTTP, st.APIToken, request)
	if !s.settings.seed {
		if i := indexOf(s.apps, "inventory"); i >= 0 {
			say("\nA product to order, if there is none yet:\n")
			for _, p := range products[:1] {
				say("  curl -sS -X PUT %s/products/%s -H 'Content-Type: application/json' -d '%s'", st.Apps[i].URL, p.id, p.definition)
				say("  curl -sS -X POST %s/products/%s/receipts -H 'Content-Type: application/json' -d '%s'", st.Apps[i].URL, p.id, p.receipt)
			}
		}
	}
	say("\nCtrl-C stops everything.\n")
}

func indexOf(apps []*app, id string) int {
	for i, a := range apps {
		if a.AppID == id {
			return i
		}
	}
	return -1
}
