# Everything a developer does here, with Go, make, git and a C compiler.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN        := $(CURDIR)/bin
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS    := -X github.com/fleetcast-io/fleetcast/pkg/version.Version=$(VERSION)
STANDALONE := $(BIN)/fleetcast-standalone
TOOLS      ?= $(HOME)/.cache/fleetcast/tools
LINT       := $(TOOLS)/golangci-lint-2.15.0
DATA       ?= $(CURDIR)/.fleetcast
CLUSTERS   ?= 2
BROKER     ?= nats
REGISTRY   ?= ghcr.io/fleetcast-io
T          ?= 30s

export GOTOOLCHAIN := local
# Tests that need an API server start this program.
export FLEETCAST_STANDALONE := $(STANDALONE)

##@ Everyday

.PHONY: help
help: ## Say what can be done
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: $(STANDALONE) ## Build the programs into bin/
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/fleetcast-hub ./cmd/hub
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/fleetcast-agent ./cmd/agent
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/fleetcast ./cmd/fleetcast
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/fleetsim ./cmd/fleetsim

# What the API server says its version is, for clients that ask.
KUBERNETES := -X k8s.io/component-base/version.gitVersion=v1.36.3

# The first build compiles an API server and takes minutes; later ones seconds.
.PHONY: $(STANDALONE)
$(STANDALONE):
	@[[ -x $@ ]] || echo 'building an API server, which takes some minutes the first time ...' >&2
	go build -C cmd/standalone -ldflags '$(LDFLAGS) $(KUBERNETES)' -o $@ .

.PHONY: demo
demo: build ## Show a work on its way: hub, broker and two clusters on this machine
	@data=$$(mktemp -d); \
	$(STANDALONE) demo --data-dir "$$data" --broker $(BROKER) && rm -rf "$$data"

.PHONY: up
up: build ## Leave hub, broker and clusters running, with their data in .fleetcast/
	$(STANDALONE) up --data-dir $(DATA) --clusters $(CLUSTERS) --broker $(BROKER)

CA_CERTIFICATES ?= /etc/ssl/certs/ca-certificates.crt
IMAGE := $(CURDIR)/dist/image

.PHONY: image
image: ## Build the images of hub and agent with docker
	rm -rf $(IMAGE) && mkdir -p $(IMAGE)/data && cp $(CA_CERTIFICATES) $(IMAGE)/ca-certificates.crt
	for n in hub agent; do \
		CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(LDFLAGS)' -o $(IMAGE)/fleetcast-$$n ./cmd/$$n; \
		docker build --target $$n --tag $(REGISTRY)/fleetcast-$$n:$(VERSION) --file Dockerfile $(IMAGE); \
	done

##@ Checks

.PHONY: test
test: $(STANDALONE) ## Run all tests that need nothing but Go and a C compiler
	go vet ./...
	go test -race -cpu 1 -shuffle=on -timeout 30m ./... # One, for the race detector breaks down over the timers of synctest: golang.org/issue/78156.
	go test -run Reload ./brokers/nats # What the race detector has to be told not to look at.
	cd cmd/standalone && go vet ./... && go test ./...

.PHONY: integration
integration: build ## Run the tests against mosquitto, nats-server, containers and real API servers
	go vet -tags integration ./integration/...
	go test -tags integration -run 'Mosquitto|NATS' -race -count=1 -timeout 40m ./integration/...
	cd integration/containers && go vet ./... && go test -count=1 -timeout 20m ./...

.PHONY: faults
faults: build ## Break one thing after the other over mosquitto and nats-server, and write the results to docs/reliability.md
	go vet -tags faults ./integration/faults
	cd integration/faults && go test -tags faults -run TestMatrix -count=1 -timeout 3h -args -table $(CURDIR)/docs/reliability.md
	FLEETCAST_SCHEDULES=100000 go test -run 'TestModel|TestDeleteRaces' -rapid.checks=500 -count=1 -timeout 1h ./integration/faults
	go test -tags faults -run 'TestFleet(Mosquitto|NATS)' -v -count=1 -timeout 1h ./integration/faults

.PHONY: charts
charts: $(STANDALONE) ## Run the tests of the Helm charts
	cd charts && go vet ./... && go test ./...

.PHONY: lint
lint: $(LINT) ## Check style and import rules
	$(LINT) run ./...
	cd cmd/standalone && $(LINT) run ./...
	cd integration/containers && $(LINT) run ./...
	cd charts && $(LINT) run ./...

$(LINT):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv $(TOOLS)/golangci-lint $@

.PHONY: generate
generate: ## Make the CRDs again from OCM's types
	hack/generate.sh

.PHONY: verify
verify: generate agent-size ## Fail if something generated or tidied differs from what is committed
	go mod tidy -diff
	cd cmd/standalone && go mod tidy -diff
	cd integration/containers && go mod tidy -diff
	cd charts && go mod tidy -diff
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	git diff --exit-code

.PHONY: golden
golden: ## Write golden files again; look at the diff before you commit it
	go test ./codec ./pkg/cli -update
	cd charts && go test -run TestGolden . -update

.PHONY: fuzz
fuzz: ## Run each fuzz target for T (30s)
	@for target in $$(grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' . | sed 's/^func //' | sort -u); do \
		dir=$$(grep -rlE --include='*_test.go' "^func $$target\(" . | head -1 | xargs dirname); \
		echo "$$dir $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(T) "$$dir"; \
	done

.PHONY: bench
bench: ## Run the micro benchmarks
	go test -run '^$$' -bench . -benchmem ./codec ./pkg/...

WORKS ?= 500
PAIRS ?= 5

.PHONY: bench-apply
bench-apply: $(STANDALONE) ## Measure the agent through mosquitto onto a real API server, beside OCM_WORK_AGENT if set
	cd integration/bench && go test -tags bench -run TestApply -v -count=1 -timeout 2h -args -works $(WORKS) -pairs $(PAIRS)

# Bytes of the stripped agent: clusters at the edge pull it over thin links.
AGENT_MOST := 40000000

.PHONY: agent-size
agent-size: ## Fail if the agent's program grows too large
	@CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(LDFLAGS)' -o $(BIN)/fleetcast-agent-stripped ./cmd/agent; \
	size=$$(stat -c %s $(BIN)/fleetcast-agent-stripped); \
	echo "the stripped agent has $$size bytes, at most $(AGENT_MOST) are allowed"; \
	(( size <= $(AGENT_MOST) ))

.PHONY: presubmit
presubmit: verify lint test ## What must pass before a change is proposed
