// Package doctor reads the YAML that a set of Dapr sidecars would load, as each of
// them would see it, and finds what loses events or stalls. It knows the defaults and
// the habits of Dapr 1.18 and of the components of that release; each rule names
// the place in their source that it rests on.
//
// It sees YAML only: an app that subscribes in code is not seen to.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says what comes of a finding.
type Severity string

const (
	// Loses: an event that was accepted never takes effect, or is put with the dead
	// letters for no fault of its own.
	Loses Severity = "loses events"
	// Stalls: a sidecar doesn't start, or deliveries stand still.
	Stalls Severity = "stalls"
	// Risk: it goes well until something else happens.
	Risk Severity = "risk"
)

// Grave says whether a system with such a finding should not be started.
func (s Severity) Grave() bool { return s != Risk }

// Finding is one place in the YAML that a rule speaks against.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Resource string   `json:"resource"`       // its kind and name
	Apps     []string `json:"apps,omitempty"` // whose sidecars it is about
	Reason   string   `json:"reason"`
	Write    string   `json:"write"`  // the lines that mend it
	Source   string   `json:"source"` // where Dapr does so
}

// Rule is one thing that can be wrong.
type Rule struct {
	ID       string
	Severity Severity
	On       string // what it is about
	What     string // what it finds
	Source   string // the place in Dapr's source
	check    func(*sidecar, reporter)
}

// place is a line of a resource.
type place struct {
	*resource
	line int
}

// reporter takes a finding: where, what to write, and why.
type reporter func(at place, write, why string)

// Rules are all of them, in the order in which they are documented.
func Rules() []Rule {
	return slices.Concat(subscriptionRules, resiliencyRules, redisRules, jetstreamRules, rabbitRules,
		kafkaRules, snssqsRules, mqttRules, stateRules, setRules, liveRules)
}

// Table is the rules in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| rule | severity | on | finds |\n|---|---|---|---|\n")
	for _, r := range Rules() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.ID, r.Severity, r.On, r.What)
	}
	return b.String()
}

// Check applies all rules that need nothing but the YAML. Each finding is told once,
// with all apps it is about, in the order of files and lines.
func (s *Set) Check() ([]Finding, error) {
	var all []Finding
	for _, rule := range Rules() {
		if rule.check == nil {
			continue
		}
		for _, sc := range s.sidecars {
			rule.check(sc, func(at place, write, why string) {
				all = append(all, rule.at(at, sc.app, write, why))
			})
		}
	}
	differences, err := s.compareFolders()
	if err != nil {
		return nil, err
	}
	return Merge(append(all, differences...)), nil
}

func (r Rule) at(at place, app, write, why string) Finding {
	return Finding{
		Rule: r.ID, Severity: r.Severity, File: at.file, Line: at.line, Resource: at.kind + " " + at.name,
		Apps: []string{app}, Reason: why, Write: write, Source: r.Source,
	}
}

// Merge makes one of findings that say the same of different apps, and sorts.
func Merge(all []Finding) []Finding {
	var merged []Finding
	for _, f := range all {
		same := slices.IndexFunc(merged, func(m Finding) bool {
			return m.Rule == f.Rule && m.File == f.File && m.Line == f.Line && m.Reason == f.Reason && m.Write == f.Write
		})
		if same < 0 {
			merged = append(merged, f)
			continue
		}
		apps := append(slices.Clone(merged[same].Apps), f.Apps...)
		slices.Sort(apps)
		merged[same].Apps = slices.Compact(apps)
	}
	slices.SortStableFunc(merged, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
	})
	return merged
}

// line is an entry of a component's metadata.
func line(name, value string) string { return fmt.Sprintf("- name: %s\n  value: %q", name, value) }
