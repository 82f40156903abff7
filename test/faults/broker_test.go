package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"orderflow/events"
	"orderflow/test/system"
)

// broker looks into a broker, and puts into it what only somebody with its
// password could. HTTP shows neither.
type broker interface {
	// deadLetters are the messages in dead-letters, each with the event that it is
	// about in plain text.
	deadLetters() ([]string, error)
	// pending says what was not delivered yet or not acknowledged, or "".
	pending() (string, error)
	// mark remembers where topics end now.
	mark() error
	// replay puts all messages that a topic got since the mark into it once more, as
	// they are.
	replay(topic string) error
	// send puts a message into a topic.
	send(topic string, message []byte) error
	close()
}

var topics = []string{events.TopicOrders, events.TopicInventory}

const (
	deadLetters   = "dead-letters"
	brokerTimeout = 20 * time.Second
)

func dial(s *system.System) (broker, error) {
	if s.NATSURL == "" {
		return &redisBroker{client: s.Redis.Client(), marks: map[string]string{}}, nil
	}
	conn, err := nats.Connect(s.NATSURL, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &natsBroker{conn: conn, js: js, marks: map[string]uint64{}}, nil
}

// plain is a dead letter with the event that it is about, where that is in base64:
// a service's letter. One that a sidecar gave up is the event itself.
func plain(letter string) string {
	var e struct {
		Data events.DeadLetter `json:"data"`
	}
	if err := json.Unmarshal([]byte(letter), &e); err != nil {
		return letter // not a service's
	}
	return letter + string(e.Data.Original)
}

type natsBroker struct {
	conn *nats.Conn
	js   jetstream.JetStream

	marks map[string]uint64 // the last message before, by topic
}

func (b *natsBroker) close() { b.conn.Close() }

// after reads the messages of a topic that come after one.
func (b *natsBroker) after(ctx context.Context, topic string, last uint64) (messages [][]byte, err error) {
	stream, err := b.js.Stream(ctx, topic)
	if err != nil {
		return nil, err
	}
	state := stream.CachedInfo().State
	for seq := max(state.FirstSeq, last+1); seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil {
			return nil, err
		}
		messages = append(messages, m.Data)
	}
	return messages, nil
}

func (b *natsBroker) mark() error {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
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

func (b *natsBroker) deadLetters() (letters []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	messages, err := b.after(ctx, deadLetters, 0)
	for _, m := range messages {
		letters = append(letters, plain(string(m)))
	}
	return letters, err
}

func (b *natsBroker) pending() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
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

func (b *natsBroker) replay(topic string) error {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	messages, err := b.after(ctx, topic, b.marks[topic])
	if err != nil {
		return err
	}
	for _, m := range messages {
		// Without a message id, by which the server would know a repetition.
		if _, err := b.js.PublishAsync(topic, m); err != nil {
			return err
		}
	}
	select {
	case <-b.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *natsBroker) send(topic string, message []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	_, err := b.js.Publish(ctx, topic, message)
	return err
}

type redisBroker struct {
	client *redis.Client
	marks  map[string]string // the last entry before, by topic
}

func (b *redisBroker) close() { _ = b.client.Close() } // nothing is waited for

// field is where Dapr's Redis component has the message in an entry of a stream.
const field = "data"

func (b *redisBroker) deadLetters() (letters []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	entries, err := b.client.XRange(ctx, deadLetters, "-", "+").Result()
	for _, e := range entries {
		letters = append(letters, plain(fmt.Sprint(e.Values[field])))
	}
	return letters, err
}

func (b *redisBroker) pending() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
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

func (b *redisBroker) mark() error {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	for _, topic := range topics {
		last, err := b.client.XRevRangeN(ctx, topic, "+", "-", 1).Result()
		if err != nil {
			return err
		}
		b.marks[topic] = "-"
		if len(last) > 0 {
			b.marks[topic] = "(" + last[0].ID
		}
	}
	return nil
}

func (b *redisBroker) replay(topic string) error {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	entries, err := b.client.XRange(ctx, topic, b.marks[topic], "+").Result()
	if err != nil {
		return err
	}
	pipe := b.client.Pipeline()
	for _, e := range entries {
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: topic, Values: e.Values})
	}
	_, err = pipe.Exec(ctx)
	return err
}

func (b *redisBroker) send(topic string, message []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	return b.client.XAdd(ctx, &redis.XAddArgs{Stream: topic, Values: map[string]any{field: message}}).Err()
}
