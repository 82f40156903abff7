package runfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// IsAlternative says whether a resource path is components/<kind>/<name>, one of
// several folders of which a sidecar gets one.
func IsAlternative(path string) bool {
	return filepath.Base(filepath.Dir(filepath.Dir(path))) == "components"
}

// SelectComponents puts the chosen broker and store in the place of those that
// the run file names, and the secrets store that reads environment variables in
// the place of the one that reads a file: in a path that ends in
// components/<kind>/<name>, the name.
func SelectComponents(apps []App, broker, state string) error {
	chosen := map[string]string{"broker": broker, "state": state, "secrets": "env"}
	for i := range apps {
		for j, path := range apps[i].ResourcesPaths {
			kindDir := filepath.Dir(path)
			kind := filepath.Base(kindDir)
			name, ok := chosen[kind]
			if !ok || !IsAlternative(path) {
				continue
			}
			replacement := filepath.Join(kindDir, name)
			if info, err := os.Stat(replacement); name == "" || err != nil || !info.IsDir() {
				return fmt.Errorf("%s %q: there is no such folder in %s; there are: %s", kind, name, kindDir, strings.Join(Folders(kindDir), ", "))
			}
			apps[i].ResourcesPaths[j] = replacement
		}
	}
	return nil
}

// Folders are the names of the folders in dir.
func Folders(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names
}
