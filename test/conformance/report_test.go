package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// report is the outcome of one combination of broker and store.
type report struct {
	Broker  string    `json:"broker"`
	State   string    `json:"state"`
	Begun   time.Time `json:"begun"`
	Seconds float64   `json:"seconds"`
	Machine string    `json:"machine"`
	Cases   []outcome `json:"cases"`
	// Measured are figures by name: nothing is asserted of them.
	Measured map[string]float64 `json:"measured"`
}

type outcome struct {
	Name    string  `json:"name"`
	Passed  bool    `json:"passed"`
	Seconds float64 `json:"seconds"`
}

// record runs a case and notes how it went, also if it ends early.
func (r *report) record(t *testing.T, name string, run func(*testing.T)) {
	begin := time.Now()
	defer func() {
		r.Cases = append(r.Cases, outcome{name, !t.Failed(), time.Since(begin).Seconds()})
	}()
	run(t)
}

// measured notes a figure.
func (r *report) measured(t *testing.T, name string, value float64) {
	t.Helper()
	if r.Measured == nil {
		r.Measured = map[string]float64{}
	}
	r.Measured[name] = value
	t.Logf("%s: %.1f", name, value)
}

func (r *report) print(w io.Writer) {
	r.Seconds = time.Since(r.Begun).Seconds()
	r.Machine = fmt.Sprintf("%s/%s, %d CPUs, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	fmt.Fprintf(w, "\nconformance: broker %s, state %s, %.0f s\n", r.Broker, r.State, r.Seconds)
	for _, c := range r.Cases {
		verdict := "ok"
		if !c.Passed {
			verdict = "FAILED"
		}
		fmt.Fprintf(w, "  %-30s %-6s %5.1f s\n", c.Name, verdict, c.Seconds)
	}
	for _, name := range figures {
		if v, ok := r.Measured[name]; ok {
			fmt.Fprintf(w, "  %-30s %8.1f\n", name, v)
		}
	}
}

// figures are the names of what is measured, in the sequence of the table.
var figures = []string{ordersPerSecond, inSequence}

// Marks around the table in docs/brokers.md.
const (
	tableBegins = "<!-- conformance: begin (make conformance-table) -->\n"
	tableEnds   = "<!-- conformance: end -->\n"
)

// writeTable puts the table of all reports in dir into the document at path, between
// the marks.
func writeTable(dir, path string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no reports in %s: run `make conformance` first", dir)
	}
	var reports []report
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r report
		if err := json.Unmarshal(content, &r); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		reports = append(reports, r)
	}
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(document), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the table: %q and %q", path, tableBegins, tableEnds)
	}
	return os.WriteFile(path, []byte(before+tableBegins+table(reports)+tableEnds+after), 0o644)
}

// table is the combinations by the cases, with what was measured.
func table(reports []report) string {
	var b strings.Builder
	b.WriteString("| |")
	for _, r := range reports {
		fmt.Fprintf(&b, " %s<br>%s |", r.Broker, r.State)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(reports)) + "\n")
	row := func(name string, cell func(report) string) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, r := range reports {
			fmt.Fprintf(&b, " %s |", cell(r))
		}
		b.WriteString("\n")
	}
	for _, name := range caseNames() {
		row(name, func(r report) string {
			for _, c := range r.Cases {
				if c.Name == name && c.Passed {
					return "ok"
				} else if c.Name == name {
					return "**fails**"
				}
			}
			return "not run"
		})
	}
	for _, name := range figures {
		row(name, func(r report) string {
			if v, ok := r.Measured[name]; ok {
				return fmt.Sprintf("%.0f", v)
			}
			return "-"
		})
	}
	row("seconds for all of it", func(r report) string { return fmt.Sprintf("%.0f", r.Seconds) })
	row("date", func(r report) string { return r.Begun.Format(time.DateOnly) })
	return b.String()
}

// caseNames are the names of all cases in their sequence.
func caseNames() []string {
	names := []string{lateSubscriber}
	for _, c := range all {
		names = append(names, c.name)
	}
	return names
}

// save writes the report as JSON into dir, in the place of an earlier one about the
// same combination; not one of a part of the cases.
func (r *report) save(dir string) error {
	if len(r.Cases) < len(caseNames()) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Broker+"-"+r.State+".json"), append(content, '\n'), 0o644)
}
