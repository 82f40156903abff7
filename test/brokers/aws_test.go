package brokers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"
)

// account calls an imitation of AWS as an administrator does, and ends the test when
// it refuses.
type account struct {
	tb testing.TB
	*Server
}

// call is for what speaks JSON: SQS, EventBridge.
func (a account) call(service, target, body string) (answer map[string]any) {
	a.tb.Helper()
	out, err := a.AWS(a.tb.Context(), service, target, body)
	if err != nil {
		a.tb.Fatal(err)
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		a.tb.Fatalf("%s: %v of %s", target, err, out)
	}
	return answer
}

// sns returns the first name of a resource in the answer.
func (a account) sns(action string, parameters url.Values) (arn string) {
	a.tb.Helper()
	parameters.Set("Action", action)
	parameters.Set("Version", "2010-03-31")
	out, err := ask(a.tb.Context(), http.MethodPost, "http://"+a.Address()+"/", http.Header{
		"Content-Type":  {"application/x-www-form-urlencoded"},
		"Authorization": {"AWS4-HMAC-SHA256 Credential=orderflow/20260101/" + awsRegion + "/sns/aws4_request, SignedHeaders=host, Signature=0"},
	}, parameters.Encode())
	if err != nil {
		a.tb.Fatal(err)
	}
	return string(regexp.MustCompile(`arn:aws:[^<]+`).Find(out))
}

// subscribed is a topic, and a queue that gets what is published to it.
func (a account) subscribed(name, queueName string) (topic, queue string) {
	a.tb.Helper()
	topic = a.sns("CreateTopic", url.Values{"Name": {name}})
	queue = a.call("sqs", "AmazonSQS.CreateQueue", fmt.Sprintf(`{"QueueName":%q}`, queueName))["QueueUrl"].(string)
	attributes := a.call("sqs", "AmazonSQS.GetQueueAttributes", fmt.Sprintf(`{"QueueUrl":%q,"AttributeNames":["QueueArn"]}`, queue))["Attributes"].(map[string]any)
	a.sns("Subscribe", url.Values{"TopicArn": {topic}, "Protocol": {"sqs"}, "Endpoint": {attributes["QueueArn"].(string)}})
	return topic, queue
}

// envelope is what SNS puts into a queue, as far as Dapr's component reads it.
type envelope struct{ Message, TopicArn string }

// received are the messages that wait in the queue.
func (a account) received(queue string) (came []envelope) {
	a.tb.Helper()
	messages, _ := a.call("sqs", "AmazonSQS.ReceiveMessage", fmt.Sprintf(`{"QueueUrl":%q,"WaitTimeSeconds":10,"MaxNumberOfMessages":10}`, queue))["Messages"].([]any)
	for _, m := range messages {
		var e envelope
		if err := json.Unmarshal([]byte(m.(map[string]any)["Body"].(string)), &e); err != nil {
			a.tb.Fatal(err)
		}
		came = append(came, e)
	}
	return came
}

// A kill takes the messages, and leaves topics, queues and who is subscribed.
func TestKilledQueuesAreThereAgain(t *testing.T) {
	a := account{t, Start(t, "fauxqs")}
	topic, queue := a.subscribed("order-events", "inventory-order-events")
	a.sns("Publish", url.Values{"TopicArn": {topic}, "Message": {"before"}})
	for range 2 { // the second start reads the journal, too
		if err := a.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	a.sns("Publish", url.Values{"TopicArn": {topic}, "Message": {"after"}})
	if got := a.received(queue); !slices.Equal(got, []envelope{{"after", topic}}) {
		t.Errorf("%+v wait, want what came after the kill, once", got)
	}
}

// An event of an EventBridge bus gets to a service through a rule, our topic and the
// service's queue, as docs/brokers.md says, and is there what Dapr's component reads.
func TestEventBridge(t *testing.T) {
	a := account{t, Start(t, "ministack")}
	topic, queue := a.subscribed("order-events", "inventory-order-events")
	a.call("events", "AWSEvents.CreateEventBus", `{"Name":"partners"}`)
	a.call("events", "AWSEvents.PutRule", `{"Name":"orders-from-partners","EventBusName":"partners","EventPattern":"{\"source\":[\"partner.shop\"],\"detail-type\":[\"ORDER_CREATED\"]}"}`)
	a.call("events", "AWSEvents.PutTargets", fmt.Sprintf(`{"Rule":"orders-from-partners","EventBusName":"partners","Targets":[{"Id":"order-events","Arn":%q,"InputPath":"$.detail"}]}`, topic))

	event, err := os.ReadFile("../../events/examples/ORDER_CREATED.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := json.Marshal(map[string]any{"Entries": []map[string]string{
		{"EventBusName": "partners", "Source": "somebody.else", "DetailType": "ORDER_CREATED", "Detail": `{"not":"ours"}`},
		{"EventBusName": "partners", "Source": "partner.shop", "DetailType": "ORDER_CREATED", "Detail": string(event)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if answer := a.call("events", "AWSEvents.PutEvents", string(entries)); answer["FailedEntryCount"] != 0.0 {
		t.Fatal(answer)
	}

	came := a.received(queue)
	if len(came) != 1 {
		t.Fatalf("%d messages, want 1: %v", len(came), came)
	}
	var got, want any
	if err := json.Unmarshal([]byte(came[0].Message), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(event, &want); err != nil {
		t.Fatal(err)
	}
	if came[0].TopicArn != topic || !reflect.DeepEqual(got, want) {
		t.Errorf("through %s: %s", came[0].TopicArn, came[0].Message)
	}
}
