package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// links lets somebody stand between the processes of the system, such as a test
// that cuts connections: with an address of its own it asks, for each connection
// that one process makes to another, where it is to go,
//
//	GET <links>?from=order&to=order-sidecar&address=127.0.0.1:23456
//
// and the answer, host:port, is what the process is told. Without one every
// process is told the true address. Processes are called as in a data directory's
// down/; a broker or store has the name of its folder in components/.
type links string

const linkTimeout = 10 * time.Second

func (l links) via(ctx context.Context, from, to, address string) (string, error) {
	if l == "" {
		return address, nil
	}
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	query := url.Values{"from": {from}, "to": {to}, "address": {address}}
	answer, err := l.ask(ctx, string(l)+"?"+query.Encode())
	if err != nil {
		return "", fmt.Errorf("link from %s to %s: %w", from, to, err)
	}
	return answer, nil
}

func (l links) ask(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	answer := strings.TrimSpace(string(body))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	if err == nil {
		_, _, err = net.SplitHostPort(answer)
	}
	return answer, err
}

// viaPort is via for a port of loopback, which is where the answer must be too.
func (l links) viaPort(ctx context.Context, from, to string, port int) (int, error) {
	address, err := l.via(ctx, from, to, loopback(port))
	if err != nil {
		return 0, err
	}
	host, answer, err := net.SplitHostPort(address)
	if err != nil || host != "127.0.0.1" {
		return 0, fmt.Errorf("link from %s to %s: it must be on 127.0.0.1, not at %s", from, to, address)
	}
	return strconv.Atoi(answer)
}

// viaSecrets is via for the addresses among the secrets of a sidecar: those of its
// broker and of its store, host:port or the host of a URL.
func (l links) viaSecrets(ctx context.Context, from string, secrets map[string]string, servers ...string) (map[string]string, error) {
	secrets = maps.Clone(secrets)
	for _, server := range servers {
		name := externals[server].address
		if server == "nats" {
			name = brokerURL
		}
		address, ok := secrets[name]
		if !ok {
			continue
		}
		u, err := url.Parse(address)
		isURL := err == nil && u.Host != ""
		if isURL {
			address = u.Host
		}
		if address, err = l.via(ctx, from, server, address); err != nil {
			return nil, err
		}
		if isURL {
			u.Host = address
			address = u.String()
		}
		secrets[name] = address
	}
	return secrets, nil
}
