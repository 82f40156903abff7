// Package daprtest is a stand-in for a sidecar in tests of one service: a real
// gRPC server on a loopback port, with state, pub/sub and invocation in memory.
// It does what Dapr's state stores do at their worst, so that code which passes
// here holds on each of them:
//
//   - With RedisLike, a transaction applies every operation whose ETag fits and
//     fails if one did not; and it does not refuse to create what exists. A bulk
//     read reads key after key, in any sequence, while others write.
//   - With SQLLike, a transaction applies all or nothing.
package daprtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"

	commonpb "github.com/dapr/dapr/pkg/proto/common/v1"
	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"
	dapr "github.com/dapr/go-sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"orderflow/events"
)

// Mode is how transactions behave.
type Mode int

const (
	RedisLike Mode = iota
	SQLLike
)

// Sidecar is the stand-in.
type Sidecar struct {
	pb.UnimplementedDaprServer

	mode  Mode
	store *Store

	mu        sync.Mutex
	published []events.Event
	replayed  []events.Event
	calls     map[string]int
	fail      func(call string) error
	invoke    func(appID, method string) ([]byte, error)
}

// Start starts a sidecar and a client of it; both end with the test.
func Start(tb testing.TB, mode Mode) (*Sidecar, dapr.Client) {
	tb.Helper()
	s := &Sidecar{mode: mode, store: NewStore(mode), calls: map[string]int{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterDaprServer(server, s)
	go func() { _ = server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
	})
	return s, dapr.NewClientWithConnection(conn)
}

// Fail has f asked before each call and, for a state write, once more after it,
// with the name of the call ("SaveState", "after SaveState"), and before each
// key that a SaveState sets ("save order-1"), for they are set one by one; its
// error is what the client sees. nil ends it.
func (s *Sidecar) Fail(f func(call string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Invoke has f answer service invocation; the method has the query, if any.
func (s *Sidecar) Invoke(f func(appID, method string) ([]byte, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.invoke = f
}

// Published are the events published so far, in order, repetitions included.
func (s *Sidecar) Published() []events.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]events.Event(nil), s.published...)
}

// Replayed are the events published so far to the topic for replays, which any
// event may go to.
func (s *Sidecar) Replayed() []events.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]events.Event(nil), s.replayed...)
}

// Calls counts the calls of a name so far.
func (s *Sidecar) Calls(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[name]
}

// State is what the store holds under key, or nil.
func (s *Sidecar) State(key string) []byte {
	value, _ := s.store.Get(key)
	return value
}

// SetState has the store hold value under key, whatever is there.
func (s *Sidecar) SetState(key, value string) { s.store.Set(key, []byte(value)) }

// Keys counts the keys of the store, but for those that begin with one of the
// prefixes.
func (s *Sidecar) Keys(except ...string) int { return s.store.Keys(except...) }

func (s *Sidecar) begin(call string) error {
	s.mu.Lock()
	s.calls[call]++
	s.mu.Unlock()
	return s.ask(call)
}

func (s *Sidecar) end(call string) error { return s.ask("after " + call) }

func (s *Sidecar) ask(call string) error {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(call)
}

func (s *Sidecar) GetState(_ context.Context, r *pb.GetStateRequest) (*pb.GetStateResponse, error) {
	if err := s.begin("GetState"); err != nil {
		return nil, err
	}
	value, etag := s.store.Get(r.GetKey())
	return &pb.GetStateResponse{Data: value, Etag: etag}, nil
}

func (s *Sidecar) GetBulkState(_ context.Context, r *pb.GetBulkStateRequest) (*pb.GetBulkStateResponse, error) {
	if err := s.begin("GetBulkState"); err != nil {
		return nil, err
	}
	resp := &pb.GetBulkStateResponse{}
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	for _, i := range rand.Perm(len(r.GetKeys())) {
		item := &pb.BulkStateItem{Key: r.GetKeys()[i]}
		item.Data, item.Etag = s.store.get(item.GetKey())
		resp.Items = append(resp.Items, item)
		if s.mode == RedisLike {
			s.store.mu.Unlock()
			runtime.Gosched()
			s.store.mu.Lock()
		}
	}
	return resp, nil
}

// SaveState sets each item by itself: what does not fit is left out.
func (s *Sidecar) SaveState(_ context.Context, r *pb.SaveStateRequest) (*emptypb.Empty, error) {
	if err := s.begin("SaveState"); err != nil {
		return nil, err
	}
	var failed error
	for _, item := range r.GetStates() {
		if err := s.ask("save " + item.GetKey()); err != nil {
			failed = err
			continue
		}
		if err := s.store.Save(item); err != nil {
			failed = err
		}
	}
	if failed != nil {
		return nil, failed
	}
	return &emptypb.Empty{}, s.end("SaveState")
}

func (s *Sidecar) ExecuteStateTransaction(_ context.Context, r *pb.ExecuteStateTransactionRequest) (*emptypb.Empty, error) {
	if err := s.begin("ExecuteStateTransaction"); err != nil {
		return nil, err
	}
	items := make([]*commonpb.StateItem, len(r.GetOperations()))
	for i, op := range r.GetOperations() {
		items[i] = op.GetRequest()
	}
	if err := s.store.Transact(items...); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.end("ExecuteStateTransaction")
}

func (s *Sidecar) PublishEvent(_ context.Context, r *pb.PublishEventRequest) (*emptypb.Empty, error) {
	if err := s.begin("PublishEvent"); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.publish(r.GetPubsubName(), r.GetTopic(), r.GetDataContentType(), r.GetMetadata(), r.GetData())
}

func (s *Sidecar) BulkPublishEvent(_ context.Context, r *pb.BulkPublishRequest) (*pb.BulkPublishResponse, error) {
	if err := s.begin("BulkPublishEvent"); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, entry := range r.GetEntries() {
		if seen[entry.GetEntryId()] {
			return nil, status.Error(codes.InvalidArgument, "entry id is not unique: "+entry.GetEntryId())
		}
		seen[entry.GetEntryId()] = true
		if err := s.publish(r.GetPubsubName(), r.GetTopic(), entry.GetContentType(), entry.GetMetadata(), entry.GetEvent()); err != nil {
			return nil, err
		}
	}
	return &pb.BulkPublishResponse{}, nil
}

// publish takes an event that comes as every event must: as a CloudEvent to the
// component and topic of its type, with its subject for a partition key.
func (s *Sidecar) publish(component, topic, contentType string, metadata map[string]string, body []byte) error {
	e, err := events.Parse(body)
	again := topic == events.TopicReplay
	if err == nil && (component != topic || !again && topic != e.Topic() || contentType != events.ContentType || metadata["partitionKey"] != e.Subject) {
		err = fmt.Errorf("%s came as %s to %s of %s with %v", e.Type, contentType, topic, component, metadata)
	}
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if again {
		s.replayed = append(s.replayed, e)
		return nil
	}
	s.published = append(s.published, e)
	return nil
}

func (s *Sidecar) InvokeService(_ context.Context, r *pb.InvokeServiceRequest) (*commonpb.InvokeResponse, error) {
	if err := s.begin("InvokeService"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	invoke := s.invoke
	s.mu.Unlock()
	if invoke == nil {
		return nil, status.Error(codes.Internal, "no such app: "+r.GetId())
	}
	method := r.GetMessage().GetMethod()
	if query := r.GetMessage().GetHttpExtension().GetQuerystring(); query != "" {
		method += "?" + query
	}
	body, err := invoke(r.GetId(), method)
	if err != nil {
		return nil, err
	}
	return &commonpb.InvokeResponse{Data: &anypb.Any{Value: body}, ContentType: "application/json"}, nil
}
