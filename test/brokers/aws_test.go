package brokers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"testing"
)

// An event of an EventBridge bus gets to a service through a rule, our topic and the
// service's queue, as docs/brokers.md says, and is there what Dapr's component reads.
func TestEventBridge(t *testing.T) {
	s := Start(t, "ministack")
	call := func(service, target, body string) (answer map[string]any) {
		t.Helper()
		out, err := s.AWS(t.Context(), service, target, body)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &answer); err != nil {
			t.Fatalf("%s: %v of %s", target, err, out)
		}
		return answer
	}
	sns := func(action string, parameters url.Values) string {
		t.Helper()
		parameters.Set("Action", action)
		parameters.Set("Version", "2010-03-31")
		out, err := ask(t.Context(), http.MethodPost, "http://"+s.Address()+"/", http.Header{
			"Content-Type":  {"application/x-www-form-urlencoded"},
			"Authorization": {"AWS4-HMAC-SHA256 Credential=orderflow/20260101/" + awsRegion + "/sns/aws4_request, SignedHeaders=host, Signature=0"},
		}, parameters.Encode())
		if err != nil {
			t.Fatal(err)
		}
		return string(regexp.MustCompile(`arn:aws:[^<]+`).Find(out))
	}

	topic := sns("CreateTopic", url.Values{"Name": {"order-events"}})
	queue := call("sqs", "AmazonSQS.CreateQueue", `{"QueueName":"inventory-order-events"}`)["QueueUrl"].(string)
	attributes := call("sqs", "AmazonSQS.GetQueueAttributes", fmt.Sprintf(`{"QueueUrl":%q,"AttributeNames":["QueueArn"]}`, queue))["Attributes"].(map[string]any)
	sns("Subscribe", url.Values{"TopicArn": {topic}, "Protocol": {"sqs"}, "Endpoint": {attributes["QueueArn"].(string)}})
	call("events", "AWSEvents.CreateEventBus", `{"Name":"partners"}`)
	call("events", "AWSEvents.PutRule", `{"Name":"orders-from-partners","EventBusName":"partners","EventPattern":"{\"source\":[\"partner.shop\"],\"detail-type\":[\"ORDER_CREATED\"]}"}`)
	call("events", "AWSEvents.PutTargets", fmt.Sprintf(`{"Rule":"orders-from-partners","EventBusName":"partners","Targets":[{"Id":"order-events","Arn":%q,"InputPath":"$.detail"}]}`, topic))

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
	if answer := call("events", "AWSEvents.PutEvents", string(entries)); answer["FailedEntryCount"] != 0.0 {
		t.Fatal(answer)
	}

	messages, _ := call("sqs", "AmazonSQS.ReceiveMessage", fmt.Sprintf(`{"QueueUrl":%q,"WaitTimeSeconds":10,"MaxNumberOfMessages":10}`, queue))["Messages"].([]any)
	if len(messages) != 1 {
		t.Fatalf("%d messages, want 1: %v", len(messages), messages)
	}
	var envelope struct{ Message, TopicArn string }
	if err := json.Unmarshal([]byte(messages[0].(map[string]any)["Body"].(string)), &envelope); err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal([]byte(envelope.Message), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(event, &want); err != nil {
		t.Fatal(err)
	}
	if envelope.TopicArn != topic || !reflect.DeepEqual(got, want) {
		t.Errorf("through %s: %s", envelope.TopicArn, envelope.Message)
	}
}
