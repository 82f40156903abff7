package system

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// splitByName undoes what the launcher does: it gives every line of a process
// the process's name and a bar. Lines of its own have no bar.
func splitByName(text string) map[string]string {
	lines := map[string][]string{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, " | ")
		if name = strings.TrimSpace(name); !ok || strings.ContainsAny(name, `{"=`) {
			name, rest = "launcher", line
		}
		lines[name] = append(lines[name], rest)
	}
	logs := make(map[string]string, len(lines))
	for name, l := range lines {
		logs[name] = strings.Join(l, "")
	}
	return logs
}

// tails are the last lines of each log.
func tails(logs map[string]string, n int) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(logs)) {
		lines := slices.Collect(strings.Lines(logs[name]))
		if left := len(lines) - n; left > 0 {
			lines = lines[left:]
		}
		fmt.Fprintf(&b, "\n--- %s: the last %d lines\n%s", name, len(lines), strings.Join(lines, ""))
	}
	return b.String()
}
