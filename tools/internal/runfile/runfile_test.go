package runfile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// project is a directory with the files that the run files below refer to.
func project(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range []string{
		"components/shared", "components/broker/redis", "services/order/own", "services/plain", "services/local/.dapr/resources", "installed/.dapr/components", "other",
	} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"components/configuration.yaml", "services/order/own.yaml", "services/local/.dapr/config.yaml", "installed/.dapr/config.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, path), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, dir, content string) ([]App, error) {
	t.Helper()
	path := filepath.Join(dir, "dapr.yaml")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return Load(path, filepath.Join(dir, "installed", ".dapr"))
}

func mustLoad(t *testing.T, dir, content string) []App {
	t.Helper()
	apps, err := load(t, dir, content)
	if err != nil {
		t.Fatal(err)
	}
	return apps
}

func TestPaths(t *testing.T) {
	const common = "common: {resourcesPaths: [components/broker/redis, components/shared], configFilePath: components/configuration.yaml}\n"
	tests := map[string]struct {
		content   string
		resources []string
		config    string
	}{
		"common ones are relative to the file": {
			"version: 1\n" + common + "apps: [{appDirPath: services/plain}]",
			[]string{"components/broker/redis", "components/shared"}, "components/configuration.yaml",
		},
		"an app's are relative to its directory, and not merged": {
			"version: 1\n" + common + "apps: [{appDirPath: services/order, resourcesPaths: [own], configFilePath: own.yaml}]",
			[]string{"services/order/own"}, "services/order/own.yaml",
		},
		"what lies in the app's directory is nearer than common": {
			"version: 1\n" + common + "apps: [{appDirPath: services/local}]",
			[]string{"services/local/.dapr/resources"}, "services/local/.dapr/config.yaml",
		},
		"the installation's come last": {
			"version: 1\napps: [{appDirPath: services/plain}]",
			[]string{"installed/.dapr/components"}, "installed/.dapr/config.yaml",
		},
		"of the installation that the file names, if it names one": {
			"version: 1\ncommon: {runtimePath: other}\napps: [{appDirPath: services/plain}]",
			[]string{"other/.dapr/components"}, "other/.dapr/config.yaml",
		},
		"the deprecated resourcesPath is one more": {
			"version: 1\ncommon: {resourcesPath: components/shared, resourcesPaths: [components/broker/redis]}\napps: [{appDirPath: services/plain}]",
			[]string{"components/broker/redis", "components/shared"}, "installed/.dapr/config.yaml",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := project(t)
			app := mustLoad(t, dir, test.content)[0]
			var got []string
			for _, path := range app.ResourcesPaths {
				relative, err := filepath.Rel(dir, path)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, relative)
			}
			if !slices.Equal(got, test.resources) {
				t.Errorf("resources %v, want %v", got, test.resources)
			}
			if want := filepath.Join(dir, test.config); app.ConfigFilePath != want {
				t.Errorf("configuration %s, want %s", app.ConfigFilePath, want)
			}
		})
	}
}

func TestHomeDirectory(t *testing.T) {
	dir := project(t)
	t.Setenv("HOME", dir)
	app := mustLoad(t, dir, "version: 1\napps: [{appDirPath: ~/services/plain}]")[0]
	if want := filepath.Join(dir, "services", "plain"); app.AppDirPath != want {
		t.Errorf("appDirPath %s, want %s", app.AppDirPath, want)
	}
}

func TestMerging(t *testing.T) {
	apps := mustLoad(t, project(t), `
version: 1
common:
  logLevel: warn
  appProtocol: h2c
  appHealthThreshold: 5
  schedulerHostAddress: " "
  env: {A: common, B: common}
apps:
  - appDirPath: services/plain
  - appDirPath: services/order
    appID: orders
    logLevel: debug
    appProtocol: ""
    env: {B: app, C: app}
`)
	plain, orders := apps[0], apps[1]
	if plain.AppID != "plain" || orders.AppID != "orders" {
		t.Errorf("ids %s and %s, want the directory's name and orders", plain.AppID, orders.AppID)
	}
	if plain.LogLevel != "warn" || orders.LogLevel != "debug" {
		t.Errorf("log levels %s and %s, want warn and debug", plain.LogLevel, orders.LogLevel)
	}
	if orders.AppProtocol != "h2c" {
		t.Errorf("protocol %q: an empty value counts as left out, as in the CLI", orders.AppProtocol)
	}
	if got := strings.Join([]string{orders.Env["A"], orders.Env["B"], orders.Env["C"]}, " "); got != "common app app" {
		t.Errorf("env of orders: %s", got)
	}
	if plain.Env["B"] != "common" || plain.Env["C"] != "" {
		t.Errorf("env of plain %v has something of the other app", plain.Env)
	}
	if plain.DaprdLogDestination != File || plain.AppLogDestination != FileAndConsole {
		t.Errorf("log destinations %s and %s are not the CLI's defaults", plain.DaprdLogDestination, plain.AppLogDestination)
	}
}

func TestSidecarArgs(t *testing.T) {
	tests := map[string]struct{ fields, want string }{
		"defaults":        {"", "--config C --app-protocol http --app-max-concurrency -1 --resources-path R --max-body-size 4Mi --read-buffer-size 4Ki --app-id a"},
		"ports":           {"appPort: 8101, daprHTTPPort: 3501, daprGRPCPort: 1, daprInternalGRPCPort: 2, metricsPort: 3", "--app-port 8101 --dapr-http-port 3501 --dapr-grpc-port 1 --dapr-internal-grpc-port 2 --metrics-port 3"},
		"health":          {"enableAppHealthCheck: true, appHealthCheckPath: /live, appHealthProbeInterval: 3, appHealthProbeTimeout: 500, appHealthThreshold: 5", "--enable-app-health-check --app-health-check-path /live --app-health-probe-interval 3 --app-health-probe-timeout 500 --app-health-threshold 5"},
		"listen":          {"apiListenAddresses: 127.0.0.1", "--dapr-listen-addresses 127.0.0.1"},
		"concurrency":     {"appMaxConcurrency: 8", "--app-max-concurrency 8"},
		"sizes":           {"maxBodySize: 8Mi, readBufferSize: 16Ki", "--max-body-size 8Mi --read-buffer-size 16Ki"},
		"logs":            {"logLevel: debug, enableApiLogging: true", "--log-level debug --enable-api-logging"},
		"profiling":       {"enableProfiling: true, profilePort: 7777", "--enable-profiling --profile-port 7777"},
		"channel":         {"appChannelAddress: 10.0.0.1", "--app-channel-address 10.0.0.1"},
		"addresses given": {"placementHostAddress: p:50005, schedulerHostAddress: s:50006", "--placement-host-address p:50005 --scheduler-host-address s:50006"},
		"addresses blank": {`placementHostAddress: "", schedulerHostAddress: " "`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := project(t)
			app := mustLoad(t, dir, "version: 1\napps: [{appDirPath: services/plain, appID: a, resourcesPaths: [../../components/shared], "+test.fields+"}]")[0]
			got := strings.NewReplacer(app.ConfigFilePath, "C", app.ResourcesPaths[0], "R").Replace(strings.Join(app.SidecarArgs(), " "))
			if name == "defaults" && got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			for _, want := range strings.Split(test.want, " --") {
				if want = strings.TrimPrefix(want, "--"); !strings.Contains(got+" ", "--"+want+" ") && want != "" {
					t.Errorf("no --%s in %s", want, got)
				}
			}
			if name == "addresses blank" && strings.Contains(got, "host-address") {
				t.Errorf("an address in %s", got)
			}
		})
	}
}

func TestAppEnv(t *testing.T) {
	tests := map[string]struct{ fields, want string }{
		"defaults":       {"", "APP_ID=a APP_CHANNEL_ADDRESS= APP_PROTOCOL=http"},
		"ports":          {"appPort: 1, daprHTTPPort: 2, daprGRPCPort: 3, metricsPort: 4, daprInternalGRPCPort: 5", "APP_ID=a APP_CHANNEL_ADDRESS= APP_PORT=1 DAPR_HTTP_PORT=2 DAPR_GRPC_PORT=3 DAPR_METRICS_PORT=4 APP_PROTOCOL=http"},
		"own ones last":  {"appPort: 1, env: {Z: 1, APP_PORT: 9}", "APP_ID=a APP_CHANNEL_ADDRESS= APP_PORT=1 APP_PROTOCOL=http APP_PORT=9 Z=1"},
		"deprecated TLS": {"appProtocol: grpc, appSSL: true", "APP_ID=a APP_CHANNEL_ADDRESS= APP_PROTOCOL=grpcs"},
		"no protocol":    {"appProtocol: carrier-pigeon", "APP_ID=a APP_CHANNEL_ADDRESS="},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			app := mustLoad(t, project(t), "version: 1\napps: [{appDirPath: services/plain, appID: a, "+test.fields+"}]")[0]
			if got := strings.Join(app.AppEnv(), " "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	tests := map[string]struct{ content, want string }{
		"empty":                {"", "empty"},
		"no version":           {"apps: [{appDirPath: services/plain}]", "version is missing"},
		"no apps":              {"version: 1", "no apps"},
		"no directory":         {"version: 1\napps: [{appID: a}]", "apps[0]: required field appDirPath"},
		"missing directory":    {"version: 1\napps: [{appDirPath: nowhere}]", "nowhere: no such file"},
		"missing resources":    {"version: 1\ncommon: {resourcesPaths: [components/shared, nowhere]}\napps: [{appDirPath: .}]", "common: resourcesPaths[1]"},
		"common is not merged": {"version: 1\napps: [{appDirPath: services/order, resourcesPaths: [components]}]", "services/order/components: no such file"},
		"misspelt":             {"version: 1\napps:\n  - appDirPath: .\n    appId: a\n    daprHttpport: 1", "line 4: unknown field appId in apps[0]; did you mean appID?\nline 5: unknown field daprHttpport in apps[0]; did you mean daprHTTPPort?"},
		"in the wrong section": {"version: 1\ncommon: {appPort: 1}\napps: [{appDirPath: .}]", "unknown field appPort in common; it belongs to an app"},
		"unknown":              {"version: 1\nservices: []\napps: [{appDirPath: .}]", "line 2: unknown field services in the file"},
		"wrong type":           {"version: 1\napps: [{appDirPath: ., appPort: high}]", "cannot unmarshal"},
		"broken":               {"version: [", "did not find expected node"},
		"two documents":        {"version: 1\napps: [{appDirPath: .}]\n---\nversion: 1", "more than one YAML document"},
		"log destination":      {"version: 1\napps: [{appDirPath: ., appLogDestination: nowhere}]", "appLogDestination \"nowhere\""},
		"same id":              {"version: 1\napps: [{appDirPath: ., appID: a}, {appDirPath: ., appID: a}]", "two apps are called a"},
		"same port":            {"version: 1\napps: [{appDirPath: ., appID: a, appPort: 1}, {appDirPath: ., appID: b, metricsPort: 1}]", "port 1 is given to both a appPort and b metricsPort"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, project(t), test.content)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestDaprDir(t *testing.T) {
	t.Setenv("HOME", "/home/ada")
	for variable, want := range map[string]string{"": "/home/ada/.dapr", "/opt": "/opt/.dapr"} {
		if got := DaprDir(func(string) string { return variable }); got != want {
			t.Errorf("DAPR_RUNTIME_PATH=%s: got %s, want %s", variable, got, want)
		}
	}
}
