package runfile

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// SidecarArgs are the arguments that the CLI starts the app's sidecar with. The
// one difference: an address of a placement or scheduler service is passed when
// the file gives one; the CLI also assumes localhost when it gives none.
func (a *App) SidecarArgs() []string {
	var args []string
	eachTagged(reflect.ValueOf(a).Elem(), "arg", func(flag string, value reflect.Value) {
		flag = "--" + flag
		switch v := value.Interface().(type) {
		case bool:
			if v {
				args = append(args, flag)
			}
		case int:
			if v > 0 || (v < 0 && flag == "--app-max-concurrency") {
				args = append(args, flag, strconv.Itoa(v))
			}
		case []string:
			for _, each := range v {
				args = append(args, flag, each)
			}
		case *string:
			if v != nil && strings.TrimSpace(*v) != "" {
				args = append(args, flag, strings.TrimSpace(*v))
			}
		case string:
			if v != "" {
				args = append(args, flag, v)
			}
		}
	})
	return args
}

// AppEnv are the variables that the CLI adds to the app's environment, in the
// form NAME=value and in an order in which the last one wins: what the file says
// under env overrides what is derived from its other fields.
func (a *App) AppEnv() []string {
	var env []string
	eachTagged(reflect.ValueOf(a).Elem(), "env", func(name string, value reflect.Value) {
		switch v := value.Interface().(type) {
		case int:
			if v > 0 {
				env = append(env, name+"="+strconv.Itoa(v))
			}
		case string:
			env = append(env, name+"="+v)
		}
	})
	if protocol := a.appProtocol(); protocol != "" {
		env = append(env, "APP_PROTOCOL="+protocol)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Env)) {
		env = append(env, name+"="+a.Env[name])
	}
	return env
}

// appProtocol folds the deprecated appSSL into the protocol, and is empty for
// one that Dapr doesn't know.
func (a *App) appProtocol() string {
	switch protocol := strings.ToLower(a.AppProtocol); protocol {
	case "http", "grpc":
		if a.AppSSL {
			return protocol + "s"
		}
		return protocol
	case "https", "grpcs", "h2c":
		return protocol
	}
	return ""
}

func eachTagged(v reflect.Value, tag string, visit func(name string, value reflect.Value)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			eachTagged(v.Field(i), tag, visit)
		} else if name := field.Tag.Get(tag); name != "" {
			visit(name, v.Field(i))
		}
	}
}
