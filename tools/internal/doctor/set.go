package doctor

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"orderflow/tools/internal/runfile"
)

// Set is everything that a set of sidecars loads, each what is in its own paths and
// scope.
type Set struct {
	sidecars     []*sidecar
	alternatives []string    // folders that hold alternatives of each other: components/broker
	others       []*resource // each a Resiliency near the loaded ones that nobody loads
}

// sidecar is one app's.
type sidecar struct {
	app           string
	dir           string // it runs in
	set           *Set
	components    []*component
	subscriptions []*subscription
	policies      *policies
	configuration *resource

	loaded  []*resource // also what is not in its scope
	ignored []*resource // each a Resiliency that is not the first document of its file
}

// appFiles is what an app's sidecar is started with.
type appFiles struct {
	id, dir       string
	paths         []string
	configuration string
}

// FromApps reads what the sidecars of a run file's apps would. Where a path of
// theirs is components/<kind>/<name>, the other folders of that kind are compared
// with it.
func FromApps(apps []runfile.App) (*Set, error) {
	var files []appFiles
	var alternatives []string
	loaded := map[string]map[string]bool{} // paths by the folder that they are in
	for _, app := range apps {
		files = append(files, appFiles{app.AppID, app.AppDirPath, app.ResourcesPaths, app.ConfigFilePath})
		for _, path := range app.ResourcesPaths {
			path = filepath.Clean(path)
			kind := filepath.Dir(path)
			if loaded[kind] == nil {
				loaded[kind] = map[string]bool{}
			}
			loaded[kind][path] = true
			if runfile.IsAlternative(path) && !slices.Contains(alternatives, kind) {
				alternatives = append(alternatives, kind)
			}
		}
	}
	set, err := newSet(files)
	if err != nil {
		return nil, err
	}
	set.alternatives = alternatives
	for parent, paths := range loaded {
		look := slices.Collect(maps.Keys(paths))
		// A folder of components beside others is easily forgotten. Beside a single
		// one may be anything: what is for Kubernetes, for one.
		if !slices.Contains(alternatives, parent) && (len(paths) > 1 || filepath.Base(parent) == "components") {
			look = append(look, parent)
		}
		for _, dir := range look {
			if err := set.lookIn(dir); err != nil {
				return nil, err
			}
		}
	}
	return set, nil
}

// FromDirs takes the folders for the resource paths of every app that is named in
// a scope somewhere in them. configuration may be "".
func FromDirs(dirs []string, configuration string) (*Set, error) {
	var ids []string
	total := 0
	for _, dir := range dirs {
		resources, err := readDir(dir)
		if err != nil {
			return nil, err
		}
		for _, r := range resources {
			total++
			ids = append(ids, r.scopes...)
			if r.kind == "Configuration" && configuration == "" {
				configuration = r.file
			}
			if r.kind == "Component" {
				for _, scope := range []string{"publishingScopes", "subscriptionScopes"} {
					for app := range appTopics(newComponent(r).value(scope, "")) {
						ids = append(ids, app)
					}
				}
			}
		}
	}
	if total == 0 {
		return nil, fmt.Errorf("no Dapr resources in %s (folders below are not read, as by a sidecar: name each)", strings.Join(dirs, ", "))
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 0 {
		ids = []string{"any app"}
	}
	var files []appFiles
	for _, id := range ids {
		files = append(files, appFiles{id, ".", dirs, configuration})
	}
	set, err := newSet(files)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if err := set.lookIn(dir); err != nil {
			return nil, err
		}
	}
	return set, nil
}

func newSet(apps []appFiles) (*Set, error) {
	set := &Set{}
	read := map[string][]*resource{} // by folder, so that what is shared is one
	for _, app := range apps {
		s := &sidecar{app: app.id, dir: app.dir, set: set}
		for _, dir := range app.paths {
			if _, ok := read[dir]; !ok {
				resources, err := readDir(dir)
				if err != nil {
					return nil, err
				}
				read[dir] = resources
			}
			s.loaded = append(s.loaded, read[dir]...)
		}
		s.sort()
		if err := s.readConfiguration(app.configuration); err != nil {
			return nil, err
		}
		set.sidecars = append(set.sidecars, s)
	}
	return set, nil
}

// sort puts what is in the sidecar's scope where it belongs.
func (s *sidecar) sort() {
	var resiliencies []*resource
	for _, r := range s.loaded {
		if !r.inScope(s.app) {
			continue
		}
		switch {
		case r.kind == "Component":
			s.components = append(s.components, newComponent(r))
		case r.kind == "Subscription":
			s.subscriptions = append(s.subscriptions, newSubscription(r))
		case r.kind == "Resiliency" && r.document > 0:
			s.ignored = append(s.ignored, r)
		case r.kind == "Resiliency":
			resiliencies = append(resiliencies, r)
		}
	}
	s.policies = newPolicies(resiliencies)
}

// readConfiguration reads the Configuration; a file that isn't there counts as
// none: the CLI's own is only there after `dapr init`.
func (s *sidecar) readConfiguration(file string) error {
	if file == "" {
		return nil
	}
	resources, err := readFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, r := range resources {
		if r.kind == "Configuration" {
			s.configuration = r
		}
	}
	return nil
}

// lookIn looks for policies in the folders directly in dir that no sidecar loads
// from there.
func (s *Set) lookIn(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		below := filepath.Join(dir, entry.Name())
		if !entry.IsDir() || strings.HasPrefix(entry.Name(), ".") || s.loads(below) {
			continue
		}
		files, err := os.ReadDir(below)
		if err != nil {
			return err
		}
		for _, f := range files {
			file := filepath.Join(below, f.Name())
			if f.IsDir() || !isYAML(f.Name()) {
				continue
			}
			resources, err := readFile(file)
			if err != nil {
				continue // not the sidecars', so none of ours to complain of
			}
			for _, r := range resources {
				if r.kind == "Resiliency" {
					s.others = append(s.others, r)
				}
			}
		}
	}
	return nil
}

func (s *Set) loads(dir string) bool {
	for _, sc := range s.sidecars {
		for _, r := range sc.loaded {
			if filepath.Dir(r.file) == filepath.Clean(dir) {
				return true
			}
		}
	}
	return false
}

// with is the sidecar with those of its components that keep takes.
func (s *sidecar) with(keep func(*component) bool) *sidecar {
	some := *s
	some.components = nil
	for _, c := range s.components {
		if keep(c) {
			some.components = append(some.components, c)
		}
	}
	return &some
}

// component is the one of the name that the sidecar loads, or nil.
func (s *sidecar) component(name string) *component {
	for _, c := range s.components {
		if c.name == name {
			return c
		}
	}
	return nil
}

// reads are the sidecar's subscriptions to the component.
func (s *sidecar) reads(c *component) []*subscription {
	var all []*subscription
	for _, sub := range s.subscriptions {
		if sub.pubsub == c.name {
			all = append(all, sub)
		}
	}
	return all
}

// reads says whether any YAML subscribes to the component of that name.
func (s *Set) reads(component string) bool {
	for _, sc := range s.sidecars {
		for _, sub := range sc.subscriptions {
			if sub.pubsub == component {
				return true
			}
		}
	}
	return false
}

// reader finds a subscription to the topic through a component of the kind, by
// whichever app is allowed to.
func (s *Set) reader(kind, topic string) (*component, *subscription) {
	for _, sc := range s.sidecars {
		for _, sub := range sc.subscriptions {
			c := sc.component(sub.pubsub)
			if c != nil && c.kind == kind && sub.topic == topic && c.maySubscribe(sc.app, topic) {
				return c, sub
			}
		}
	}
	return nil, nil
}
