# Everything that is done with this repository, as people and CI do it. `make help` lists it.

SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUF := $(GO) tool -modfile=tools/go.mod buf
LINT := $(GO) tool -modfile=tools/lint/go.mod golangci-lint
# The longest first, so that the others run beside it.
PACKAGES ?= ./test/e2e ./...
SEED ?=
DURATION ?= 10m
FUZZTIME ?= 30s
BASE ?= HEAD~1
COUNT ?= 6
SEAMS := ./internal/pgoutput ./internal/changelog/... ./internal/filter ./services/applier/apply ./services/logger
VERSION_PAIRS ?= 15:15 16:16 17:17 18:18 18:15 15:18 16:17 17:16
VERSION_TESTS ?= TestEveryKind|TestReadmePrivileges|TestBadInput|TestBackup

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: ## build bin/syncline
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/syncline ./cmd/syncline

.PHONY: postgres
postgres: ## find PostgreSQL, or install it
	$(GO) run ./internal/pgserver/cmd/getpg

.PHONY: demo
demo: postgres build ## replicate a live database to two replicas, on servers of its own (DEMO_FLAGS="--keep --duration 2m")
	bin/syncline demo $(DEMO_FLAGS)

.PHONY: test
test: postgres ## all tests
	$(GO) test -timeout 25m -parallel 3 $(TEST_FLAGS) $(PACKAGES)

.PHONY: e2e
e2e: postgres ## the end-to-end tests alone
	$(GO) test -timeout 25m -parallel 3 -v ./test/...

.PHONY: test-versions
test-versions: ## end-to-end tests from and to each version of PostgreSQL (VERSION_PAIRS="18:15 15:18")
	$(GO) run ./internal/pgserver/cmd/getpg $(sort $(subst :, ,$(VERSION_PAIRS)))
	@set -e; for pair in $(VERSION_PAIRS); do \
		echo "== PostgreSQL $${pair%:*} to $${pair#*:}"; \
		SYNCLINE_TEST_SOURCE_VERSION=$${pair%:*} SYNCLINE_TEST_TARGET_VERSION=$${pair#*:} \
			$(GO) test -count 1 -timeout 20m -run '$(VERSION_TESTS)' $(TEST_FLAGS) ./test/e2e; \
	done

.PHONY: test-large
test-large: postgres ## memory and CPU with huge transactions, tables and values; takes about half an hour and 60 GB of disk
	SYNCLINE_LARGE=1 $(GO) test -count 1 -timeout 3h -v -run TestLarge ./test/e2e

.PHONY: lint
lint: ## go vet and golangci-lint, buf lint
	$(GO) vet ./...
	$(LINT) run ./...
	$(BUF) lint

.PHONY: generate
generate: ## generate gen/, the OpenAPI document and docs/api from proto/
	$(BUF) generate

.PHONY: fuzz
fuzz: ## fuzz the decoder of WAL, the block format, selectors and the rest that reads foreign bytes (FUZZTIME=30s each)
	@set -e; for target in $$(grep -rhoE '^func Fuzz[A-Za-z0-9]+' --include='*_test.go' internal | sed 's/func //'); do \
		package=$$(grep -rlE "^func $$target\(" --include='*_test.go' internal | xargs dirname); \
		echo "$$package $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$package; \
	done

.PHONY: bench
bench: postgres build ## compare with PostgreSQL's own logical replication, for hours (BENCH_FLAGS="--scale 0.1 --only insert,tpcb/live"); see docs/performance.md
	$(GO) build -trimpath -o bin/bench ./bench
	bin/bench $(BENCH_FLAGS)

.PHONY: bench-seams
bench-seams: ## benchmarks of decoding, encoding, storing, filtering, grouping and staging, with allocations
	$(GO) test -run '^$$' -bench . -benchmem $(SEAMS)

.PHONY: bench-seams-compare
bench-seams-compare: ## the same of another revision and of this one, side by side (BASE=HEAD~1 COUNT=6)
	@set -e; base=$$(mktemp -d); trap 'git worktree remove --force "$$base/tree"; rm -rf "$$base"' EXIT; \
	git worktree add -q --detach "$$base/tree" $(BASE); \
	for n in $$(seq $(COUNT)); do \
		(cd "$$base/tree" && $(GO) test -run '^$$' -bench . -benchmem $(SEAMS)) >> "$$base/old"; \
		$(GO) test -run '^$$' -bench . -benchmem $(SEAMS) >> "$$base/new"; \
	done; \
	$(GO) tool -modfile=tools/go.mod benchstat "$$base/old" "$$base/new"

.PHONY: torture
torture: postgres ## kill and cut everything at random under load (SEED=… DURATION=10m)
	SYNCLINE_TORTURE_SEED=$(SEED) SYNCLINE_TORTURE_DURATION=$(DURATION) $(GO) test -count=1 -timeout 3h -v -run 'TestTorture$$' ./test/e2e
