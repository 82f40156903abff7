package runfile

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	documentFields = fieldsOf(reflect.TypeFor[document]())
	sharedFields   = fieldsOf(reflect.TypeFor[Shared]())
	appFields      = fieldsOf(reflect.TypeFor[App]())
)

func fieldsOf(t reflect.Type) []string {
	var names []string
	for field := range t.Fields() {
		switch name, _, _ := strings.Cut(field.Tag.Get("yaml"), ","); {
		case field.Anonymous:
			names = append(names, fieldsOf(field.Type)...)
		case name != "":
			names = append(names, name)
		}
	}
	return names
}

// checkFields reports every field of the file that no rule reads, with its line
// and what was probably meant.
func checkFields(root *yaml.Node) error {
	var errs []error
	check := func(node *yaml.Node, section string, known []string) {
		if node.Kind != yaml.MappingNode {
			return // the decoder says what it wanted instead
		}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			if key.Value == "<<" || slices.Contains(known, key.Value) {
				continue
			}
			hint := ""
			if section == "common" && slices.Contains(appFields, key.Value) {
				hint = "; it belongs to an app"
			} else if near := nearest(key.Value, known); near != "" {
				hint = "; did you mean " + near + "?"
			}
			errs = append(errs, fmt.Errorf("line %d: unknown field %s in %s%s", key.Line, key.Value, section, hint))
		}
	}
	check(root, "the file", documentFields)
	if common := child(root, "common"); common != nil {
		check(common, "common", sharedFields)
	}
	if apps := child(root, "apps"); apps != nil && apps.Kind == yaml.SequenceNode {
		for i, app := range apps.Content {
			check(app, fmt.Sprintf("apps[%d]", i), appFields)
		}
	}
	return errors.Join(errs...)
}

func child(node *yaml.Node, name string) *yaml.Node {
	if node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == name {
			return node.Content[i+1]
		}
	}
	return nil
}

// nearest returns the known name that word is probably a slip of, or "".
func nearest(word string, known []string) string {
	best, bestDistance := "", 4 // more than three slips is another word
	for _, name := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance is the number of letters to add, drop or replace to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
