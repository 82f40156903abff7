package brokers

import (
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const postgresDirs = "/usr/lib/postgresql/*/bin" // Debian's, one for each version

// postgres refuses to run as root.
var postgres = kind{
	runAs: "postgres",
	missing: func() error {
		_, errInit := postgresProgram("initdb")
		_, err := postgresProgram("postgres")
		_, errReady := postgresProgram("pg_isready")
		return firstOf(err, errInit, errReady)
	},
	prepare: func(s *Server) error {
		initdb, err := postgresProgram("initdb")
		if err != nil {
			return err
		}
		if err := s.write("password", s.secret); err != nil {
			return err
		}
		return errors.Join(
			s.run(initdb, "-D", "data", "-U", "orderflow", "--pwfile=password", "--auth=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"),
			os.Remove(filepath.Join(s.dir, "password")),
		)
	},
	command: func(s *Server) (*exec.Cmd, error) {
		path, err := postgresProgram("postgres")
		if err != nil {
			return nil, err
		}
		return exec.Command(path, "-D", filepath.Join(s.dir, "data"), "-h", "127.0.0.1", "-p", strconv.Itoa(s.port),
			"-c", "unix_socket_directories=", "-c", "max_connections=100"), nil
	},
	answers: func(ctx context.Context, s *Server) error {
		path, err := postgresProgram("pg_isready")
		if err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, path, "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-d", "postgres").CombinedOutput()
		if err != nil {
			return errors.Join(err, errors.New(strings.TrimSpace(string(out))))
		}
		return nil
	},
	env: func(s *Server, address string) []string {
		return []string{"POSTGRES_URL=" + (&url.URL{
			Scheme: "postgres", User: url.UserPassword("orderflow", s.secret), Host: address, Path: "/postgres", RawQuery: "sslmode=disable",
		}).String()}
	},
}

func postgresProgram(name string) (string, error) {
	// Not from PATH first: there, Debian has a wrapper for some of them.
	if found, err := filepath.Glob(filepath.Join(postgresDirs, name)); err == nil && len(found) > 0 {
		return found[len(found)-1], nil
	}
	return program(name)
}
