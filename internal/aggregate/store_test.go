package aggregate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	dapr "github.com/dapr/go-sdk/client"

	"orderflow/internal/daprtest"
)

func TestLoadAndWriteAreCutIntoCallsThatFit(t *testing.T) {
	inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
		var keys []string
		var docs []Document
		for i := range 2*maxReadKeys + 1 {
			key := fmt.Sprint("k", i)
			keys = append(keys, key)
			docs = append(docs, Document{Key: key, Value: []byte("1")})
		}
		// 5 MiB more: over the limit of a gRPC message.
		for i := range 5 {
			key := fmt.Sprint("large", i)
			docs = append(docs, Document{Key: key, Value: bytes.Repeat([]byte("x"), 1<<20)})
		}
		noErrors(t, store.Write(t.Context(), docs...))

		loaded, err := store.Load(t.Context(), keys...)
		noErrors(t, err)
		if n := s.Calls("GetBulkState"); n != 3 {
			t.Errorf("%d loads of %d keys, want 3", n, len(keys))
		}
		var changed []Document
		for _, key := range keys {
			d := loaded[key]
			if string(d.Value) != "1" || d.ETag == "" {
				t.Fatalf("%s is %+v", key, d)
			}
			d.Value = []byte("2")
			changed = append(changed, d)
		}
		for i := range 5 {
			one, err := store.Load(t.Context(), fmt.Sprint("large", i))
			noErrors(t, err)
			d := one[fmt.Sprint("large", i)]
			if len(d.Value) != 1<<20 {
				t.Fatalf("large document of %d bytes", len(d.Value))
			}
			d.Value = bytes.Repeat([]byte("y"), 1<<20)
			changed = append(changed, d)
		}
		noErrors(t, store.Write(t.Context(), changed...))
		if string(s.State("k0")) != "2" || s.State("large4")[0] != 'y' {
			t.Error("not changed")
		}
		if err := store.Write(t.Context(), changed...); err == nil {
			t.Error("written once more with the old ETags")
		}
	})
}

// What a caller no longer waits for is not cut off in the sidecar.
func TestReadIsCarriedThroughWhenItsCallerLeaves(t *testing.T) {
	client := slowClient{asked: make(chan context.Context), answer: make(chan struct{})}
	defer close(client.answer)
	ctx, leave := context.WithCancel(t.Context())
	outcome := make(chan error)
	go func() {
		_, err := NewStore(client, "statestore").Load(ctx, "k")
		outcome <- err
	}()
	asked := <-client.asked
	leave()
	if err := <-outcome; !errors.Is(err, ErrNotLoaded) || !errors.Is(err, context.Canceled) {
		t.Errorf("the caller got %v", err)
	}
	if err := asked.Err(); err != nil {
		t.Errorf("the sidecar got %v", err)
	}
	if _, ok := asked.Deadline(); !ok {
		t.Error("the sidecar is asked without a deadline")
	}
}

// slowClient answers reads when it is told to.
type slowClient struct {
	dapr.Client
	asked  chan context.Context
	answer chan struct{}
}

func (c slowClient) GetState(ctx context.Context, _, _ string, _ map[string]string) (*dapr.StateItem, error) {
	c.asked <- ctx
	<-c.answer
	return &dapr.StateItem{}, nil
}

func TestWriteOfAKeyThatChangedMeanwhileFails(t *testing.T) {
	inBothModes(t, func(t *testing.T, s *daprtest.Sidecar, store *Store) {
		noErrors(t, store.Write(t.Context(), Document{Key: "k", Value: []byte("1")}))
		docs, err := store.Load(t.Context(), "k")
		noErrors(t, err)
		d := docs["k"]
		d.Value = []byte("2")
		noErrors(t, store.Write(t.Context(), d))
		d.Value = []byte("3")
		if err := store.Write(t.Context(), d); err == nil {
			t.Error("an old ETag was taken")
		}
		if err := store.Write(t.Context(), Document{Key: "k", Value: []byte("4")}); err == nil {
			t.Error("what exists was created")
		}
		if got := string(s.State("k")); got != "2" {
			t.Errorf("k is %s", got)
		}
	})
}

func TestFailureOfAWriteDoesNotEndTheOther(t *testing.T) {
	s, client := daprtest.Start(t, daprtest.RedisLike)
	store := NewStore(client, "statestore")
	noErrors(t, store.Write(t.Context(), Document{Key: "a", Value: []byte("1")}, Document{Key: "b", Value: []byte("1")}))
	docs, err := store.Load(t.Context(), "a", "b")
	noErrors(t, err)
	reached, open := make(chan struct{}), make(chan struct{})
	s.Fail(func(call string) error {
		switch call {
		case "SaveState":
			<-reached
			return errors.New("injected")
		case "ExecuteStateTransaction":
			close(reached)
			<-open
		}
		return nil
	})
	a, b := docs["a"], docs["b"]
	a.Value, b.Value = []byte("2"), []byte("2")
	done := make(chan error, 1)
	go func() { done <- store.Write(t.Context(), a, b, Document{Key: "new", Value: []byte("1")}) }()
	receive(t, reached, "the transaction")
	select {
	case err := <-done:
		t.Errorf("Write returned %v while a transaction was under way", err)
	case <-time.After(50 * time.Millisecond): // the save failed long ago
	}
	close(open)
	if err := receive(t, done, "Write"); err == nil || !strings.Contains(err.Error(), "injected") {
		t.Errorf("%v, want the save's error", err)
	}
	if got := string(s.State("a")) + string(s.State("b")); got != "22" {
		t.Errorf("a and b are %s", got)
	}
}

func TestLoadFailsIfAKeyCannotBeRead(t *testing.T) {
	s, client := daprtest.Start(t, daprtest.RedisLike)
	store := NewStore(client, "statestore")
	s.Fail(func(string) error { return errors.New("down") })
	for _, keys := range [][]string{{"a"}, {"a", "b"}} {
		if docs, err := store.Load(t.Context(), keys...); err == nil || !strings.Contains(err.Error(), "load") {
			t.Errorf("%v: %v, %v", keys, docs, err)
		}
	}
}
