# Gatehouse: `make demo` and `make test` each do all of their own set-up. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3.11 python3 /usr/bin/python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
SETUP = $(if $(PYTHON),$(PYTHON),python3) -m deploy.setup
BIN := .venv/bin
export LOG NAME

.PHONY: help setup setup-dev demo test check lint types contracts up down doctor bench clean

help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: ## Set up everything needed to run: .venv, console, Docker engine, sandbox image (does nothing when done)
	@$(SETUP)

setup-dev:
	@$(SETUP) --dev

demo: ## Run the main job on a real file and show what happened (LOG=/path/to/any.log takes your own)
	@$(SETUP) --quiet
	@$(BIN)/python -m deploy.demo $(if $(LOG),--log "$$LOG")

test: setup-dev ## Static checks, then the whole test suite against the real parts (ARGS="-k name" narrows it)
	@$(MAKE) --no-print-directory lint types contracts
	$(BIN)/python -m tests $(ARGS)

check: test ## The same as test: lint, types, import contracts, tests

lint: ## Ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: ## Pyright, strict
	$(BIN)/pyright

contracts: ## Which package may import which
	$(BIN)/lint-imports

up: ## Keep the system running in the foreground (Temporal, API, three workers, keeper); Ctrl-C stops it
	@$(SETUP) --quiet
	@exec $(BIN)/gatehouse up

down: ## Stop what `make up` or `make demo` left running
	@test ! -x $(BIN)/gatehouse || $(BIN)/gatehouse down

doctor: ## Say what is present, missing or misconfigured, and the remedy
	@test -x $(BIN)/gatehouse || { echo "Not set up yet. Run: make setup" >&2; exit 1; }
	@$(BIN)/gatehouse doctor

bench: setup-dev ## Run the benchmarks (NAME=x runs one); the last line of each is one JSON object
	@$(BIN)/python -m benchmarks $(if $(NAME),"$$NAME")

clean: ## Stop the system, then remove .venv and caches (never the data in .gatehouse)
	-@test ! -x $(BIN)/gatehouse || $(BIN)/gatehouse down
	rm -rf .venv build test-output .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
