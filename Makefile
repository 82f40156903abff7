# What people and CI call. `make` alone lists it.
#
# Needs Go, make and git; everything else is fetched or started by what runs here.

BROKER ?= nats
STATE  ?= sqlite
# Where `make check` looks vulnerabilities up; a mirror or a copy will do (file:///...).
GOVULNDB ?= https://vuln.go.dev
# From when on an event's schema may only be added to; until then it was a draft.
SCHEMAS_PUBLISHED = 2026-11-24T00:00:00Z

# The race detector needs C. Go switches cgo off where it finds no C compiler.
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  BROKER=$(BROKER) STATE=$(STATE)   folders of components/broker and components/state"

.PHONY: build
build: ## build services, tools and, once, the sidecar, into bin/
	@test -e bin/daprd || echo "first build: Go fetches and compiles everything, which takes some minutes"
	@go -C tools run ./build

.PHONY: run
# ANYWAY=1 starts it in spite of what doctor finds.
run: build ## run everything until Ctrl-C (KEEP=1: start again what dies); prints a curl line that places an order
	@bin/doctor -quiet -allow-risks -live -f dapr.yaml -broker $(BROKER) -state $(STATE) || \
		{ [ -n "$(ANYWAY)" ] || { echo "not started; mend it, or start it all the same: make run ANYWAY=1"; exit 1; }; }
	@exec bin/launch -f dapr.yaml -broker $(BROKER) -state $(STATE) -seed $(if $(KEEP),-keep)

.PHONY: doctor
doctor: ## look for what loses events or stalls, in every broker with every store (docs/doctor.md)
	@go -C tools run ./build tools
	@bin/doctor -f dapr.yaml -all

.PHONY: doctor-live
doctor-live: ## test what doctor asks a Redis server, on servers that the test starts
	go -C tools test $(RACE) -count=1 -tags redis -run Live ./doctor

.PHONY: demo
demo: ## place some orders in the running system and show their timelines
	@go -C tools run ./build tools
	@bin/demo

.PHONY: test
test: unit flow ## unit tests, then the flow test on real processes (BROKER=, STATE=)

.PHONY: flow
flow: build ## the flow test alone
	@# In the package's own folder, so that go test shows what it measured.
	cd test/flow && BROKER=$(BROKER) STATE=$(STATE) go test -count=1 -timeout 15m

.PHONY: brokers
brokers: ## install the servers that tests start for BROKER= and STATE= (SERVERS=, all if not given)
	@test/brokers/install.sh $(SERVERS)

.PHONY: brokers-test
brokers-test: ## test that those servers start, are killed, and leave nothing behind (SERVERS=)
	go test -count=1 $(if $(SERVERS),-run TestServers) ./test/brokers -args -servers "$(SERVERS)"

.PHONY: conformance
conformance: build ## hold one broker with one store against the suite (BROKER=, STATE=; docs/brokers.md)
	cd test/conformance && BROKER=$(BROKER) STATE=$(STATE) go test -count=1 -timeout 20m -args -results results

.PHONY: conformance-table
conformance-table: ## write the table of all outcomes so far into docs/brokers.md
	@cd test/conformance && go test -count=1 -args -results results -table ../../docs/brokers.md

.PHONY: components-conformance
components-conformance: ## Dapr's own suites on the component files, as they are (BROKER=, STATE=)
	BROKER=$(BROKER) STATE=$(STATE) go -C test/dapr test -count=1 -timeout 25m $(if $(SUITE),-run $(SUITE))

.PHONY: tour
tour: build ## run the commands of docs/failure-tour.md and hold their output against it
	BROKER=$(BROKER) STATE=$(STATE) go test -count=1 -timeout 5m ./test/tour

.PHONY: faults
# SEED= draws a new one. FAULTS= is all of them, or names and groups with commas
# between (test/faults/kinds_test.go): kill,restart,repeat,network,poison,zombie,long.
# LANES= faults at a time.
faults: build ## break the running system at random moments, then count (TRIALS=, SEED=, FAULTS=, LANES=)
	@# Without a package's name, so that go test shows at once how it goes.
	BROKER=$(BROKER) STATE=$(STATE) go -C test/faults test -count=1 -timeout 0 -run '^TestFaults$$' -args -trials $(or $(TRIALS),20) -seed $(or $(SEED),0) -faults '$(FAULTS)' -lanes $(or $(LANES),2) -recovery $(or $(RECOVERY),15s)

.PHONY: faults-table
faults-table: ## print the tables of a campaign that was run in parts (RESULTS=results/*-nats-*.json)
	@go -C test/faults test -count=1 -args -table '$(or $(RESULTS),results/*.json)'

.PHONY: faults-short
faults-short: ## one trial of the most telling faults with a known seed, and one with a new one
	@# What counts here is what is lost or doubled. Times are for a quiet machine.
	@$(MAKE) --no-print-directory faults TRIALS=1 SEED=1 FAULTS=short RECOVERY=60s
	@$(MAKE) --no-print-directory faults TRIALS=1 SEED= FAULTS=short RECOVERY=60s

.PHONY: unit
unit: ## unit and contract tests of all modules, shuffled, with the race detector
	@$(if $(RACE),,echo "no C compiler: tests run without -race")
	go test $(RACE) -shuffle=on $$(go list ./... | grep -v /test/)
	go test $(RACE) -shuffle=on -run 'Missing|EveryFolder|Backlog' ./test/brokers
	go -C tools test $(RACE) -shuffle=on ./...
	go -C test/faults test $(RACE) -shuffle=on -skip '^TestFaults$$' ./...

.PHONY: check
# tools/daprd and test/dapr are not vetted: that would go through all of Dapr, for
# a few files.
check: ## format, vet, staticcheck, schemas, vulnerabilities, unit tests
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
		if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go -C tools vet -tags redis ./...
	go -C test/faults vet ./...
	@mkdir -p bin && go -C tools build -o ../bin/ tool
	bin/staticcheck ./...
	cd tools && ../bin/staticcheck ./...
	@go -C tools run ./schemacheck -dir ../events/schemas -published $(SCHEMAS_PUBLISHED)
	cd test/faults && ../../bin/staticcheck ./...
	@tools/vulncheck.sh $(GOVULNDB) . tools test/faults
	@$(MAKE) --no-print-directory unit

.PHONY: dapr-run
dapr-run: ## run dapr.yaml with the Dapr CLI, after `dapr init` (Redis)
	@go -C tools run ./build services tools
	@tools/dapr-run.sh

.PHONY: clean
clean: ## remove what was built and what was stored
	rm -rf bin .run .dapr
