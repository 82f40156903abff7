// Command doctor reads the YAML that the sidecars of a Dapr project load and
// refuses what loses events or stalls: with the reason, and the lines to write.
// docs/doctor.md lists what it looks for (-rules).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9/logging"

	"orderflow/tools/internal/doctor"
	"orderflow/tools/internal/runfile"
)

const usage = `Usage: doctor [flags] -f dapr.yaml
       doctor [flags] DIR...

Reads what Dapr sidecars would load and tells what in it loses events, stalls or
is a risk, where, why, and what to write instead. With a run file each app's sidecar
is looked at with its own paths, scopes and configuration. With folders these are
the resource paths of every app that they name.

Exit code: 0 nothing found, 1 something found, 2 not readable, or wrong usage.

`

const environment = `
Environment, with -live:
  what the components' secrets name, under a secret store that reads variables
  REDIS_HOST, REDIS_PASSWORD   with -broker, -state or -all: localhost:6379 without
                               a password if they are not set, as for the launcher
`

// Exit codes.
const (
	clean      = 0
	found      = 1
	unreadable = 2
)

type settings struct {
	file, broker, state, configuration string
	all, live, asJSON                  bool
	allowRisks, quiet, table           bool
	ignore                             []string
	dirs                               []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	logging.Disable() // the Redis client tells of what is told here
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.LookupEnv))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer, lookup func(string) (string, bool)) int {
	s, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return clean
	}
	if err == nil && s.table {
		fmt.Fprint(stdout, doctor.Table())
		return clean
	}
	var findings []doctor.Finding
	var sets []*doctor.Set
	if err == nil {
		sets, err = read(s, lookup)
	}
	if err == nil {
		findings, err = check(ctx, s, sets, lookup)
	}
	if err != nil {
		fmt.Fprintln(stderr, "doctor:", err)
		return unreadable
	}
	return tell(s, findings, stdout)
}

func parseFlags(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.file, "f", "", "run `file` (dapr.yaml)")
	flags.StringVar(&s.broker, "broker", "", "with -f: take this `folder` of components/broker, as the launcher does (default: as the file says)")
	flags.StringVar(&s.state, "state", "", "with -f: take this `folder` of components/state")
	flags.BoolVar(&s.all, "all", false, "with -f: every broker with every store")
	flags.StringVar(&s.configuration, "config", "", "with folders: Configuration `file` (default: the one in a folder)")
	flags.BoolVar(&s.live, "live", false, "also ask the Redis servers that components point to")
	flags.BoolVar(&s.asJSON, "json", false, "print a JSON array of findings")
	flags.BoolVar(&s.allowRisks, "allow-risks", false, "print risks, but let them pass")
	flags.BoolVar(&s.quiet, "quiet", false, "print nothing when nothing is found")
	flags.BoolVar(&s.table, "rules", false, "print what is looked for, as a Markdown table, and nothing else")
	ignore := flags.String("ignore", "", "`rules` not to apply, with commas between")
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
		fmt.Fprint(stderr, environment)
	}
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.dirs = flags.Args()
	if *ignore != "" {
		s.ignore = strings.Split(*ignore, ",")
	}
	for _, id := range s.ignore {
		if !slices.ContainsFunc(doctor.Rules(), func(r doctor.Rule) bool { return r.ID == id }) {
			return s, fmt.Errorf("no rule %q (-rules lists them)", id)
		}
	}
	switch {
	case s.table:
	case s.file == "" && len(s.dirs) == 0:
		return s, errors.New("give a run file (-f dapr.yaml) or folders; -help tells more")
	case s.file != "" && len(s.dirs) > 0:
		return s, errors.New("give a run file or folders, not both")
	case s.file == "" && (s.broker != "" || s.state != "" || s.all):
		return s, errors.New("-broker, -state and -all want a run file (-f)")
	case s.file != "" && s.configuration != "":
		return s, errors.New("-config wants folders; the run file names its own")
	}
	return s, nil
}

// read reads the sets of sidecars that were asked for: one, or with all one for each
// broker and store.
func read(s settings, lookup func(string) (string, bool)) ([]*doctor.Set, error) {
	if s.file == "" {
		set, err := doctor.FromDirs(s.dirs, s.configuration)
		return []*doctor.Set{set}, err
	}
	getenv := func(name string) string { value, _ := lookup(name); return value }
	load := func() ([]runfile.App, error) { return runfile.Load(s.file, runfile.DaprDir(getenv)) }
	apps, err := load()
	if err != nil {
		return nil, err
	}
	if s.broker == "" && s.state == "" && !s.all {
		set, err := doctor.FromApps(apps)
		return []*doctor.Set{set}, err
	}
	var sets []*doctor.Set
	for _, broker := range choices(s, apps, "broker", s.broker) {
		for _, state := range choices(s, apps, "state", s.state) {
			apps, err := load()
			if err != nil {
				return nil, err
			}
			if err := runfile.SelectComponents(apps, broker, state); err != nil {
				return nil, err
			}
			set, err := doctor.FromApps(apps)
			if err != nil {
				return nil, err
			}
			sets = append(sets, set)
		}
	}
	return sets, nil
}

// choices are the folders of a kind to look at: the one that is given, all of
// them, or the one that the run file names.
func choices(s settings, apps []runfile.App, kind, given string) []string {
	if given != "" {
		return []string{given}
	}
	for _, app := range apps {
		for _, path := range app.ResourcesPaths {
			if dir := filepath.Dir(path); runfile.IsAlternative(path) && filepath.Base(dir) == kind {
				if s.all {
					return runfile.Folders(dir)
				}
				return []string{filepath.Base(path)}
			}
		}
	}
	return []string{""}
}

func check(ctx context.Context, s settings, sets []*doctor.Set, lookup func(string) (string, bool)) ([]doctor.Finding, error) {
	secret := lookup
	if s.broker != "" || s.state != "" || s.all {
		secret = func(name string) (string, bool) {
			value, ok := lookup(name)
			if assumed, known := launcherDefaults[name]; !ok && known {
				return assumed, true
			}
			return value, ok
		}
	}
	var all []doctor.Finding
	for _, set := range sets {
		findings, err := set.Check()
		if err != nil {
			return nil, err
		}
		all = append(all, findings...)
		if s.live {
			if findings, err = set.CheckLive(ctx, secret); err != nil {
				return nil, err
			}
			all = append(all, findings...)
		}
	}
	all = slices.DeleteFunc(doctor.Merge(all), func(f doctor.Finding) bool { return slices.Contains(s.ignore, f.Rule) })
	for i := range all {
		all[i].File = shown(all[i].File)
	}
	return all, nil
}

// launcherDefaults are what the launcher assumes of a server that it doesn't start.
var launcherDefaults = map[string]string{"REDIS_HOST": "localhost:6379", "REDIS_PASSWORD": ""}

// shown is the file as one would name it from here.
func shown(file string) string {
	here, err := os.Getwd()
	if err != nil {
		return file
	}
	if path, err := filepath.Rel(here, file); err == nil && filepath.IsLocal(path) {
		return path
	}
	return file
}

// tell prints the findings and returns the exit code.
func tell(s settings, findings []doctor.Finding, out io.Writer) int {
	code := clean
	count := map[doctor.Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
		if f.Severity.Grave() || !s.allowRisks {
			code = found
		}
	}
	if s.asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if findings == nil {
			findings = []doctor.Finding{}
		}
		_ = encoder.Encode(findings) // to a broken pipe there is nobody to tell
		return code
	}
	for _, f := range findings {
		fmt.Fprintf(out, "%s:%d: %s: %s [%s]\n", f.File, f.Line, f.Severity, f.Resource, f.Rule)
		if len(f.Apps) > 0 {
			fmt.Fprintf(out, "    for %s\n", strings.Join(f.Apps, ", "))
		}
		fmt.Fprintf(out, "    %s (%s)\n    Write:\n        %s\n\n", f.Reason, f.Source, strings.ReplaceAll(f.Write, "\n", "\n        "))
	}
	switch {
	case len(findings) > 0:
		fmt.Fprintf(out, "doctor: %s\n", strings.Join(counts(count), ", "))
	case !s.quiet:
		fmt.Fprintln(out, "doctor: nothing found")
	}
	return code
}

func counts(count map[doctor.Severity]int) []string {
	var all []string
	for _, severity := range []doctor.Severity{doctor.Loses, doctor.Stalls, doctor.Risk} {
		if n := count[severity]; n > 0 {
			all = append(all, fmt.Sprintf("%d × %s", n, severity))
		}
	}
	return all
}
