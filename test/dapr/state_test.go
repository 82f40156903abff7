package dapr

import (
	"testing"

	"github.com/dapr/components-contrib/state"
	"github.com/dapr/components-contrib/state/aws/dynamodb"
	"github.com/dapr/components-contrib/state/mongodb"
	postgresql "github.com/dapr/components-contrib/state/postgresql/v2"
	"github.com/dapr/components-contrib/state/redis"
	"github.com/dapr/components-contrib/state/sqlite"
	conformance "github.com/dapr/components-contrib/tests/conformance/state"
	"github.com/dapr/kit/logger"
)

// stores are the components by type and version, with what the suite is to try of
// each: transactions, ETags and first-write are what the services stand on.
var stores = map[string]struct {
	make       func(logger.Logger) state.Store
	operations []string
	badETag    string // one that the store takes for an ETag and that is none
	// fails are the suite's tests that can't pass, and why that does no harm here.
	fails map[string]string
}{
	"state.sqlite/v1":     {sqlite.NewSQLiteStateStore, []string{"transaction", "etag", "first-write", "ttl", "actorStateStore", "keyslike"}, "e9b9e142-74b1-4a2e-8e90-3f4ffeea2e70", nil},
	"state.redis/v1":      {redis.NewRedisStateStore, []string{"transaction", "etag", "first-write", "ttl", "actorStateStore", "keyslike"}, "9999999", nil},
	"state.postgresql/v2": {postgresql.NewPostgreSQLStateStore, []string{"transaction", "etag", "first-write", "ttl", "actorStateStore", "keyslike"}, "e9b9e142-74b1-4a2e-8e90-3f4ffeea2e70", nil},
	"state.aws.dynamodb/v1": {dynamodb.NewDynamoDBStateStore, []string{"transaction", "etag", "first-write"}, "bad-etag", map[string]string{
		"ttlExpireTime":                         noTTL,
		"ttlExpireTime/set_and_get_expire_time": noTTL,
		"ttlExpireTime/ttl_set_to_-1_should_remove_the_TTL_of_a_state_store_key": noTTL,
		"ttlExpireTime/set_and_get_expire_time_bulkGet":                          noTTL,
	}},
	"state.mongodb/v1": {mongodb.NewMongoDB, []string{"transaction", "etag", "first-write", "query", "ttl", "actorStateStore", "keyslike"}, "bad-etag", nil},
}

const noTTL = "the file names no attribute for a time to live: no service asks for one"

// TestState runs Dapr's suite on the state component, the file as a sidecar would
// read it.
func TestState(t *testing.T) {
	folder := chosen(t, "STATE")
	name := load(t, "state/"+folder+"/statestore.yaml", nil).String()
	known, ok := stores[name]
	if !ok {
		t.Fatalf("no component %s is built into this test", name)
	}
	run(t, known.fails, func(t *testing.T) {
		c := load(t, "state/"+folder+"/statestore.yaml", secretsOf(t, folder))
		config, err := conformance.NewTestConfig(folder, known.operations, map[string]any{"badEtag": known.badETag})
		if err != nil {
			t.Fatal(err)
		}
		store := known.make(logger.NewLogger("test"))
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		conformance.ConformanceTests(t, c.properties, store, config)
	})
}
