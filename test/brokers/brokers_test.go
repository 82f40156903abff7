package brokers

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var only = flag.String("servers", "", "only the servers of these `names`, with blanks between")

// Every server starts, answers, survives a kill on the same port, has nothing to
// deliver, and leaves neither a process nor a file.
func TestServers(t *testing.T) {
	names := slices.Sorted(maps.Keys(kinds))
	if *only != "" {
		names = strings.Fields(*only)
	}
	for _, name := range names {
		if name == "mongodb" {
			continue // there is none: errNoMongoDB
		}
		t.Run(name, func(t *testing.T) {
			var dir string
			t.Run("lives", func(t *testing.T) {
				begin := time.Now()
				s := Start(t, name)
				dir = s.dir
				t.Logf("answers after %s: %s", time.Since(begin).Round(time.Millisecond), strings.ReplaceAll(strings.Join(s.Env, " "), s.secret, "..."))
				begin, address, first := time.Now(), s.Address(), s.PID()
				if err := s.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := s.kind.answers(t.Context(), s); err == nil {
					t.Fatal("a killed server answers")
				}
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				if s.Address() != address || s.PID() == first {
					t.Errorf("%s, process %d after %s, process %d", s.Address(), s.PID(), address, first)
				}
				t.Logf("answers again after %s", time.Since(begin).Round(time.Millisecond))
				backlog, err := s.Backlog(t.Context())
				if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, errNobodyReads) {
					err = nil
				}
				if backlog != "" || err != nil {
					t.Errorf("nothing was published, and %q waits (%v)", backlog, err)
				}
			})
			if dir == "" {
				return // it did not start
			}
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s is left behind", dir)
			}
			// Processes of a server have its directory as theirs, or among their arguments.
			for _, link := range processesIn(t, dir) {
				t.Errorf("left behind: %s", link)
			}
		})
	}
}

func processesIn(t *testing.T, dir string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		cwd, _ := os.Readlink(filepath.Join(p, "cwd")) // gone meanwhile, or another user's
		arguments, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if strings.HasPrefix(cwd, dir) || strings.Contains(string(arguments), dir) {
			found = append(found, fmt.Sprintf("%s %s", p, strings.ReplaceAll(string(arguments), "\x00", " ")))
		}
	}
	return found
}

func TestMissingSaysWhatToDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Chdir(t.TempDir())
	for name, want := range map[string]string{
		"redis": "redis-server is not installed", "kafka": "java is not installed", "ministack": "no dapr.yaml", "fauxqs": "node is not installed", "mongodb": "no package", "oracle": "no test knows",
	} {
		if err := Missing(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		} else if kinds[name].command != nil && !strings.Contains(err.Error(), "make brokers SERVERS="+name) {
			t.Errorf("%s: %v does not say what to do", name, err)
		}
	}
}

// A folder that is added has a server that tests can start, or none on purpose.
func TestEveryFolderHasItsServer(t *testing.T) {
	for _, pattern := range []string{"../../components/broker/*", "../../components/state/*"} {
		folders, err := filepath.Glob(pattern)
		if err != nil || len(folders) < 5 {
			t.Fatalf("%s: %v %v", pattern, folders, err)
		}
		for _, folder := range folders {
			name := ServerOf(filepath.Base(folder))
			if _, ok := kinds[name]; !ok && name != "" {
				t.Errorf("%s: there is no server %s", folder, name)
			}
		}
	}
}
