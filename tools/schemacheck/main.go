// Command schemacheck holds the JSON Schemas of the events against every version
// of them that was ever committed, and refuses an edit that is not compatible:
// within a version of an event, the only change is a new optional field. Anything
// else is a new version beside the old one (docs/decisions.md, Events).
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const usage = `Usage: schemacheck [-dir DIR] [-published TIME]

Compares each JSON Schema in DIR, a folder of a git checkout, with all versions of
it in the history, and fails if one was edited in a way that could break whoever
reads or writes by an older version: anything but a new optional field. In a
shallow clone it knows as much of the history as there is, and says so. Of what was
committed before TIME the last version counts; those before it were drafts.

`

func main() {
	flags := flag.NewFlagSet("schemacheck", flag.ExitOnError)
	dir := flags.String("dir", "events/schemas", "`folder` of the schemas")
	published := flags.String("published", "", "`time` (RFC 3339) at which the schemas became a promise (default: with the first commit)")
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage); flags.PrintDefaults() }
	_ = flags.Parse(os.Args[1:]) // exits by itself
	if *published != "" {
		if _, err := time.Parse(time.RFC3339, *published); err != nil {
			fmt.Fprintln(os.Stderr, "schemacheck: -published:", err)
			os.Exit(2)
		}
	}
	compared, problems, err := check(*dir, *published)
	if err != nil {
		fmt.Fprintln(os.Stderr, "schemacheck:", err)
		os.Exit(2)
	}
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, p)
	}
	if len(problems) > 0 {
		fmt.Fprintln(os.Stderr, "A published schema is a promise: make the next version beside it (ORDER_CREATED.v2.json), with an upcaster.")
		os.Exit(1)
	}
	fmt.Printf("schemas: compatible with %d earlier versions\n", compared)
	if shallow(*dir) {
		fmt.Fprintln(os.Stderr, "schemacheck: A SHALLOW CLONE DOES NOT KNOW WHAT WAS PROMISED BEFORE; git fetch --unshallow")
	}
}

// shallow says whether the history is not there from its beginning.
func shallow(dir string) bool {
	answer, err := git(dir, "rev-parse", "--is-shallow-repository")
	return err == nil && strings.TrimSpace(string(answer)) == "true"
}

// check compares the schemas in dir with their history, and says with how many
// versions it did and what is not compatible.
func check(dir, published string) (compared int, problems []string, err error) {
	names, err := git(dir, "log", "--format=", "--name-only", "--relative", "--diff-filter=A", "--", "*.json")
	if err != nil {
		return 0, nil, err
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(names))))) {
		now, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, name+": is gone; events that name it may be on their way, or in an archive")
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		versions, err := commits(dir, name, published)
		if err != nil {
			return 0, nil, err
		}
		for _, commit := range versions {
			then, err := git(dir, "show", commit+":./"+name)
			if err != nil {
				return 0, nil, err
			}
			found, err := differences(then, now)
			if err != nil {
				return 0, nil, fmt.Errorf("%s (%s): %w", name, commit, err)
			}
			for _, d := range found {
				problems = append(problems, fmt.Sprintf("%s: since %s: %s", name, commit, d))
			}
			compared++
		}
	}
	if compared == 0 {
		return 0, nil, fmt.Errorf("there is no schema in the history of %s", dir)
	}
	return compared, problems, nil
}

// commits are those that made or changed the file, the newest first, down to the
// one that was the last when it was published.
func commits(dir, name, published string) ([]string, error) {
	log := func(more ...string) ([]string, error) {
		out, err := git(dir, append(append([]string{"log", "--format=%h", "--diff-filter=AM"}, more...), "--", name)...)
		return strings.Fields(string(out)), err
	}
	if published == "" {
		return log()
	}
	later, err := log("--since=" + published)
	if err != nil {
		return nil, err
	}
	last, err := log("--max-count=1", "--until="+published)
	return append(later, last...), err
}

func git(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out, nil
}

func differences(then, now []byte) ([]string, error) {
	var a, b any
	if err := json.Unmarshal(then, &a); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(now, &b); err != nil {
		return nil, err
	}
	return schema("#", a, b), nil
}
