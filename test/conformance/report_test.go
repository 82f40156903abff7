package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
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

// save writes the report as JSON into dir, in the place of an earlier one about the
// same combination.
func (r *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Broker+"-"+r.State+".json"), append(content, '\n'), 0o644)
}
