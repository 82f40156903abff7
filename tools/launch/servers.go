package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// external is what a broker or store needs that the launcher doesn't start: the
// secrets of its component, which are environment variables of the sidecar, with
// what is assumed when they are not set, and which of them is the address.
type external struct {
	address  string
	defaults map[string]string
	help     string
}

// externals by the name of the folder in components/broker or components/state.
var externals = map[string]external{
	"redis": {
		address:  "REDIS_HOST",
		defaults: map[string]string{"REDIS_HOST": "localhost:6379", "REDIS_PASSWORD": ""},
		help:     "start one (`redis-server --appendonly yes`, or `docker run -p 6379:6379 redis:8 --appendonly yes`), or set REDIS_HOST=host:port and REDIS_PASSWORD",
	},
	"kafka": {
		address: "KAFKA_BROKERS",
		defaults: map[string]string{
			"KAFKA_BROKERS": "localhost:9092", "KAFKA_AUTH_TYPE": "none",
			"KAFKA_SASL_MECHANISM": "", "KAFKA_SASL_USERNAME": "", "KAFKA_SASL_PASSWORD": "",
		},
		help: "start one (`docker run -p 9092:9092 apache/kafka:4.1.2`), or set KAFKA_BROKERS=host:port,... and, with a password, KAFKA_AUTH_TYPE=password and KAFKA_SASL_...",
	},
	"rabbitmq": {
		address:  "RABBITMQ_URL",
		defaults: map[string]string{"RABBITMQ_URL": "amqp://guest:guest@localhost:5672/"},
		help:     "start one (`rabbitmq-server`, or `docker run -p 5672:5672 rabbitmq:4`), or set RABBITMQ_URL=amqp://user:password@host:port/vhost",
	},
	"mqtt": {
		address:  "MQTT_URL",
		defaults: map[string]string{"MQTT_URL": "mqtt://localhost:1883"},
		help:     "start one (`mosquitto`, with persistence: docs/brokers.md), or set MQTT_URL=mqtt://user:password@host:port",
	},
	"postgres": {
		address:  "POSTGRES_URL",
		defaults: map[string]string{"POSTGRES_URL": "postgres://postgres:postgres@localhost:5432/postgres?sslmode=disable"},
		help:     "start one (`docker run -p 5432:5432 -e POSTGRES_PASSWORD=postgres postgres:17`), or set POSTGRES_URL=postgres://user:password@host:port/database",
	},
	"mongodb": {
		address:  "MONGODB_URL",
		defaults: map[string]string{"MONGODB_URL": "mongodb://localhost:27017/?replicaSet=rs0"},
		help:     "start one as a replica set, which transactions need (docs/brokers.md), or set MONGODB_URL=mongodb://user:password@host:port/?replicaSet=name",
	},
	"snssqs":   awsService("AWS_ENDPOINT_URL_SNS", "http://localhost:4566", "start an imitation (`npx fauxqs`)"),
	"dynamodb": awsService("AWS_ENDPOINT_URL_DYNAMODB", "http://localhost:4567", "start an imitation (`pip install ministack`, `GATEWAY_PORT=4567 ministack`) and make the table (docs/brokers.md)"),
}

// awsService is an imitation on this machine, or AWS itself if the variable named
// endpoint is set to nothing, and then by whatever rights the environment gives.
func awsService(endpoint, usual, help string) external {
	return external{
		address: endpoint,
		defaults: map[string]string{
			endpoint: usual, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "orderflow", "AWS_SECRET_ACCESS_KEY": "orderflow",
		},
		help: help + "; or, for AWS itself, set " + endpoint + " to nothing, and AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	}
}

// checkExternal returns the sidecars' variables for a broker or store that has
// to be running already, and an error that says what to do if nothing answers
// at its address. What the launcher provides itself needs none.
func checkExternal(ctx context.Context, name string, lookup func(string) (string, bool)) (map[string]string, error) {
	known, ok := externals[name]
	if !ok {
		return nil, nil
	}
	env := map[string]string{}
	for key, value := range known.defaults {
		if set, ok := lookup(key); ok {
			value = set
		}
		env[key] = value
	}
	if env[known.address] == "" {
		return env, nil // a service by its usual name
	}
	address, err := firstHost(env[known.address])
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", known.address, err, known.help)
	}
	conn, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("nothing answers for %s at %s (%w): %s", name, address, err, known.help)
	}
	return env, conn.Close()
}

// usualPorts are those that a URL leaves out.
var usualPorts = map[string]string{"amqp": "5672", "amqps": "5671", "mqtt": "1883", "mqtts": "8883", "postgres": "5432", "postgresql": "5432", "mongodb": "27017", "http": "80", "https": "443"}

// firstHost is host:port of the first server of an address: a URL, or a list of
// host:port. Its error does not repeat the address, which may hold a password.
func firstHost(address string) (string, error) {
	port := ""
	// By hand: net/url does not take the several hosts that MongoDB's have.
	if scheme, rest, ok := strings.Cut(address, "://"); ok {
		port = usualPorts[scheme]
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			rest = rest[:i]
		}
		address = rest[strings.LastIndex(rest, "@")+1:]
	}
	address, _, _ = strings.Cut(address, ",")
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address, nil
	}
	if port == "" || address == "" {
		return "", errors.New("it names no host and port")
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), port), nil
}
