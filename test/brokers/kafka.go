package brokers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// kafka is Apache Kafka as it is released, one node that is broker and controller.
var kafka = kind{
	missing: func() error {
		_, err := program("java")
		_, errJars := installed("kafka/libs")
		return firstOf(err, errJars)
	},
	prepare: func(s *Server) error {
		controller, err := freePort()
		if err != nil {
			return err
		}
		err = s.write("server.properties", fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[3]s
# Topics are made at first use, with as many partitions as replicas of a service
# could share.
auto.create.topics.enable=true
num.partitions=12
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
# Nobody else is about to join a group when its first member does.
group.initial.rebalance.delay.ms=0
# A killed broker is let in again when its last session is over (9 s by default).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.segment.bytes=16777216
`, s.port, controller, filepath.Join(s.dir, "log")))
		if err != nil {
			return err
		}
		// 16 bytes in base64; it only has to be the same in all nodes of a cluster.
		return s.run("java", kafkaArgs("kafka.tools.StorageTool", "format", "-t", "b3JkZXJmbG93LXRlc3RzMQ", "-c", "server.properties")...)
	},
	command: func(s *Server) (*exec.Cmd, error) {
		return exec.Command("java", kafkaArgs("kafka.Kafka", "server.properties")...), nil
	},
	backlog: func(ctx context.Context, s *Server) (string, error) {
		cmd := exec.Command("java", kafkaArgs("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", s.Address(), "--all-groups", "--describe")...)
		out, err := outputOf(ctx, s, cmd)
		if err != nil {
			return "", err
		}
		return kafkaBacklog(string(out))
	},
	answers: kafkaAnswers,
	env: func(_ *Server, address string) []string {
		return []string{"KAFKA_BROKERS=" + address, "KAFKA_AUTH_TYPE=none", "KAFKA_SASL_MECHANISM=", "KAFKA_SASL_USERNAME=", "KAFKA_SASL_PASSWORD="}
	},
}

var errNobodyReads = errors.New("kafka has no groups: nobody reads")

// kafkaBacklog reads what Kafka's own tool says of all groups:
//
//	GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG ...
//
// where a partition of which nothing was acknowledged yet has "-" for the first and
// the last of these numbers.
func kafkaBacklog(table string) (string, error) {
	if strings.TrimSpace(table) == "" {
		return "", errNobodyReads
	}
	waiting, partitions := []string{}, 0
	for line := range strings.Lines(table) {
		columns := strings.Fields(line)
		if len(columns) < 6 {
			continue
		}
		if _, err := strconv.Atoi(columns[2]); err != nil {
			continue // a heading
		}
		partitions++
		lag := columns[5]
		if columns[3] == "-" {
			lag = columns[4]
		}
		if lag != "0" {
			waiting = append(waiting, fmt.Sprintf("%s of %s, partition %s: %s", columns[1], columns[0], columns[2], lag))
		}
	}
	if partitions == 0 { // it says so, and ends well
		return "", fmt.Errorf("kafka's tool failed: %s", table)
	}
	return strings.Join(waiting, "; "), nil
}

func kafkaArgs(class string, args ...string) []string {
	libs, err := installed("kafka/libs")
	if err != nil {
		libs = "nowhere" // was there a moment ago; java says what it misses
	}
	return append([]string{
		"-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", filepath.Join(libs, "*"), class,
	}, args...)
}

// kafkaAnswers asks for the versions of the protocol, which is what every client
// does first (ApiVersions, version 0): it is not answered before the broker is a
// member of its cluster.
func kafkaAnswers(ctx context.Context, s *Server) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Address())
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	const correlation = 7
	request := binary.BigEndian.AppendUint32(nil, 10)                // bytes that follow
	request = binary.BigEndian.AppendUint16(request, 18)             // ApiVersions
	request = binary.BigEndian.AppendUint16(request, 0)              // its version
	request = binary.BigEndian.AppendUint32(request, correlation)    // comes back
	request = binary.BigEndian.AppendUint16(request, uint16(0xffff)) // no client id
	if _, err := conn.Write(request); err != nil {
		return err
	}
	var answer struct {
		Size, Correlation uint32
		Error             uint16
	}
	if err := binary.Read(io.LimitReader(conn, 10), binary.BigEndian, &answer); err != nil {
		return err
	}
	if answer.Correlation != correlation || answer.Error != 0 {
		return fmt.Errorf("its answer is %+v", answer)
	}
	return nil
}
