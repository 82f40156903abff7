package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// common are the settings of every service.
type common struct {
	host, port                 string
	daprGRPCPort, daprHTTPPort string
	daprToken, appToken        string
	logLevel                   slog.Level
	otlpEndpoint, otlpProtocol string
}

func readCommon(env *Env) common {
	c := common{
		host:         env.String("LISTEN_HOST", "127.0.0.1", "host to listen on"),
		port:         env.Port("APP_PORT", "", "port to listen on; Dapr's launchers set it"),
		daprGRPCPort: env.Port("DAPR_GRPC_PORT", "50001", "gRPC port of the sidecar; Dapr's launchers set it"),
		daprHTTPPort: env.Port("DAPR_HTTP_PORT", "3500", "HTTP port of the sidecar; Dapr's launchers set it"),
		daprToken:    env.String("DAPR_API_TOKEN", "", "token that the sidecar wants"),
		appToken:     env.String("APP_API_TOKEN", "", "token that the sidecar sends with every event; without it only a loopback LISTEN_HOST is accepted"),
		otlpEndpoint: env.String("OTEL_EXPORTER_OTLP_ENDPOINT", "", "where to send traces; none are sent where this is empty"),
		otlpProtocol: env.String("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "how: http/protobuf or grpc"),
	}
	level := env.String("LOG_LEVEL", "INFO", "least level that is logged: DEBUG, INFO, WARN or ERROR")
	env.Check("LOG_LEVEL", c.logLevel.UnmarshalText([]byte(level)))
	if c.appToken == "" && !loopback(c.host) {
		env.Check("APP_API_TOKEN", fmt.Errorf("must be set if the service listens on %s: without it anyone in reach could send it events", c.host))
	}
	if c.otlpProtocol != "http/protobuf" && c.otlpProtocol != "grpc" {
		env.Check("OTEL_EXPORTER_OTLP_PROTOCOL", errors.New("must be http/protobuf or grpc"))
	}
	return c
}

// dial connects to the sidecar, in the background and again whenever the
// connection is lost. The SDK's own constructors wait for the sidecar, which
// may be waiting for this service, and leave gRPC's reconnect delay at up to
// two minutes.
func dial(c common) (*grpc.ClientConn, dapr.Client, error) {
	conn, err := grpc.NewClient(net.JoinHostPort("127.0.0.1", c.daprGRPCPort),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if c.daprToken != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, tokenHeader, c.daprToken)
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		}),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the sidecar: %w", err)
	}
	return conn, dapr.NewClientWithConnection(conn), nil
}

// sidecar asks for the sidecar's health.
type sidecar struct{ url string }

// check answers nil if the sidecar's API and components are up. It does not ask
// whether the sidecar finds this service up, for that is what it is part of
// (Dapr health API, /healthz/outbound).
func (s sidecar) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/v1.0/healthz/outbound", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the sidecar's components are not ready: %s", resp.Status)
	}
	return nil
}
