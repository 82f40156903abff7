package dapr

import (
	"testing"
	"time"

	"github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/components-contrib/pubsub/aws/snssqs"
	"github.com/dapr/components-contrib/pubsub/jetstream"
	"github.com/dapr/components-contrib/pubsub/kafka"
	mqtt3 "github.com/dapr/components-contrib/pubsub/mqtt3"
	"github.com/dapr/components-contrib/pubsub/rabbitmq"
	"github.com/dapr/components-contrib/pubsub/redis"
	conformance "github.com/dapr/components-contrib/tests/conformance/pubsub"
	"github.com/dapr/kit/logger"
)

// pubsubs are the components by the type that their files name, with what Dapr's
// own list of tests (tests/config/pubsub/tests.yml) tries of each.
var pubsubs = map[string]struct {
	make func(logger.Logger) pubsub.PubSub
	// operations beyond those that all have.
	operations []string
	// inOrder: messages come in the sequence in which they were sent, so that the suite
	// may look for it.
	inOrder bool
	// subscribe is metadata of the subscriptions in components/shared.
	subscribe map[string]string
	// publish is metadata that the services send with each event.
	publish map[string]string
	// fails are the suite's tests that can't pass, and why that does no harm here.
	fails map[string]string
}{
	"pubsub.redis":    {make: redis.NewRedisStreams},
	"pubsub.kafka":    {make: kafka.NewKafka, operations: []string{"bulkpublish", "bulksubscribe"}, inOrder: true, publish: map[string]string{"partitionKey": "o-1"}},
	"pubsub.rabbitmq": {make: rabbitmq.NewRabbitMQ, subscribe: map[string]string{"queueType": "quorum"}},
	"pubsub.jetstream": {make: jetstream.NewJetStream, inOrder: true, fails: map[string]string{
		"multiple_handlers":                  oneTopic,
		"multiple_handlers/mutiple_handlers": oneTopic,
		"multiple_handlers/stop_subscribers": oneTopic,
	}},
	"pubsub.mqtt3":      {make: mqtt3.NewMQTTPubSub},
	"pubsub.aws.snssqs": {make: snssqs.NewSnsSqs},
}

const oneTopic = "a durable consumer serves one subject, so that a component serves one topic: every broker here has a component for each"

// TestPubSub runs Dapr's suite on the component of orders' events, the file as a
// sidecar would read it.
func TestPubSub(t *testing.T) {
	broker := chosen(t, "BROKER")
	kind := load(t, "broker/"+broker+"/order-events.yaml", nil).kind
	known, ok := pubsubs[kind]
	if !ok {
		t.Fatalf("no component %s is built into this test", kind)
	}
	run(t, known.fails, func(t *testing.T) {
		c := load(t, "broker/"+broker+"/order-events.yaml", secretsOf(t, broker))
		config, err := conformance.NewTestConfig(broker, known.operations, map[string]any{
			"pubsubName":             "order-events",
			"testTopicName":          "order-events",
			"checkInOrderProcessing": known.inOrder,
			"subscribeMetadata":      known.subscribe,
			"publishMetadata":        known.publish,
			"maxReadDuration":        30 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		conformance.ConformanceTests(t, c.properties, known.make(logger.NewLogger("test")), config)
	})
}
