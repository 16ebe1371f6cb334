# Two commands on a fresh machine: `make run` shows the whole thing, `make test` is everything CI runs.
VENV ?= .venv
PY := $(VENV)/bin/python
.DEFAULT_GOAL := help
.PHONY: help run test check unit bench clean nginx

help: ## what a person can type
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# ensurepip is a package of its own on Debian.
$(VENV)/.ready: pyproject.toml
	@$(call quietly,python3 -m ensurepip --version,python3-venv)
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# $(call quietly,probe,package): install a Debian package where the probe fails
quietly = $(1) >/dev/null 2>&1 || { echo "installing $(2)"; $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(2) >/dev/null; }
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

nginx:
	@$(call quietly,command -v nginx || test -x /usr/sbin/nginx,nginx)

run: $(VENV)/.ready nginx ## nginx, verifier, local issuer and API on port 8080, with curl lines to paste
	$(VENV)/bin/m2m-verifier demo

check: $(VENV)/.ready ## format, lint, types, import order
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: $(VENV)/.ready nginx check ## everything CI runs
	$(PY) -m pytest

# Everything a comparison needs that the service does not: the other sides, from PyPI and npm.
NODE_SIDES := build/bench/node
$(VENV)/.bench-ready: $(VENV)/.ready bench/node/package.json bench/node/package-lock.json
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@mkdir -p $(NODE_SIDES)
	cp bench/node/package.json bench/node/package-lock.json $(NODE_SIDES)/
	$(VENV)/bin/npm ci --prefix $(NODE_SIDES) --silent --no-audit --no-fund --ignore-scripts
	@touch $@

bench: $(VENV)/.bench-ready nginx ## measure against what users would pick instead (about 35 minutes); BENCH=--quick for two short rounds
	@$(call quietly,command -v wrk,wrk)
	$(PY) -m bench $(BENCH)

clean: ## forget the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
