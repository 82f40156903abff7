// Command daprd is the Dapr sidecar, built from the pinned github.com/dapr/dapr
// module with its stable components (-tags stablecomponents) and the two more
// that this project runs on and that Dapr only puts into its "all components"
// build: the JetStream pub/sub, which the embedded broker needs, and the SQLite
// name resolver, which works where multicast (the default resolver) does not.
//
// It is a module of its own so that neither the services nor the launcher move
// the versions that the sidecar was released with. Its SQLite driver is newer on
// purpose (docs/decisions.md).
package main

import (
	"github.com/dapr/components-contrib/nameresolution/sqlite"
	"github.com/dapr/components-contrib/pubsub/jetstream"
	"github.com/dapr/dapr/cmd/daprd/app"
	"github.com/dapr/dapr/pkg/components/nameresolution"
	"github.com/dapr/dapr/pkg/components/pubsub"
)

func main() {
	pubsub.DefaultRegistry.RegisterComponent(jetstream.NewJetStream, "jetstream")
	nameresolution.DefaultRegistry.RegisterComponent(sqlite.NewResolver, "sqlite")
	app.Run()
}
