package saga

import (
	"context"
	"fmt"
	"strings"

	commonpb "github.com/dapr/dapr/pkg/proto/common/v1"
	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"
	dapr "github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"orderflow/events"
)

// client is an instance's sidecar without the network. Everything that is asked
// of it is a step that the schedule lets happen, or not. Methods of dapr.Client
// that are not here are called by no service.
type client struct {
	dapr.Client
	in *instance
}

func (c client) GetState(ctx context.Context, _, key string, _ map[string]string) (*dapr.StateItem, error) {
	item := &dapr.StateItem{Key: key}
	err := c.in.do(ctx, reading, "reads", part{key, func() error {
		item.Value, item.Etag = c.in.store().Get(key)
		return nil
	}})
	return item, err
}

// GetBulkState reads key after key, others may write in between. A SQL database
// would read all at one moment, which is one of the schedules.
func (c client) GetBulkState(ctx context.Context, _ string, keys []string, _ map[string]string, _ int32) ([]*dapr.BulkStateItem, error) {
	items := make([]*dapr.BulkStateItem, len(keys))
	parts := make([]part, len(keys))
	for i, key := range keys {
		items[i] = &dapr.BulkStateItem{Key: key}
		parts[i] = part{key, func() error {
			items[i].Value, items[i].Etag = c.in.store().Get(key)
			return nil
		}}
	}
	return items, c.in.do(ctx, reading, "reads", parts...)
}

// SaveBulkState saves item after item, in any sequence.
func (c client) SaveBulkState(ctx context.Context, _ string, items ...*dapr.SetStateItem) error {
	var parts []part
	for _, item := range items {
		parts = append(parts, part{item.Key, func() error {
			c.in.changed(item.Key)
			return c.in.store().Save(stateItem(item))
		}})
	}
	return c.in.do(ctx, writing, "saves", parts...)
}

func (c client) ExecuteStateTransaction(ctx context.Context, _ string, _ map[string]string, ops []*dapr.StateOperation) error {
	var keys []string
	var items []*commonpb.StateItem
	for _, op := range ops {
		keys = append(keys, op.Item.Key)
		items = append(items, stateItem(op.Item))
	}
	return c.in.do(ctx, writing, "saves", part{"together " + strings.Join(keys, ", "), func() error {
		c.in.changed(keys...)
		return c.in.store().Transact(items...)
	}})
}

func stateItem(i *dapr.SetStateItem) *commonpb.StateItem {
	item := &commonpb.StateItem{Key: i.Key, Value: i.Value}
	if i.Etag != nil {
		item.Etag = &commonpb.Etag{Value: i.Etag.Value}
	}
	if i.Options != nil { // without options the SDK asks for last-write
		item.Options = &commonpb.StateOptions{Concurrency: commonpb.StateOptions_StateConcurrency(i.Options.Concurrency)}
	}
	return item
}

func (c client) PublishEvent(ctx context.Context, component, topic string, data any, options ...dapr.PublishEventOption) error {
	r := &pb.PublishEventRequest{PubsubName: component, Topic: topic, Data: data.([]byte)}
	for _, option := range options {
		option(r)
	}
	m, err := newMessage(r.GetPubsubName(), r.GetTopic(), r.GetDataContentType(), r.GetData())
	if err != nil {
		return err
	}
	return c.in.do(ctx, publishing, "publishes", part{m.id, func() error { c.in.world.broker.take(m); return nil }})
}

// PublishEvents publishes event after event, as a bulk publish does on most
// brokers; one that fails is everyone's failure.
func (c client) PublishEvents(ctx context.Context, component, topic string, evs []any, _ ...dapr.PublishEventsOption) dapr.PublishEventsResponse {
	var parts []part
	for _, v := range evs {
		e := v.(dapr.PublishEventsEvent)
		m, err := newMessage(component, topic, e.ContentType, e.Data)
		if err != nil {
			return dapr.PublishEventsResponse{Error: err}
		}
		parts = append(parts, part{m.id, func() error { c.in.world.broker.take(m); return nil }})
	}
	return dapr.PublishEventsResponse{Error: c.in.do(ctx, publishing, "publishes", parts...)}
}

// InvokeMethod has any living replica of the other service answer.
func (c client) InvokeMethod(ctx context.Context, app, method, verb string) ([]byte, error) {
	if verb != "get" {
		return nil, status.Error(codes.Unimplemented, verb)
	}
	var other *instance
	err := c.in.do(ctx, reading, "asks "+app+" for", part{method, func() error {
		other = c.in.world.replica(app, c.in.direct)
		return nil
	}})
	if err != nil {
		return nil, err
	}
	answer := other.request(ctx, "GET", "/"+method, nil, nil)
	switch {
	case other.dead():
		return nil, status.Error(codes.Unavailable, "connection reset")
	case answer.Code == 404:
		return nil, status.Error(codes.NotFound, answer.Body.String())
	case answer.Code/100 != 2:
		return nil, status.Error(codes.Internal, answer.Body.String())
	}
	return answer.Body.Bytes(), nil
}

// message is an event on its way.
type message struct {
	topic, id string
	body      []byte
}

func newMessage(component, topic, contentType string, body []byte) (message, error) {
	e, err := events.Parse(body)
	if err == nil && (component != topic || contentType != events.ContentType) {
		err = fmt.Errorf("%s came as %s to %s of %s", e.ID, contentType, topic, component)
	}
	if err == nil && e.Topic() != topic {
		err = fmt.Errorf("%s came to %s", e.ID, topic)
	}
	return message{topic, e.ID, body}, err
}

var _ dapr.Client = client{}
