package brokers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
)

// aws is moto, which imitates AWS: SNS, SQS, EventBridge and DynamoDB are enough of
// it here. It keeps everything in memory, so what is killed is empty when it is
// started again. (Amazon's own DynamoDB Local is under terms that are no open-source
// licence.)
var aws = kind{
	missing: func() error { _, err := installed("moto/bin/moto_server"); return err },
	command: func(s *Server) (*exec.Cmd, error) {
		path, err := installed("moto/bin/moto_server")
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(path, "-H", "127.0.0.1", "-p", strconv.Itoa(s.port))
		cmd.Env = append(os.Environ(), "MOTO_DISABLE_GLOBAL_CORS=true", "PYTHONUNBUFFERED=1")
		return cmd, nil
	},
	// The table is made here, since the component makes none: an account has it
	// before the first deployment.
	answers: func(ctx context.Context, s *Server) error {
		return s.AWS(ctx, "dynamodb", "DynamoDB_20120810.CreateTable", `{"TableName":"orderflow","BillingMode":"PAY_PER_REQUEST",
			"AttributeDefinitions":[{"AttributeName":"key","AttributeType":"S"}],"KeySchema":[{"AttributeName":"key","KeyType":"HASH"}]}`)
	},
	env: func(_ *Server, address string) []string {
		return []string{"AWS_ENDPOINT_URL=http://" + address, "AWS_REGION=" + awsRegion, "AWS_ACCESS_KEY_ID=orderflow", "AWS_SECRET_ACCESS_KEY=orderflow"}
	},
}

const awsRegion = "eu-central-1"

// AWS calls a service that speaks AWS's JSON protocol (DynamoDB, SQS, EventBridge)
// with a request body, as an administrator would. Nothing is signed: moto does not
// look at signatures.
func (s *Server) AWS(ctx context.Context, service, target, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Address()+"/", bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	version := "1.0"
	if service == "events" {
		version = "1.1"
	}
	req.Header.Set("Content-Type", "application/x-amz-json-"+version)
	req.Header.Set("X-Amz-Target", target)
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=orderflow/20260101/"+awsRegion+"/"+service+"/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s %s", target, resp.Status, answer)
	}
	return nil
}
