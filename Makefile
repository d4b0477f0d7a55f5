# The verbs of this project: run, test, bench, fuzz, lint. Each sets up what it needs, and a second call is fast.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := $(shell find cpp -name '*.cpp' -o -name '*.hpp' 2>/dev/null) CMakeLists.txt pyproject.toml \
          cwai_bench/__init__.py
# The editable installation knows the modules by name: a new or a removed one needs it made again.
MODULES := $(VENV)/.modules-$(shell find cwai_bench reports -name '*.py' | LC_ALL=C sort | cksum | cut -d' ' -f1)
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check install

.PHONY: help run test bench fuzz lint format lab-deps docs clean

help:
	@echo "make run       build, then check this machine with two local MPI ranks and write the report"
	@echo "make test      all tests; what is not on this machine is skipped by name"
	@echo "make bench     figures against peers"
	@echo "make fuzz      coverage-guided fuzzing of all readers of foreign text"
	@echo "make lint      formatting, types, layers"
	@echo "make lab-deps  (root) what the lab tests need: namespaces, sshd, peers, a browser"

$(VENV)/.ready: tools/preflight.sh
	@sh tools/preflight.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(MODULES): $(VENV)/.ready
	@rm -f $(VENV)/.modules-*
	@touch $@

$(VENV)/.built: $(VENV)/.ready $(MODULES) $(NATIVE)
	$(PIP) --editable .
	@touch $@

# By name, not as '.[test]': the package is installed already, and must not be built a second time for its extras.
$(VENV)/.test: $(VENV)/.built
	$(PIP) 'cwai-bench[test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) 'cwai-bench[lint]'
	@touch $@

run: $(VENV)/.built
	@$(BIN)/python tools/make_run.py $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(ARGS)

# ROWS=tcp,mpi: only these; WRITE=docs/bench.md: the table as a page, too.
bench: $(VENV)/.test
	@$(BIN)/python -m tests.bench $(if $(ROWS),--rows $(ROWS)) $(if $(WRITE),--write $(WRITE))

$(VENV)/.fuzz: $(VENV)/.test
	$(PIP) 'cwai-bench[fuzz]'
	@touch $@

# SECONDS=60: for each target; TARGETS=ascend,nic: only these. What breaks a reader is kept in tests/fixtures/fuzz.
fuzz: $(VENV)/.fuzz
	@$(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TARGETS),--targets $(TARGETS))

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	find cpp tests/cpp -name '*.cpp' -o -name '*.hpp' | xargs $(BIN)/clang-format --dry-run --Werror
	export PATH="$(abspath $(BIN)):$$PATH"; cmake --preset tidy > /dev/null && cmake --build --preset tidy --parallel $$(nproc) > /dev/null

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	find cpp tests/cpp -name '*.cpp' -o -name '*.hpp' | xargs $(BIN)/clang-format -i

docs: $(VENV)/.built
	$(BIN)/python tools/generate_docs.py

lab-deps:
	@sh tools/lab_deps.sh

clean:
	rm -rf $(VENV) build
