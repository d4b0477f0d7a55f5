# The verbs of this project: run, test, bench, lint. Each sets up what it needs, and a second call is fast.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := $(shell find cpp -name '*.cpp' -o -name '*.hpp' 2>/dev/null) CMakeLists.txt pyproject.toml

.PHONY: help run test bench lint format lab-deps docs clean

help:
	@echo "make run       build, then check this machine with two local MPI ranks and write the report"
	@echo "make test      all tests; what is not on this machine is skipped by name"
	@echo "make bench     figures against peers"
	@echo "make lint      formatting, types, layers"
	@echo "make lab-deps  (root) what the lab tests need: namespaces, sshd, peers, a browser"

$(VENV)/.ready: tools/preflight.sh
	@sh tools/preflight.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --upgrade pip
	@touch $@

$(VENV)/.built: $(VENV)/.ready $(NATIVE)
	$(BIN)/python -m pip --quiet install --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.built
	$(BIN)/python -m pip --quiet install --editable '.[test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip --quiet install --editable '.[test,lint]'
	@touch $@

run: $(VENV)/.built
	@$(BIN)/python tools/make_run.py

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	find cpp tests/cpp -name '*.cpp' -o -name '*.hpp' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	find cpp tests/cpp -name '*.cpp' -o -name '*.hpp' | xargs $(BIN)/clang-format -i

lab-deps:
	@sh tools/lab_deps.sh

clean:
	rm -rf $(VENV) build
