# tellerd: everything a developer runs. `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
STAMP := $(VENV)/.tellerd-installed
PROTOS := $(shell find protos -name '*.proto' -o -name '*.py' -not -path '*/__pycache__/*')
CODE := $(wildcard daemon adapters tests regtest)
ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP) ## start real nodes on this machine, pay an invoice, show the books
	$(BIN)/python -m regtest.demo $(ARGS)

.PHONY: test
test: check ## check, then run all tests, fast ones first
	$(BIN)/python -m regtest.binaries # before the first test: LND is compiled where it is not in the cache
	$(BIN)/python -m regtest.chromium # for the test of the page: unpacked where it is not in the cache
	$(BIN)/python -m tests.medici.node # for those beside medici: a test's time is not a download's
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS) # two: most of the time they wait for nodes

.PHONY: compose-test
compose-test: $(STAMP) ## try docker-compose.regtest.yml on a Docker engine; ARGS=--own-engine starts one
	$(BIN)/pytest tests/compose $(ARGS)

.PHONY: check
check: $(STAMP) ## formatting, lint, types, import rules, API rules
	$(BIN)/ruff format --check $(CODE) protos
	$(BIN)/ruff check $(CODE) protos
	$(BIN)/flake8 --select=ASYNC1,ASYNC2,ASYNC3,ASYNC4 --extend-exclude=_pb $(CODE)
	$(BIN)/mypy --strict $(CODE)
	$(BIN)/mypy --strict protos/build_stubs.py
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos

.PHONY: bench
bench: $(STAMP) ## measure
	$(BIN)/python -m tests.bench $(ARGS)

.PHONY: regtest
regtest: $(STAMP) ## start real nodes on this machine and leave them running
	$(BIN)/python -m regtest $(ARGS)

.PHONY: protos
protos: $(STAMP) ## make the stubs of protos/ anew (an install does it, too)
	$(BIN)/python protos/build_stubs.py

# One file for every supported Python: uv resolves for all of them at once, pip installs. Pins stay unless
# ARGS=--upgrade (or ARGS='-P trio'). What is written names no index, no host and no path of this machine.
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make requirements' $(ARGS) pyproject.toml

.PHONY: requirements
requirements: $(STAMP) ## pin the versions of pyproject.toml, with hashes
	$(UV_COMPILE) --extra dev --output-file tests/requirements.txt
	$(UV_COMPILE) --constraint tests/requirements.txt --output-file ops/requirements.txt
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(subst pyproject.toml,-,$(UV_COMPILE)) --constraint tests/requirements.txt --output-file ops/build-requirements.txt

.PHONY: clean
clean: ## remove what was made here: the virtual environment, stubs, caches
	rm -rf $(VENV) adapters/grpc_api/_pb adapters/lnd/_pb adapters/prices/_pb build dist
	rm -rf .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache htmlcov
	find daemon adapters protos tests regtest -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The virtual environment: exactly the pinned packages, and tellerd itself in place, with its stubs.
$(STAMP): pyproject.toml tests/requirements.txt $(PROTOS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("tellerd needs Python 3.11 or newer")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'venv is missing: apt install python3-venv' >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	for left in 2 1 0; do \
		$(BIN)/python -m pip install --quiet --require-hashes -r tests/requirements.txt && break; \
		test $$left -gt 0 && sleep 10; \
	done # what has come is kept; a download that broke off is begun again, twice at most
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
