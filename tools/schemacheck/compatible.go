package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// annotations say something to people and nothing to validators (JSON Schema
// 2020-12, Validation, section 9).
var annotations = []string{"title", "description", "examples", "$comment", "deprecated"}

// schema says what in the schema now, which lies at path, keeps it from standing
// in for the schema then: in both directions, for those who read by the one what
// was written by the other. Annotations may change, fields that nobody has to
// give may join.
func schema(path string, then, now any) (found []string) {
	a, wasObject := then.(map[string]any)
	b, isObject := now.(map[string]any)
	if !wasObject || !isObject {
		return value(path, then, now)
	}
	for _, keyword := range keys(a, b) {
		if slices.Contains(annotations, keyword) {
			continue
		}
		at := path + "/" + keyword
		old, was := a[keyword]
		new, is := b[keyword]
		switch {
		case keyword == "properties" && is:
			found = append(found, members(at, old, new)...)
		case keyword == "$defs":
			found = append(found, members(at, old, new)...)
		case !was:
			found = append(found, at+" is new")
		case !is:
			found = append(found, at+" is gone")
		case keyword == "items":
			found = append(found, schema(at, old, new)...)
		case keyword == "required":
			found = append(found, required(at, old, new)...)
		default:
			found = append(found, value(at, old, new)...)
		}
	}
	return found
}

// members compares schemas by name; more may be there than there were. That a new
// property is optional is what comparing "required" sees to.
func members(path string, then, now any) (found []string) {
	a, _ := then.(map[string]any)
	b, _ := now.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if b[name] == nil {
			found = append(found, fmt.Sprintf("%s/%s is gone", path, name))
			continue
		}
		found = append(found, schema(path+"/"+name, a[name], b[name])...)
	}
	return found
}

// required compares two lists of required fields, which are sets.
func required(path string, then, now any) []string {
	a, _ := then.([]any)
	b, _ := now.([]any)
	set := func(list []any) map[any]bool {
		s := map[any]bool{}
		for _, v := range list {
			s[v] = true
		}
		return s
	}
	if !maps.Equal(set(a), set(b)) {
		return []string{fmt.Sprintf("%s was %v, is %v", path, then, now)}
	}
	return nil
}

// value compares what is not to change, but for annotations in it.
func value(path string, then, now any) []string {
	if !reflect.DeepEqual(bare(then), bare(now)) {
		return []string{fmt.Sprintf("%s was %v, is %v", path, bare(then), bare(now))}
	}
	return nil
}

// bare is v without annotations, where they are such and no names of fields.
func bare(v any) any {
	switch v := v.(type) {
	case map[string]any:
		b := map[string]any{}
		for k, each := range v {
			if _, text := each.(string); text && slices.Contains(annotations, k) {
				continue
			}
			b[k] = bare(each)
		}
		return b
	case []any:
		b := make([]any, len(v))
		for i := range v {
			b[i] = bare(v[i])
		}
		return b
	}
	return v
}

func keys(a, b map[string]any) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}
