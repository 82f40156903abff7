// Package runfile reads a multi-app run file (dapr.yaml) by the rules of the
// Dapr CLI, so that `dapr run -f` and the launcher start the same thing from
// the same file. The rules, as the CLI of Dapr 1.18 has them:
//
//   - `version` and each app's `appDirPath` are required; an app without an
//     appID is named after its directory.
//   - A path in `common` is relative to the file; a path in an app is relative
//     to its appDirPath; `~/` is the home directory. Every path must exist.
//   - A field that an app leaves out (or sets to its zero value: the CLI can't
//     tell the two apart) takes the value of `common`.
//   - `env` is merged key by key and the app wins.
//   - resourcesPaths are not merged: the app's, else appDirPath/.dapr/resources,
//     else those of `common`, else the components of the Dapr installation. The
//     same for configFilePath, with .dapr/config.yaml. The deprecated
//     resourcesPath is appended to resourcesPaths.
//
// It is stricter in one thing: the CLI ignores a field that it doesn't know,
// which turns a typing mistake into a default. Here it is an error.
package runfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// LogDestination says where the output of an app or of its sidecar goes.
type LogDestination string

const (
	Console        LogDestination = "console"
	File           LogDestination = "file"
	FileAndConsole LogDestination = "fileAndConsole"
)

// ToConsole reports whether the output is shown.
func (d LogDestination) ToConsole() bool { return d == Console || d == FileAndConsole }

// ToFile reports whether the output is kept in a file.
func (d LogDestination) ToFile() bool { return d == File || d == FileAndConsole }

// Shared is what `common` and an app may both set. The `arg` tag is the sidecar
// flag that the CLI passes the value with.
type Shared struct {
	ConfigFilePath         string            `yaml:"configFilePath" arg:"config"`
	AppProtocol            string            `yaml:"appProtocol" arg:"app-protocol"`
	APIListenAddresses     string            `yaml:"apiListenAddresses" arg:"dapr-listen-addresses"`
	EnableProfiling        bool              `yaml:"enableProfiling" arg:"enable-profiling"`
	LogLevel               string            `yaml:"logLevel" arg:"log-level"`
	AppMaxConcurrency      int               `yaml:"appMaxConcurrency" arg:"app-max-concurrency"`
	PlacementHostAddress   *string           `yaml:"placementHostAddress" arg:"placement-host-address"`
	SchedulerHostAddress   *string           `yaml:"schedulerHostAddress" arg:"scheduler-host-address"`
	ResourcesPath          string            `yaml:"resourcesPath"`
	ResourcesPaths         []string          `yaml:"resourcesPaths" arg:"resources-path"`
	AppSSL                 bool              `yaml:"appSSL" arg:"app-ssl"`
	MaxBodySize            string            `yaml:"maxBodySize" arg:"max-body-size"`
	ReadBufferSize         string            `yaml:"readBufferSize" arg:"read-buffer-size"`
	EnableAppHealthCheck   bool              `yaml:"enableAppHealthCheck" arg:"enable-app-health-check"`
	AppHealthCheckPath     string            `yaml:"appHealthCheckPath" arg:"app-health-check-path"`
	AppHealthProbeInterval int               `yaml:"appHealthProbeInterval" arg:"app-health-probe-interval"` // seconds
	AppHealthProbeTimeout  int               `yaml:"appHealthProbeTimeout" arg:"app-health-probe-timeout"`   // milliseconds
	AppHealthThreshold     int               `yaml:"appHealthThreshold" arg:"app-health-threshold"`
	EnableAPILogging       bool              `yaml:"enableApiLogging" arg:"enable-api-logging"`
	RuntimePath            string            `yaml:"runtimePath"`
	Env                    map[string]string `yaml:"env"`
	DaprdLogDestination    LogDestination    `yaml:"daprdLogDestination"`
	AppLogDestination      LogDestination    `yaml:"appLogDestination"`
}

// App is one entry of `apps`. After Load its paths are absolute and what it
// shares with `common` is filled in. A port of 0 or less means: any free one.
type App struct {
	Shared            `yaml:",inline"`
	AppID             string   `yaml:"appID" arg:"app-id" env:"APP_ID"`
	AppDirPath        string   `yaml:"appDirPath"`
	AppChannelAddress string   `yaml:"appChannelAddress" arg:"app-channel-address" env:"APP_CHANNEL_ADDRESS"`
	AppPort           int      `yaml:"appPort" arg:"app-port" env:"APP_PORT"`
	DaprHTTPPort      int      `yaml:"daprHTTPPort" arg:"dapr-http-port" env:"DAPR_HTTP_PORT"`
	DaprGRPCPort      int      `yaml:"daprGRPCPort" arg:"dapr-grpc-port" env:"DAPR_GRPC_PORT"`
	DaprInternalGRPC  int      `yaml:"daprInternalGRPCPort" arg:"dapr-internal-grpc-port"`
	ProfilePort       int      `yaml:"profilePort" arg:"profile-port"`
	MetricsPort       int      `yaml:"metricsPort" arg:"metrics-port" env:"DAPR_METRICS_PORT"`
	Command           []string `yaml:"command"`
	UnixDomainSocket  string   `yaml:"unixDomainSocket" arg:"unix-domain-socket"`

	// These three are read by `dapr run -k` only.
	ContainerImage           string `yaml:"containerImage"`
	ContainerImagePullPolicy string `yaml:"containerImagePullPolicy"`
	CreateService            bool   `yaml:"createService"`
}

// document is the file as it is written.
type document struct {
	Version int    `yaml:"version"`
	Name    string `yaml:"name"`
	Common  Shared `yaml:"common"`
	Apps    []App  `yaml:"apps"`
}

// Load reads the run file at path. daprDir is the Dapr installation whose
// components and configuration are the last resort (see DaprDir), unless the file
// names another one (runtimePath).
//
// It reports every unknown field at once, and otherwise the first thing that
// is wrong, with the field's place in the file where it is known.
func Load(path, daprDir string) ([]App, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("run file: %w", err)
	}
	base, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("run file %s: %w", path, err)
	}
	apps, err := parse(content, base, daprDir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return apps, nil
}

// DaprDir is where the CLI looks for its installation: .dapr in $DAPR_RUNTIME_PATH
// or in the home directory.
func DaprDir(getenv func(string) string) string {
	if dir := strings.TrimSpace(getenv("DAPR_RUNTIME_PATH")); dir != "" {
		return filepath.Join(dir, ".dapr")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ".dapr" // no home: nothing is installed there either
	}
	return filepath.Join(home, ".dapr")
}

func parse(content []byte, base, daprDir string) ([]App, error) {
	var tree yaml.Node
	if err := yaml.Unmarshal(content, &tree); err != nil {
		return nil, err
	}
	if len(tree.Content) == 0 {
		return nil, errors.New("the file is empty")
	}
	if err := checkFields(tree.Content[0]); err != nil {
		return nil, err
	}
	var doc document
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&doc); err != nil {
		return nil, err
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document: only the first would be read")
	}
	if doc.Version == 0 {
		return nil, errors.New("required field version is missing")
	}
	if len(doc.Apps) == 0 {
		return nil, errors.New("no apps to run")
	}

	common := &doc.Common
	if err := resolvePaths(base, common); err != nil {
		return nil, fmt.Errorf("common: %w", err)
	}
	for i := range doc.Apps {
		if err := complete(&doc.Apps[i], common, base, daprDir); err != nil {
			return nil, fmt.Errorf("apps[%d]: %w", i, err)
		}
	}
	return doc.Apps, checkDistinct(doc.Apps)
}

// complete turns an app as written into the app as run.
func complete(app *App, common *Shared, base, daprDir string) error {
	if app.AppDirPath == "" {
		return errors.New("required field appDirPath is missing")
	}
	var err error
	if app.AppDirPath, err = resolve(base, app.AppDirPath); err != nil {
		return fmt.Errorf("appDirPath: %w", err)
	}
	if app.AppID == "" {
		app.AppID = filepath.Base(app.AppDirPath)
	}
	if err := resolvePaths(app.AppDirPath, &app.Shared); err != nil {
		return err
	}

	if runtimePath := cmp.Or(app.RuntimePath, common.RuntimePath); runtimePath != "" {
		daprDir = filepath.Join(runtimePath, ".dapr")
	}
	local := filepath.Join(app.AppDirPath, ".dapr")
	if len(app.ResourcesPaths) == 0 {
		switch dir := filepath.Join(local, "resources"); {
		case exists(dir):
			app.ResourcesPaths = []string{dir}
		case len(common.ResourcesPaths) > 0:
			app.ResourcesPaths = slices.Clone(common.ResourcesPaths)
		default:
			app.ResourcesPaths = []string{filepath.Join(daprDir, "components")}
		}
	}
	if app.ConfigFilePath == "" {
		switch file := filepath.Join(local, "config.yaml"); {
		case exists(file):
			app.ConfigFilePath = file
		case common.ConfigFilePath != "":
			app.ConfigFilePath = common.ConfigFilePath
		default:
			app.ConfigFilePath = filepath.Join(daprDir, "config.yaml")
		}
	}

	env := maps.Clone(common.Env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, app.Env)
	inherit(&app.Shared, common)
	app.Env = env

	setDefault(&app.AppProtocol, "http")
	setDefault(&app.MaxBodySize, "4Mi")
	setDefault(&app.ReadBufferSize, "4Ki")
	setDefault(&app.DaprdLogDestination, File)
	setDefault(&app.AppLogDestination, FileAndConsole)
	if app.AppMaxConcurrency < 1 {
		app.AppMaxConcurrency = -1
	}
	for field, d := range map[string]LogDestination{"daprdLogDestination": app.DaprdLogDestination, "appLogDestination": app.AppLogDestination} {
		if !d.ToConsole() && !d.ToFile() {
			return fmt.Errorf("%s %q: use console, file or fileAndConsole", field, d)
		}
	}
	return nil
}

// inherit fills what the app left at its zero value.
func inherit(app, common *Shared) {
	a, c := reflect.ValueOf(app).Elem(), reflect.ValueOf(common).Elem()
	for i := range a.NumField() {
		if a.Field(i).IsZero() {
			a.Field(i).Set(c.Field(i))
		}
	}
}

func setDefault[T ~string](field *T, value T) {
	if *field == "" {
		*field = value
	}
}

func resolvePaths(base string, s *Shared) error {
	for _, field := range []struct {
		name string
		path *string
	}{
		{"configFilePath", &s.ConfigFilePath},
		{"resourcesPath", &s.ResourcesPath},
		{"runtimePath", &s.RuntimePath},
	} {
		if *field.path == "" {
			continue
		}
		resolved, err := resolve(base, *field.path)
		if err != nil {
			return fmt.Errorf("%s: %w", field.name, err)
		}
		*field.path = resolved
	}
	for i, path := range s.ResourcesPaths {
		resolved, err := resolve(base, path)
		if err != nil {
			return fmt.Errorf("resourcesPaths[%d]: %w", i, err)
		}
		s.ResourcesPaths[i] = resolved
	}
	if s.ResourcesPath != "" {
		s.ResourcesPaths = append(s.ResourcesPaths, s.ResourcesPath)
	}
	return nil
}

func resolve(base, path string) (string, error) {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		path = filepath.Join(home, rest)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(base, path)
	}
	_, err := os.Stat(path)
	return path, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// checkDistinct refuses what could only end in one app taking the place of
// another: the CLI finds that out when the second one starts.
func checkDistinct(apps []App) error {
	ids, ports := map[string]bool{}, map[int]string{}
	for _, app := range apps {
		if ids[app.AppID] {
			return fmt.Errorf("two apps are called %s", app.AppID)
		}
		ids[app.AppID] = true
		for _, p := range app.Ports() {
			if *p.Port <= 0 {
				continue
			}
			use := app.AppID + " " + p.Field
			if other, taken := ports[*p.Port]; taken {
				return fmt.Errorf("port %d is given to both %s and %s", *p.Port, other, use)
			}
			ports[*p.Port] = use
		}
	}
	return nil
}

// Port is one port of an app, under its name in the file.
type Port struct {
	Field string
	Port  *int
}

// Ports lists every port that the app and its sidecar listen on, so that they
// can be checked and the free ones chosen.
func (a *App) Ports() []Port {
	ports := []Port{
		{"appPort", &a.AppPort},
		{"daprHTTPPort", &a.DaprHTTPPort},
		{"daprGRPCPort", &a.DaprGRPCPort},
		{"daprInternalGRPCPort", &a.DaprInternalGRPC},
		{"metricsPort", &a.MetricsPort},
	}
	if a.EnableProfiling {
		ports = append(ports, Port{"profilePort", &a.ProfilePort})
	}
	return ports
}
