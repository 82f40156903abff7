package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// report is the outcome of a campaign.
type report struct {
	Broker  string    `json:"broker"`
	State   string    `json:"state"`
	Seed    uint64    `json:"seed"`
	Begun   time.Time `json:"begun"`
	Seconds float64   `json:"seconds"`
	Machine string    `json:"machine"`
	Faults  []*result `json:"faults"`
}

// result is the outcome of all trials of one fault.
type result struct {
	Fault       string    `json:"fault"`
	Trials      int       `json:"trials"`
	Failed      int       `json:"failed"` // trials after which anything was wrong
	Accepted    int       `json:"accepted"`
	Completed   int       `json:"completed"`
	Cancelled   int       `json:"cancelled"`
	Lost        int       `json:"lost"`
	Oversold    int       `json:"oversold"`
	Duplicated  int       `json:"duplicated"`
	DeadLetters int       `json:"deadLetters"`
	Recovery    []float64 `json:"recovery"` // seconds from the end of the fault to the last order's last effect, each trial's
}

func newReport(broker, state string, seed uint64) report {
	return report{
		Broker: broker, State: state, Seed: seed, Begun: time.Now(),
		Machine: fmt.Sprintf("%s/%s, %d CPUs, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
	}
}

// progress says something now, with the time since the beginning.
func (r *report) progress(format string, args ...any) {
	fmt.Printf("%6.0fs  %s\n", time.Since(r.Begun).Seconds(), fmt.Sprintf(format, args...))
}

func (r *report) add(row *result) { r.Faults = append(r.Faults, row) }

func (r *result) take(accepted int, c counts, recovery time.Duration) {
	r.Trials++
	r.Accepted += accepted
	r.Completed += c.completed
	r.Cancelled += c.cancelled
	r.Lost += c.lost
	r.Oversold += c.oversold
	r.Duplicated += c.duplicated
	r.Recovery = append(r.Recovery, recovery.Seconds())
}

// print writes the table.
func (r *report) print(w io.Writer) {
	r.Seconds = time.Since(r.Begun).Seconds()
	if len(r.Faults) == 0 {
		return
	}
	fmt.Fprintf(w, "\nbroker %s, state %s, seed %d, %s, %.0f s\n\n", r.Broker, r.State, r.Seed, r.Machine, r.Seconds)
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "| fault\t| trials\t| failed\t| accepted\t| completed\t| lost\t| oversold\t| duplicated\t| dead letters\t| recovered in s: median, longest\t|")
	fmt.Fprintln(table, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, row := range r.Faults {
		recovery := "-"
		if n := len(row.Recovery); n > 0 {
			sorted := slices.Sorted(slices.Values(row.Recovery))
			recovery = fmt.Sprintf("%.1f, %.1f", sorted[n/2], sorted[n-1])
		}
		fmt.Fprintf(table, "| %s\t| %d\t| %d\t| %d\t| %d\t| %d\t| %d\t| %d\t| %d\t| %s\t|\n",
			row.Fault, row.Trials, row.Failed, row.Accepted, row.Completed, row.Lost, row.Oversold, row.Duplicated, row.DeadLetters, recovery)
	}
	table.Flush()
}

// save writes the report as JSON into dir, under its begin.
func (r *report) save(dir string) error {
	if len(r.Faults) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s-%s.json", r.Begun.UTC().Format("20060102T150405Z"), r.Broker, r.State)
	return os.WriteFile(filepath.Join(dir, name), append(content, '\n'), 0o644)
}
