# Two commands on a fresh machine: `make run` shows the whole thing, `make test` is everything CI runs.
VENV ?= .venv
PY := $(VENV)/bin/python
.DEFAULT_GOAL := help
.PHONY: help run test check schema differential fuzz-paths clean nginx

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

schema: $(VENV)/.ready ## docs/config.schema.json, by which editors complete the configuration
	$(PY) -c 'import json; from verifier.settings import Settings; print(json.dumps(Settings.model_json_schema(), indent=2))' > docs/config.schema.json

# What we accept, two other libraries accept too: `make test` bends 20,000 tokens, this a million (some ten minutes).
DIFFERENTIAL ?= 1000000
differential: $(VENV)/.ready ## a million bent tokens against PyJWT and joserfc
	DIFFERENTIAL=$(DIFFERENTIAL) $(PY) -m pytest tests/security/test_differential.py

FUZZ_PATHS ?= 200000
fuzz-paths: $(VENV)/.ready nginx ## our reading of FUZZ_PATHS random paths against nginx's own, about a minute
	FUZZ_PATHS=$(FUZZ_PATHS) FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(PY) -m pytest tests/e2e/test_paths.py -s --timeout 3600

clean: ## forget the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
