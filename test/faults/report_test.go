package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// report is the outcome of a campaign, or of what has run of it.
type report struct {
	mu sync.Mutex // guards Faults and Seconds: faults run side by side

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
	Rejected    int       `json:"rejected"` // of those cancelled: for want of stock
	Lost        int       `json:"lost"`
	Oversold    int       `json:"oversold"`
	Duplicated  int       `json:"duplicated"`
	DeadLetters int       `json:"deadLetters"`
	Recovery    []float64 `json:"recovery"` // seconds from the end of the fault to the last order's last effect, each trial's
}

func newReport(broker, state string, seed uint64) *report {
	return &report{
		Broker: broker, State: state, Seed: seed, Begun: time.Now(),
		Machine: fmt.Sprintf("%s/%s, %d CPUs, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
	}
}

// progress says something now, with the time since the beginning.
func (r *report) progress(format string, args ...any) {
	fmt.Printf("%6.0fs  %s\n", time.Since(r.Begun).Seconds(), fmt.Sprintf(format, args...))
}

// add takes a fault's outcome in and saves, so that a campaign that is cut off
// leaves what it has.
func (r *report) add(row *result, dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Faults = append(r.Faults, row)
	r.Seconds = time.Since(r.Begun).Seconds()
	return r.save(dir)
}

// take adds the count of a trial.
func (r *result) take(accepted int, c counts) {
	r.Accepted += accepted
	r.Completed += c.completed
	r.Cancelled += c.cancelled
	r.Lost += c.lost
	r.Oversold += c.oversold
	r.Duplicated += c.duplicated
	r.Rejected += c.rejected
}

// print writes the table, the faults in the sequence of their list.
func (r *report) print(w io.Writer) {
	if len(r.Faults) == 0 {
		return
	}
	slices.SortStableFunc(r.Faults, func(a, b *result) int { return cmp.Compare(place(a.Fault), place(b.Fault)) })
	fmt.Fprintf(w, "\nbroker %s, state %s, seed %d, %s, %.0f s\n\n", r.Broker, r.State, r.Seed, r.Machine, r.Seconds)
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "| fault\t| trials\t| failed\t| accepted\t| completed\t| rejected\t| lost\t| oversold\t| duplicated\t| dead letters\t| recovered in s: median, longest\t|")
	fmt.Fprintln(table, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, row := range r.Faults {
		recovery := "-"
		if n := len(row.Recovery); n > 0 {
			sorted := slices.Sorted(slices.Values(row.Recovery))
			recovery = fmt.Sprintf("%.1f, %.1f", sorted[n/2], sorted[n-1])
		}
		fmt.Fprintf(table, "| %s\t| %d\t| %d\t| %d\t| %d\t| %d\t| %d\t| %d\t| %d\t| %d\t| %s\t|\n",
			row.Fault, row.Trials, row.Failed, row.Accepted, row.Completed, row.Rejected, row.Lost, row.Oversold, row.Duplicated, row.DeadLetters, recovery)
	}
	table.Flush()
}

// place is where a fault stands in the list of all.
func place(name string) int {
	return slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
}

// save writes the report as JSON into dir, under its begin.
func (r *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%s-%s.json", r.Begun.UTC().Format("20060102T150405Z"), r.Broker, r.State))
	if err := os.WriteFile(path+".new", append(content, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// printTables prints the reports in the files of a pattern: those of one broker, one
// store and one seed together, as the parts of one campaign. Trials of the same
// fault add up, so that none that failed is forgotten for one that did not.
func printTables(w io.Writer, pattern string) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no results at %s", pattern)
	}
	var merged []*report
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		part := &report{}
		if err := json.Unmarshal(content, part); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		i := slices.IndexFunc(merged, func(r *report) bool {
			return r.Broker == part.Broker && r.State == part.State && r.Seed == part.Seed
		})
		if i < 0 {
			merged = append(merged, part)
			continue
		}
		merged[i].Seconds += part.Seconds
		for _, row := range part.Faults {
			merged[i].merge(row)
		}
	}
	for _, r := range merged {
		r.print(w)
	}
	return nil
}

func (r *report) merge(row *result) {
	i := slices.IndexFunc(r.Faults, func(known *result) bool { return known.Fault == row.Fault })
	if i < 0 {
		r.Faults = append(r.Faults, row)
		return
	}
	known := r.Faults[i]
	for _, sum := range []struct{ to, from *int }{
		{&known.Trials, &row.Trials}, {&known.Failed, &row.Failed},
		{&known.Accepted, &row.Accepted}, {&known.Completed, &row.Completed}, {&known.Cancelled, &row.Cancelled},
		{&known.Lost, &row.Lost}, {&known.Oversold, &row.Oversold}, {&known.Duplicated, &row.Duplicated},
		{&known.DeadLetters, &row.DeadLetters}, {&known.Rejected, &row.Rejected},
	} {
		*sum.to += *sum.from
	}
	known.Recovery = append(known.Recovery, row.Recovery...)
}
