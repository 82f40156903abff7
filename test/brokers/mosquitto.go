package brokers

import (
	"fmt"
	"net/url"
	"os/exec"
)

// mosquitto keeps sessions and their messages on disk, without a limit to how many:
// by default it drops what is over 1,000 for a client that is away.
var mosquitto = kind{
	missing: func() error {
		_, err := program("mosquitto", "/usr/sbin")
		_, errPasswd := program("mosquitto_passwd")
		return firstOf(err, errPasswd)
	},
	prepare: func(s *Server) error {
		passwd, err := program("mosquitto_passwd")
		if err != nil {
			return err
		}
		if err := s.write("passwords", "orderflow:"+s.secret+"\n"); err != nil {
			return err
		}
		if err := s.run(passwd, "-U", "passwords"); err != nil {
			return err
		}
		return s.write("mosquitto.conf", fmt.Sprintf(`listener %d 127.0.0.1
allow_anonymous false
password_file %[2]s/passwords
# Started by root it would become another user, who may not enter here.
user root
persistence true
persistence_location %[2]s/
# What came since it was written last is lost with the process.
autosave_interval 1
autosave_on_changes true
max_queued_messages 0
max_queued_bytes 0
# Messages that a client has and has not acknowledged, without a limit: a sidecar that
# was killed never acknowledges those that it had (docs/brokers.md).
max_inflight_messages 0
`, s.port, s.dir))
	},
	command: func(s *Server) (*exec.Cmd, error) {
		path, err := program("mosquitto", "/usr/sbin")
		if err != nil {
			return nil, err
		}
		return exec.Command(path, "-c", "mosquitto.conf"), nil
	},
	// A client of MQTT 3.1.1 without a name and without a password: refused, but
	// answered (CONNACK).
	answers: greets("\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00", 0x20),
	env: func(s *Server, address string) []string {
		return []string{"MQTT_URL=" + (&url.URL{Scheme: "mqtt", User: url.UserPassword("orderflow", s.secret), Host: address}).String()}
	},
}
