package doctor

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"orderflow/tools/internal/runfile"
)

// topicSettings are those that say who may say what. They are the same for every
// broker, as the names are, or a swap of the folder changes the system.
var topicSettings = []string{"allowedTopics", "protectedTopics", "publishingScopes", "subscriptionScopes"}

// compareFolders finds where alternatives, of which a sidecar gets one, are no
// alternatives. The one that is in use is the measure of the others.
func (s *Set) compareFolders() ([]Finding, error) {
	var rule Rule
	for _, r := range setRules {
		if r.ID == "folders-differ" {
			rule = r
		}
	}
	var all []Finding
	for _, kind := range s.alternatives {
		var used string
		for _, name := range runfile.Folders(kind) {
			if s.loads(filepath.Join(kind, name)) {
				used = name
				break
			}
		}
		measure, err := readComponents(filepath.Join(kind, used))
		if err != nil {
			return nil, err
		}
		for _, name := range runfile.Folders(kind) {
			if name == used {
				continue
			}
			other, err := readComponents(filepath.Join(kind, name))
			if err != nil {
				return nil, err
			}
			for _, found := range compare(measure, other, used, name) {
				all = append(all, rule.at(found.place, "", found.write, found.why))
			}
		}
	}
	for i := range all {
		all[i].Apps = nil
	}
	return all, nil
}

type difference struct {
	place
	write, why string
}

func compare(measure, other map[string]*component, used, name string) []difference {
	var all []difference
	for _, n := range slices.Sorted(maps.Keys(measure)) {
		m, o := measure[n], other[n]
		if o == nil {
			all = append(all, difference{place{m.resource, m.lineOf("metadata", "name")}, fmt.Sprintf("# in %s/: a component with\nmetadata:\n  name: %s", name, n),
				fmt.Sprintf("%s has %s and %s has not: whoever uses it stands still there.", used, n, name)})
			continue
		}
		if !slices.Equal(sorted(m.scopes), sorted(o.scopes)) {
			all = append(all, difference{place{o.resource, o.lineOf("scopes")}, "scopes: [" + strings.Join(m.scopes, ", ") + "]",
				fmt.Sprintf("Other apps have %s here than in %s.", n, used)})
		}
		for _, setting := range topicSettings {
			if normal(m.value(setting, "")) != normal(o.value(setting, "")) {
				all = append(all, difference{o.place(setting), line(setting, m.value(setting, "")),
					fmt.Sprintf("%s of %s is another one than in %s: what an app may say or hear depends on the broker.", setting, n, used)})
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(other)) {
		if o := other[n]; measure[n] == nil {
			all = append(all, difference{place{o.resource, o.lineOf("metadata", "name")}, fmt.Sprintf("# in %s/: a component with\nmetadata:\n  name: %s", used, n),
				fmt.Sprintf("%s has %s and %s has not: whoever uses it stands still there.", name, n, used)})
		}
	}
	return all
}

func readComponents(dir string) (map[string]*component, error) {
	resources, err := readDir(dir)
	if err != nil {
		return nil, err
	}
	all := map[string]*component{}
	for _, r := range resources {
		if r.kind == "Component" {
			all[r.name] = newComponent(r)
		}
	}
	return all, nil
}

// normal is a list of topics or scopes without regard to its sequence.
func normal(list string) string {
	parts := strings.Split(strings.ReplaceAll(list, " ", ""), ";")
	for i, part := range parts {
		app, topics, ok := strings.Cut(part, "=")
		if !ok {
			app, topics = "", part
		}
		parts[i] = app + "=" + strings.Join(sorted(strings.Split(topics, ",")), ",")
	}
	return strings.Join(sorted(parts), ";")
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }
