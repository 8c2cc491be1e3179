# Needs Go, gcc (for the race detector only) and make. Tools are pinned in go.mod.

GO         ?= go
BACKEND    ?= cpu
BENCH      ?= .
BENCHFLAGS ?=
EXAMPLE    ?=
EXAMPLEFLAGS ?=
FUZZTIME   ?= 30s

# GOOS/GOARCH that must build besides this machine's own.
CROSS := linux/amd64 darwin/arm64 windows/amd64

include kernels/kernels.mk gpu/gpu.mk

.DEFAULT_GOAL := help
.PHONY: help build demo example test lint asm asm-check cross race bench bench-peers bench-peers-venv interop cover fuzz table-solvers table-gradients

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## compile every package
	$(GO) build ./...

demo: ## learn the hare-lynx record; writes demo/hare_lynx.png and demo/model.safetensors (BACKEND=cpu or gpu)
	$(if $(filter gpu,$(BACKEND)),$(CUDA_ENV)) $(GO) run $(if $(filter gpu,$(BACKEND)),-tags cuda) ./demo -backend $(BACKEND)

EXAMPLES := $(filter-out internal,$(notdir $(patsubst %/,%,$(wildcard examples/*/))))

example: ## run EXAMPLE=name of examples/, with EXAMPLEFLAGS; writes into its folder
	@$(if $(filter $(EXAMPLE),$(EXAMPLES)),:,echo "make example EXAMPLE=name, one of: $(EXAMPLES)"; exit 2)
	$(GO) run ./examples/$(EXAMPLE) -out examples/$(EXAMPLE) $(EXAMPLEFLAGS)

test: ## vet and test every package, and the CPU backend without its assembly
	$(GO) vet ./...
	$(GO) test ./...
	$(GO) test -tags noasm ./internal/simd ./cpu

lint: cross ## gofmt, vet, staticcheck, a tidy go.mod, the README's table, and the builds of cross
	@files=$$(gofmt -l .); test -z "$$files" || { echo "not formatted (run gofmt -w):"; echo "$$files"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff
	@$(MAKE) --no-print-directory asm-check
	@old=$$($(GO) run ./internal/tables/solvers -methods | grep -vxFf README.md); \
	test -z "$$old" || { echo "README.md lacks these lines of the table of methods:"; echo "$$old"; exit 1; }

asm: ## generate the assembly of internal/simd
	$(GO) generate ./internal/simd

asm-check: ## compare the committed assembly with what its generator writes
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; cd internal/simd; \
	$(GO) run ./asm -out "$$dir/kernels_amd64.s" -stubs "$$dir/kernels_amd64.go" -pkg simd; \
	for f in kernels_amd64.s kernels_amd64.go; do \
		tail -n +2 $$f >"$$dir/old"; tail -n +2 "$$dir/$$f" | cmp -s - "$$dir/old" || { echo "internal/simd/$$f is not what its generator writes: run make asm"; exit 1; }; \
	done

cross: ## build and vet for other systems, without cgo
	@set -e; for target in $(CROSS); do \
		echo "CGO_ENABLED=0 $$target"; \
		export CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/}; \
		$(GO) build ./...; \
		$(GO) vet ./...; \
	done

race: ## test the packages that start goroutines under the race detector
	$(GO) test -race $$(grep -rlE '^\s*go [a-zA-Z]|\.Go\(func|t\.Parallel' --include='*.go' . | xargs -n1 dirname | sort -u)

bench: ## a table of the benchmarks whose names match BENCH, with the machine's name
	$(GO) run ./bench/table -bench '$(BENCH)' $(BENCHFLAGS)

# The peers and what a run needs live in a folder that Go and git leave alone.
PEERS_DIR    := .peers
PEERS_PYTHON ?= python3
PEERSFLAGS   ?=

bench-peers: $(PEERS_DIR)/venv/installed ## time this library beside torchdiffeq, diffrax and torchode; writes bench/RESULTS.md
	$(GO) build -o $(PEERS_DIR)/peers ./bench/peers
	PEERS_COMMAND="make bench-peers$(if $(PEERSFLAGS), PEERSFLAGS=\"$(PEERSFLAGS)\")" \
		$(PEERS_DIR)/peers -python $(CURDIR)/$(PEERS_DIR)/venv/bin/python -out bench/RESULTS.md $(PEERSFLAGS)

interop: $(PEERS_DIR)/venv/installed ## models to and from PyTorch and Equinox, compared; writes bench/INTEROP.md
	$(GO) build -o $(PEERS_DIR)/neuralode ./cmd/neuralode
	$(PEERS_DIR)/venv/bin/python bench/peers/interop.py $(PEERS_DIR)/neuralode bench/INTEROP.md

bench-peers-venv: $(PEERS_DIR)/venv/installed ## install the peers in a virtual environment, for bench-peers and interop

$(PEERS_DIR)/venv/installed: bench/peers/requirements.txt
	$(PEERS_PYTHON) -m venv $(PEERS_DIR)/venv
	$(PEERS_DIR)/venv/bin/python -m pip install -r $<
	touch $@

cover: ## coverage of each package by all tests, and in total
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir" "$$dir.log"' EXIT; \
	$(GO) test -cover -coverpkg=./... ./... -args -test.gocoverdir="$$dir" >"$$dir.log" || { cat "$$dir.log"; exit 1; }; \
	$(GO) tool covdata percent -i="$$dir"; \
	$(GO) tool covdata textfmt -i="$$dir" -o=cover.out; \
	$(GO) tool cover -func=cover.out | tail -n 1

fuzz: ## run every fuzz target for FUZZTIME
	@grep -roE '^func Fuzz\w+' --include='*_test.go' . | sed -E 's|/[^/]*:func | |' | sort -u | \
	while read -r dir target; do \
		echo "$$dir $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" || exit 1; \
	done

table-solvers: ## evaluations and errors of every method at 1e-3, 1e-6, 1e-9
	$(GO) run ./internal/tables/solvers

table-gradients: ## error and cost of every way to a gradient
	$(GO) run ./internal/tables/gradients
