package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"orderflow/events"
	"orderflow/test/brokers"
	"orderflow/test/system"
)

// broker shows what HTTP doesn't, and does what can't be done through a sidecar.
type broker interface {
	// mark says that a trial begins.
	mark(context.Context) error
	// again delivers every event of the trial so far once more, past whatever the
	// broker knows repetitions by.
	again(context.Context, *trial) error
	// pending says what was not delivered yet or not acknowledged, or "".
	pending(context.Context) (string, error)
	close()
}

var topics = []string{events.TopicOrders, events.TopicInventory, events.TopicDeadLetters}

const brokerTimeout = 20 * time.Second

func dial(s *system.System) (broker, error) {
	switch s.Options.Broker {
	case "nats":
		conn, err := nats.Connect(s.NATSURL, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
		if err != nil {
			return nil, err
		}
		js, err := jetstream.New(conn)
		if err != nil {
			conn.Close()
			return nil, err
		}
		return &onNATS{conn: conn, js: js, marks: map[string]uint64{}}, nil
	case "redis":
		return onRedis{onAny: onAny{s.BrokerServer}, client: s.BrokerServer.RedisClient()}, nil
	}
	return onAny{s.BrokerServer}, nil
}

// onAny is a broker of which no more is known than what sidecars say, and its own
// programs.
type onAny struct{ server *brokers.Server }

func (onAny) mark(context.Context) error                { return nil }
func (onAny) again(ctx context.Context, t *trial) error { return retold(ctx, t) }
func (onAny) close()                                    {}

// pending is nothing where nobody can be asked.
func (b onAny) pending(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	backlog, err := b.server.Backlog(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return "", nil
	}
	return backlog, err
}

// onRedis sees the groups of a stream.
type onRedis struct {
	onAny
	client *redis.Client
}

func (b onRedis) close() { _ = b.client.Close() } // nothing is waited for

func (b onRedis) pending(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	var pending []string
	for _, topic := range topics {
		groups, err := b.client.XInfoGroups(ctx, topic).Result()
		if err != nil {
			return "", err
		}
		for _, g := range groups {
			if g.Pending > 0 || g.Lag > 0 {
				pending = append(pending, fmt.Sprintf("%s of %s: %d undelivered, %d unacknowledged", topic, g.Name, g.Lag, g.Pending))
			}
		}
	}
	return strings.Join(pending, "; "), nil
}

// onNATS sees consumers, and puts messages into a stream without an id: a sidecar
// gives them one, by which the server drops repetitions within five seconds.
type onNATS struct {
	conn *nats.Conn
	js   jetstream.JetStream

	marks map[string]uint64 // the last message before the trial, by topic
}

func (b *onNATS) close() { b.conn.Close() }

func (b *onNATS) mark(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	for _, topic := range topics {
		stream, err := b.js.Stream(ctx, topic)
		if err != nil {
			return err
		}
		b.marks[topic] = stream.CachedInfo().State.LastSeq
	}
	return nil
}

func (b *onNATS) again(ctx context.Context, _ *trial) error {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	var sent []jetstream.PubAckFuture
	for _, topic := range []string{events.TopicOrders, events.TopicInventory} {
		stream, err := b.js.Stream(ctx, topic)
		if err != nil {
			return err
		}
		for seq := b.marks[topic] + 1; seq <= stream.CachedInfo().State.LastSeq; seq++ {
			m, err := stream.GetMsg(ctx, seq)
			if err != nil {
				return err
			}
			again, err := b.js.PublishAsync(topic, m.Data)
			if err != nil {
				return err
			}
			sent = append(sent, again)
		}
	}
	for _, again := range sent {
		select {
		case <-again.Ok():
		case err := <-again.Err():
			return err
		case <-ctx.Done():
			return errors.Join(errors.New("the broker does not take all"), ctx.Err())
		}
	}
	return nil
}

func (b *onNATS) pending(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	var pending []string
	for _, topic := range topics {
		stream, err := b.js.Stream(ctx, topic)
		if err != nil {
			return "", err
		}
		consumers := stream.ListConsumers(ctx)
		for c := range consumers.Info() {
			if c.NumPending > 0 || c.NumAckPending > 0 {
				pending = append(pending, fmt.Sprintf("%s: %d undelivered, %d unacknowledged", c.Name, c.NumPending, c.NumAckPending))
			}
		}
		if err := consumers.Err(); err != nil {
			return "", err
		}
	}
	return strings.Join(pending, "; "), nil
}
