# Everything that a person or a CI run does here is a target; `make help` lists them.
#
# The first target that needs packages creates $(VENV) and installs them, held to constraints/. A stamp
# remembers it, so the next call starts at once; a change of pyproject.toml or constraints/ renews it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV ?= .venv
CACHE ?= .cache
BIN := $(VENV)/bin

# The first Python that is new enough and can make environments. Shims that lead nowhere are passed over.
find_python = $(shell for each in python3.11 python3.12 python3.13 python3; do \
	"$$each" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v "$$each"; break; }; done)
PYTHON ?= $(find_python)

# Without a GPU torch is pinned to a release whose CPU build is known to work; with one, pip chooses the
# build. TORCH=cpu or TORCH=cuda decides by hand.
TORCH ?= $(shell if nvidia-smi -L >/dev/null 2>&1; then echo cuda; else echo cpu; fi)
CONSTRAINTS = constraints/$(if $(filter cuda,$(TORCH)),common,cpu).txt

PIP := $(BIN)/python -m pip --disable-pip-version-check
ADAPTERHUB := $(CACHE)/adapterhub
POLYLORA := $(CACHE)/polylora

# Tests run in as many processes as there are cores, each file whole in one of them. More than four gain little:
# every process has servers of its own.
TEST_PROCESSES ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 4 ? cores : 4)))
PYTEST = $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile
PYTEST_ARGS ?=
DEMO_ARGS ?=
UP_ARGS ?=
BENCH_ARGS ?=
MINILM_ARGS ?=

##@ Use
.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(VENV)/.installed-dev ## Create the environment with everything for development

.PHONY: demo
demo: $(VENV)/.installed-demo ## Run the demonstration from beginning to end (DEMO_ARGS=...)
	$(BIN)/hmi demo $(DEMO_ARGS)

.PHONY: up
up: $(VENV)/.installed-demo ## Start all services on this machine and stay (UP_ARGS=...)
	$(BIN)/hmi up $(UP_ARGS)

.PHONY: docker-env
docker-env: ## Write docker/*.env with random passwords, for docker/compose.yaml
	PYTHONPATH=. $(PYTHON) docker/write_env.py

##@ Check
.PHONY: test
test: $(VENV)/.installed-test $(ADAPTERHUB)/.installed ## Run all tests: unit, integration, end to end
	$(PYTEST) tests/unit tests/integration tests/e2e $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: $(VENV)/.installed-test $(ADAPTERHUB)/.installed ## Run the unit tests
	$(PYTEST) tests/unit $(PYTEST_ARGS)

.PHONY: test-integration
test-integration: $(VENV)/.installed-test $(ADAPTERHUB)/.installed ## Run the tests against real Redis, SQLite and PostgreSQL
	$(PYTEST) tests/integration $(PYTEST_ARGS)

.PHONY: test-e2e
test-e2e: $(VENV)/.installed-test ## Run the tests against the services as processes
	$(PYTEST) tests/e2e $(PYTEST_ARGS)

.PHONY: test-installs
test-installs: $(VENV)/.installed-test ## Install each extra alone and run what it promises: about 20 minutes
	$(BIN)/python -m pytest tests/install $(PYTEST_ARGS)

.PHONY: test-gpu
test-gpu: $(VENV)/.installed-test ## Run the tests that need CUDA
	$(BIN)/python -m pytest -m gpu tests/gpu $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.installed-dev ## Check style, the Dockerfile and the compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml

.PHONY: types
types: $(VENV)/.installed-dev ## Check types
	$(BIN)/mypy

.PHONY: format
format: $(VENV)/.installed-dev ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.installed-bench ## Run the benchmarks (BENCH_ARGS=...)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

.PHONY: bench-peers
bench-peers: $(VENV)/.installed-test $(ADAPTERHUB)/.installed $(POLYLORA)/.installed ## Compare with PEFT, AdapterHub and PolyLoRA (BENCH_ARGS=...)
	$(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

.PHONY: minilm
minilm: $(VENV)/.installed-bench ## Distil MiniLM-L6 at k = 3 anew, into hmi/differences: over an hour (MINILM_ARGS=...)
	$(BIN)/python -m benchmarks.minilm $(MINILM_ARGS)

.PHONY: fresh
fresh: ## Clone HEAD into a temporary folder and run all tests there
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT \
	&& git clone --quiet . "$$folder/hmi" && $(MAKE) -C "$$folder/hmi" test

##@ Maintain
.PHONY: lock
lock: ## Install the newest of everything aside and write constraints/common.txt
	rm -rf $(CACHE)/lock
	$(PYTHON) -m venv $(CACHE)/lock
	grep -E '^(torch|triton)==' constraints/cpu.txt > $(CACHE)/lock/torch.txt
	$(CACHE)/lock/bin/python -m pip install --quiet --constraint $(CACHE)/lock/torch.txt --editable '.[dev,s3]'
	$(CACHE)/lock/bin/python -m pip check
	{ echo '# Written by `make lock`: the releases that are tested together. torch is held in cpu.txt.'; \
		$(CACHE)/lock/bin/python -m pip freeze --exclude-editable | LC_ALL=C sort --ignore-case \
		| grep -v -i -E '^(torch|triton|(nvidia|cuda)-[a-z0-9-]+|setuptools|pip)=='; } > $(CACHE)/lock/common.txt
	mv $(CACHE)/lock/common.txt constraints/common.txt

.PHONY: clean
clean: ## Remove caches and what builds leave behind
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove the environment, downloads and local data too
	rm -rf $(VENV) $(CACHE) .hmi

# Stamps ---------------------------------------------------------------------------------------------

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each extra of pyproject.toml.
$(VENV)/.installed-%: pyproject.toml $(wildcard constraints/*.txt) | $(BIN)/python
	@echo "Installing hmi[$*] into $(VENV), held to $(CONSTRAINTS) (minutes the first time)"
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable '.[$*]'
	@touch $@

# AdapterHub's library asks for an older transformers than this project. The tests that take it as their
# oracle run it in a process of its own, over this folder.
$(ADAPTERHUB)/.installed: constraints/adapterhub.txt | $(VENV)/.installed-test
	rm -rf $(ADAPTERHUB)
	$(PIP) install --quiet --no-deps --target $(ADAPTERHUB) --requirement $<
	@touch $@

# PolyLoRA asks for packages that it can do without.
$(POLYLORA)/.installed: constraints/polylora.txt | $(VENV)/.installed-test
	rm -rf $(POLYLORA)
	$(PIP) install --quiet --no-deps --target $(POLYLORA) --requirement $<
	@touch $@
