package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// resource is one document that a sidecar may load, with the lines it was
// written on.
type resource struct {
	file     string
	document int // its place in the file, from 0
	line     int
	kind     string
	version  string
	name     string
	scopes   []string
	root     *yaml.Node
}

// kinds are those that the doctor knows; everything else in a file is somebody
// else's.
var kinds = []string{"Component", "Subscription", "Resiliency", "Configuration"}

// readDir returns the resources of the YAML files in dir, in the order in which a
// sidecar reads them. Folders below it are not read, as by a sidecar.
func readDir(dir string) ([]*resource, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []*resource
	for _, entry := range entries {
		if entry.IsDir() || !isYAML(entry.Name()) {
			continue
		}
		found, err := readFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func isYAML(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".yaml" || ext == ".yml"
}

func readFile(file string) ([]*resource, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []*resource
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for document := 0; ; document++ {
		var tree yaml.Node
		if err := decoder.Decode(&tree); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(tree.Content) == 0 {
			continue // nothing but comments
		}
		root := tree.Content[0]
		kind := text(root, "kind")
		if !slices.Contains(kinds, kind) || !strings.HasPrefix(text(root, "apiVersion"), "dapr.io/") {
			continue
		}
		all = append(all, &resource{
			file:     file,
			document: document,
			line:     root.Line,
			kind:     kind,
			version:  text(root, "apiVersion"),
			name:     text(root, "metadata", "name"),
			scopes:   texts(root, "scopes"),
			root:     root,
		})
	}
}

// inScope says whether the sidecar of app loads the resource.
func (r *resource) inScope(app string) bool {
	return len(r.scopes) == 0 || slices.Contains(r.scopes, app)
}

// lineOf is the line of the key at the end of path, or of the last of its parents
// that is there.
func (r *resource) lineOf(path ...string) int {
	line, node := r.line, r.root
	for _, key := range path {
		name, value := entry(node, key)
		if value == nil {
			break
		}
		line, node = name.Line, value
	}
	return line
}

// find returns the node at path, or nil.
func find(node *yaml.Node, path ...string) *yaml.Node {
	for _, key := range path {
		if _, node = entry(node, key); node == nil {
			return nil
		}
	}
	return resolved(node)
}

// entry returns the key and the value of an entry of a mapping.
func entry(node *yaml.Node, key string) (name, value *yaml.Node) {
	node = resolved(node)
	if node == nil || node.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i], node.Content[i+1]
		}
	}
	if key == "<<" {
		return nil, nil
	}
	if _, merged := entry(node, "<<"); merged != nil {
		return entry(merged, key)
	}
	return nil, nil
}

// entries calls visit with each key and value of the mapping at path.
func entries(node *yaml.Node, path []string, visit func(key, value *yaml.Node)) {
	mapping := find(node, path...)
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		visit(mapping.Content[i], resolved(mapping.Content[i+1]))
	}
}

// text is the scalar at path as it is written, or "".
func text(node *yaml.Node, path ...string) string {
	if n := find(node, path...); n != nil && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		return n.Value
	}
	return ""
}

func texts(node *yaml.Node, path ...string) []string {
	list := find(node, path...)
	if list == nil || list.Kind != yaml.SequenceNode {
		return nil
	}
	var all []string
	for _, item := range list.Content {
		all = append(all, resolved(item).Value)
	}
	return all
}

// resolved follows an alias to what it stands for.
func resolved(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}
