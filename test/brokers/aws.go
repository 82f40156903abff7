package brokers

import (
	"context"
	_ "embed" // of fauxqs.mjs
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed fauxqs.mjs
var fauxqsMain string

// AWS can only be imitated on a machine. Both imitations have what they are given in
// memory only, and lose it when they are killed, fauxqs its messages (fauxqs.mjs).
//
// fauxqs imitates SNS and SQS, and is quick: moto, the best known, takes 30 ms for a
// publish. Fifty at once then exceed the 2 s of a publish (resiliency.yaml), are sent
// again while the first are still being worked on, and it never recovers.
var fauxqs = kind{
	missing: func() error {
		_, err := program("node")
		_, errModule := installed("fauxqs/node_modules/fauxqs")
		return firstOf(err, errModule)
	},
	command: func(s *Server) (*exec.Cmd, error) {
		module, err := installed("fauxqs/node_modules/fauxqs")
		if err != nil {
			return nil, err
		}
		cmd := exec.Command("node", "--input-type=module", "--eval", fauxqsMain, "--",
			awsRegion, strconv.Itoa(s.port), filepath.Join(s.dir, "journal"))
		cmd.Dir = filepath.Dir(filepath.Dir(module)) // where it looks for modules
		return cmd, nil
	},
	answers: func(ctx context.Context, s *Server) error {
		_, err := ask(ctx, http.MethodGet, "http://"+s.Address()+"/health", nil, "")
		return err
	},
	env: awsEnv("AWS_ENDPOINT_URL_SNS"),
}

// ministack imitates most of AWS; here it is DynamoDB, and EventBridge for the test of
// what docs/brokers.md says of it. It takes a third of the time that moto takes for a
// read. (Amazon's own DynamoDB Local is under terms that are no open-source licence.)
var ministack = kind{
	missing: func() error { _, err := installed("ministack/bin/ministack"); return err },
	command: func(s *Server) (*exec.Cmd, error) {
		path, err := installed("ministack/bin/ministack")
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(path)
		cmd.Env = append(os.Environ(), "BIND_HOST=127.0.0.1", "GATEWAY_PORT="+strconv.Itoa(s.port), "MINISTACK_REGION="+awsRegion,
			"SERVICES=dynamodb,events,sns,sqs", "LOG_LEVEL=WARNING", "SFTP_ENABLED=0", "PYTHONUNBUFFERED=1", "TMPDIR="+s.dir)
		return cmd, nil
	},
	// The table is made here, since the component makes none: an account has it
	// before the first deployment.
	answers: func(ctx context.Context, s *Server) error {
		_, err := s.AWS(ctx, "dynamodb", "DynamoDB_20120810.CreateTable", `{"TableName":"orderflow","BillingMode":"PAY_PER_REQUEST",
			"AttributeDefinitions":[{"AttributeName":"key","AttributeType":"S"}],"KeySchema":[{"AttributeName":"key","KeyType":"HASH"}]}`)
		return err
	},
	env: awsEnv("AWS_ENDPOINT_URL_DYNAMODB"),
}

const awsRegion = "eu-central-1"

// awsEnv names the variables as Amazon's own tools do.
func awsEnv(endpoint string) func(*Server, string) []string {
	return func(_ *Server, address string) []string {
		return []string{endpoint + "=http://" + address, "AWS_REGION=" + awsRegion, "AWS_ACCESS_KEY_ID=orderflow", "AWS_SECRET_ACCESS_KEY=orderflow"}
	}
}

// AWS calls a service that speaks AWS's JSON protocol (DynamoDB, SQS, EventBridge),
// as an administrator would, and returns its answer. Nothing is signed: nobody here
// looks at signatures.
func (s *Server) AWS(ctx context.Context, service, target, body string) ([]byte, error) {
	version := "1.0"
	if service == "events" {
		version = "1.1"
	}
	return ask(ctx, http.MethodPost, "http://"+s.Address()+"/", http.Header{
		"Content-Type":  {"application/x-amz-json-" + version},
		"X-Amz-Target":  {target},
		"Authorization": {"AWS4-HMAC-SHA256 Credential=orderflow/20260101/" + awsRegion + "/" + service + "/aws4_request, SignedHeaders=host, Signature=0"},
	}, body)
}

func ask(ctx context.Context, method, address string, header http.Header, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s %s", method, address, resp.Status, answer)
	}
	return answer, err
}
