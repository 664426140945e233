# Every target does its own set-up on a machine with git, make and Python >= 3.11 with venv.
# `test` also wants Go, to build the S3 server it keeps pictures in.
# The tool that installs is pinned here, what it installs in uv.lock.

PYTHON ?= python3
UV     := .tools/bin/uv
BIN    := .venv/bin
READY  := .venv/.ready
WORKERS ?= 2

.PHONY: dev test check demo bench chaos everything clean help

help:  ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit("Safelight needs Python 3.11 or later; this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv .tools
	@.tools/bin/pip install --quiet --disable-pip-version-check uv==0.13.8

$(READY): $(UV) pyproject.toml uv.lock
	@$(UV) sync --quiet --frozen --python $(PYTHON)
	@touch $@

dev: $(READY)  ## Start the gateway on this machine: no key, nothing to configure
	@$(BIN)/safelight dev

test: $(READY)  ## Run the tests, with coverage
	@tests/parts.sh
	@rm -f .coverage .coverage.*
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup --cov --cov-report= tests
	$(BIN)/coverage report --include='policies/*' --fail-under=100
	$(BIN)/coverage report --include='gateway/*' --fail-under=92

check: $(READY)  ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: $(READY)  ## See it work in half a minute: pictures, rules, money, kill -9
	@$(BIN)/safelight demo

bench: $(READY)  ## Measure, as ratios to bare Litestar within one run
	@$(BIN)/python -m tests.bench; ratios=$$?; $(BIN)/python -m tests.bench.waiters && exit $$ratios

chaos: $(READY)  ## Break it in every way, on both stores, and count what is lost
	@$(BIN)/python -m tests.chaos

everything: check test demo  ## All of it, the long runs too
	@PLANTS=1 $(MAKE) chaos
	@FULL=1 $(MAKE) chaos
	@$(MAKE) bench

clean:  ## Remove what was made
	rm -rf .tools .venv .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* .safelight
