# `make demo` and `make test` do all the set-up that they need.
.DEFAULT_GOAL := help
.PHONY: chaos help setup demo test test-full test-kernel lint format bench docs-reference clean

BIN := .venv/bin
PYTEST := $(BIN)/pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --ignore=tests/kernel
KERNEL := $(BIN)/python -m tests.kernel.bench

help:
	@echo "make demo            from nothing to an encrypted volume on this host, with real processes"
	@echo "make test            linters, types, contracts, all quick tests"
	@echo "make test-full       the same with the slow tests"
	@echo "make test-kernel     the tests on a real kernel, in a virtual machine; K=name: only those; ARCH=s390x or dasd: IBM Z, all: each"
	@echo "make chaos           two coordinators, agents and users while everything is killed (BRICKYARD_CHAOS_S, _SEED)"
	@echo "make lint            linters, formatting and types alone"
	@echo "make bench           all benchmarks"
	@echo "make docs-reference  write the generated pages of docs/reference anew"
	@echo "make setup           only what the others need: packages, .venv"
	@echo "make clean           remove what was made here"

setup:
	@.ci/setup

demo: setup
	$(BIN)/python tests/demo/run.py

test: lint
	$(PYTEST) -m "not slow" tests
	$(KERNEL) --optional --smoke

# Most slow tests wait for processes that were killed: one worker more than processors.
test-full: lint
	BRICKYARD_CHAOS_S=600 $(PYTEST) -n $$(($$(nproc) + 1)) --durations=30 tests
	$(KERNEL) --optional --arch all

chaos: setup
	$(BIN)/pytest -q -s -rA tests/integration/kill/test_chaos.py

test-kernel: setup
	$(KERNEL) $(if $(ARCH),--arch $(ARCH)) $(if $(K),-k "$(K)") $(if $(RECORD),--record) $(if $(STOCK),--stock) $(if $(COVERAGE),--coverage)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	@failed=; for script in benchmarks/[a-z]*.py; do \
		echo "== $$script"; $(BIN)/python $$script || failed="$$failed $$script"; \
	done; test -z "$$failed" || { echo "goal not met:$$failed"; exit 1; }

docs-reference: setup
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
