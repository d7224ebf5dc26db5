# Everything happens inside the checkout, in .venv; nothing needs root but test-parts.
# `make help` lists the targets. Works with GNU make 3.81 and later.

PYTHON ?= python3
ARGS ?=
V := .venv
PY := $(V)/bin/python

# A per-test limit in seconds, so that a hang is a failure with a stack.
TIMEOUT ?= 120
PYTEST = $(PY) -m pytest --timeout=$(TIMEOUT)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-dev up down test test-long test-unit test-local test-cluster test-parts \
	cluster-parts cluster-up cluster-down cluster-status \
	images lint format bench docs pins clean need-python

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  (ARGS=... is handed on; PYTHON=/path/to/python3.12 picks the interpreter)"

setup: $(V)/.stamp-run ## make .venv with the command and its pinned packages

setup-dev: $(V)/.stamp-dev ## the same, with what tests and lint need

need-python:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "set-up: no $(PYTHON) on PATH: install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }

# A second run does nothing: a stamp is older than the pins only when they changed.
$(V)/.stamp-run: requirements.txt tools/environment.py | need-python
	@"$(PYTHON)" tools/environment.py $(V) requirements.txt
	@touch $@

# The development pins contain the others, so this makes both stamps.
$(V)/.stamp-dev: requirements-dev.txt tools/environment.py | need-python
	@"$(PYTHON)" tools/environment.py $(V) requirements-dev.txt
	@touch $(V)/.stamp-run $@

up: $(V)/.stamp-run ## bring the nine modules up, live view (ARGS=--detach returns when ready)
	@echo "the command: $(V)/bin/idi"
	@$(V)/bin/idi up $(ARGS)

down: ## stop everything that `make up` started
	@if [ -x $(V)/bin/idi ]; then $(V)/bin/idi down $(ARGS); else echo "nothing is set up here"; fi

# The quick ones beside each other; what starts servers has the machine for itself.
QUICK := tests/unit tests/command
LOCAL := $(wildcard tests/contracts tests/local tests/faults)
# Two clusters beside each other, each with whole files: most of the time a cluster's tests wait for it.
CLUSTER := -n 2 --dist loadfile --no-loadscope-reorder tests/cluster

# Real servers on a busy machine: what failed is run once more, by itself and on new ones, and the first failure is
# in the output. What is broken fails twice (docs/decisions/0015).
define once-more
	@$(PYTEST) $(1) $(ARGS) || { [ $$? = 1 ] || exit 1; \
	  echo "== failed: the tests above; once more, on new servers" >&2; \
	  $(PYTEST) $(1) --last-failed --last-failed-no-failures none $(ARGS); }
endef

test: $(V)/.stamp-dev test-parts cluster-parts ## every test, short seeded counts
	@$(PYTEST) -n 2 $(QUICK) $(ARGS)
	$(call once-more,$(LOCAL))
	$(call once-more,$(CLUSTER))

test-long: $(V)/.stamp-dev test-parts cluster-parts ## the same tests with the counts of acceptance
	@IDI_TEST_SCALE=full $(PYTEST) --timeout=3600 $(QUICK) $(LOCAL) tests/cluster $(ARGS)

test-unit: $(V)/.stamp-dev ## tests that start no server
	@$(PYTEST) -n 2 tests/unit $(ARGS)

test-local: $(V)/.stamp-dev ## tests with real engines on this machine
	@$(PYTEST) $(LOCAL) $(ARGS)

test-cluster: $(V)/.stamp-dev test-parts cluster-parts ## tests on a real Kubernetes
	$(call once-more,$(CLUSTER))

# Before the tests and not in them: the first build takes longer than any test may.
cluster-parts: $(V)/.stamp-dev
	@$(PY) -m tests.support.cluster build

NODES ?= 3
NAME ?= idi
cluster-up: $(V)/.stamp-dev test-parts cluster-parts ## a Kubernetes to play with (NODES=3 NAME=idi)
	@$(PY) -m tests.support.cluster up $(NAME) --nodes $(NODES)

cluster-down: $(V)/.stamp-dev ## take it down, all included
	@$(PY) -m tests.support.cluster down $(NAME)

cluster-status: $(V)/.stamp-dev ## which are up, and their nodes
	@$(PY) -m tests.support.cluster status

# PUSH=registry.example/team pushes them and prints each by digest. ARGS: python tools/images.py --help
images: $(V)/.stamp-run ## every image, with docker or buildah (PUSH=registry/prefix)
	@$(PY) tools/images.py $(if $(PUSH),--push $(PUSH)) $(ARGS)

# System packages that tests need, by name; installed only where root and apt-get are there.
SYSTEM_PACKAGES := zsh fish \
	containerd runc containernetworking-plugins docker-registry iptables ipset conntrack kmod buildah debootstrap
test-parts: ## system packages for the tests (root and apt only)
ifneq ($(strip $(SYSTEM_PACKAGES)),)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1 || { echo "test-parts: installing $(SYSTEM_PACKAGES)" >&2; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; }; \
	else echo "test-parts: no root or no apt-get: tests that need $(SYSTEM_PACKAGES) are skipped"; fi
else
	@:
endif

lint: $(V)/.stamp-dev ## style, types, import contracts, Dockerfiles, file lengths, generated files
	@$(V)/bin/ruff check --quiet .
	@$(V)/bin/ruff format --check --quiet . || { echo "ruff format: the files above (make format)" >&2; exit 1; }
	@$(V)/bin/mypy
	@$(V)/bin/lint-imports --no-logo
	@$(V)/bin/hadolint $(wildcard images/*/Dockerfile standins/*/Dockerfile)
	@$(PY) tools/file_length.py src
	@$(PY) tools/generated.py --check

format: $(V)/.stamp-dev ## put the code into its form
	@$(V)/bin/ruff check --quiet --fix . ; $(V)/bin/ruff format --quiet .

FIGURES := command gateway hop propagation start idle durability events
bench: $(V)/.stamp-dev ## every figure, each with its noise, short counts (one: python -m bench.NAME)
	@for figure in $(FIGURES); do $(PY) -m bench.$$figure --short $(ARGS) || exit 1; done

docs: $(V)/.stamp-dev ## write the pages and files that are made from the code
	@$(PY) tools/generated.py

COMPILE = $(V)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --system-certs \
	--no-emit-index-url --custom-compile-command "make pins" $(ARGS) pyproject.toml
pins: $(V)/.stamp-dev ## pin again from pyproject.toml (ARGS=--upgrade for newer ones)
	@$(COMPILE) -o requirements.txt
	@$(COMPILE) --group dev --extra kubernetes -c requirements.txt -o requirements-dev.txt
	@if grep -nE '://|--(extra-)?index|--find-links' requirements.txt requirements-dev.txt; then \
	  echo "pins: an address got into the requirements" >&2; exit 1; fi

clean: ## remove the environment and every cache
	@rm -rf $(V) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
