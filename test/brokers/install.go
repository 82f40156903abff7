package brokers

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// program finds an installed program: in PATH, or in one of the directories where
// distributions put what is not for everybody to call.
func program(name string, dirs ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, pattern := range dirs {
		found, err := filepath.Glob(filepath.Join(pattern, name))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return found[len(found)-1], nil // the newest version
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// installed finds a file that install.sh puts under bin/brokers.
func installed(path string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "dapr.yaml")); err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no dapr.yaml here or above: run this in the project")
		}
		dir = parent
	}
	path = filepath.Join(dir, "bin", "brokers", path)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not there", strings.TrimPrefix(path, dir+"/"))
	}
	return path, nil
}

// missing is the first of the errors.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// user is whom the server runs as, if that is another than the test's.
func (s *Server) user() (uid, gid int, other bool) {
	if s.kind.runAs == "" || os.Geteuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{s.kind.runAs, "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			continue
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			continue
		}
		return uid, gid, true
	}
	return 0, 0, false
}

// randomSecret is a password that needs no escaping anywhere.
func randomSecret() string { return rand.Text() }
