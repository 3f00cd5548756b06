# Everything works on a machine that has Python 3.11 or newer and make, and nothing else.
# `make help` lists the targets. What pip reads from the environment (PIP_INDEX_URL, ...) applies.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# On Linux the package index may have torch with CUDA, a download of 2.7 GB with what it needs. What
# pip reads from the environment applies: PIP_EXTRA_INDEX_URL can name the index of CPU builds, 0.2 GB
# (docs/quickstart.md). A torch of the pinned version that is there already stays.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The first interpreter that is new enough and can make virtual environments; PYTHON=... overrides.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
FIND_PYTHON = for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if "$$candidate" -c "$(USABLE)" >/dev/null 2>&1; then echo "$$candidate"; exit 0; fi; \
	done; \
	echo "worldmodels needs Python 3.11 or newer with the venv and ensurepip modules; found:" \
	  "$$(python3 --version 2>&1 || echo 'no python3')." \
	  "Install one (on Debian and Ubuntu: python3-venv), or say which: make PYTHON=/path/to/python3.11" >&2; \
	exit 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

# Each stamp is made once and again only when the requirements change. The package is installed
# editable, so the sources in this folder are what runs.
$(BIN)/python:
	@python="$$($(FIND_PYTHON))"; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)

$(VENV)/.core-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing worldmodels and what it needs (once, some minutes). Nearly all of it is torch:" \
	  "2.7 GB with CUDA, 0.2 GB without; docs/quickstart.md says how to choose"
	@$(PIP_INSTALL) --editable .
	@touch $@

# More than the core, so whoever has this has the core too.
$(VENV)/.dev-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing worldmodels with the tools for tests, lint, types and docs (once, some minutes)"
	@$(PIP_INSTALL) --editable '.[dev,docs]'
	@touch $(VENV)/.core-installed $@

$(VENV)/.bench-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing worldmodels with the peers that the benchmarks compare with (once, some minutes)"
	@$(PIP_INSTALL) --editable '.[bench]'
	@touch $(VENV)/.core-installed $@

$(VENV)/.figures-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing worldmodels with the environments that the figures show (once, some minutes)"
	@$(PIP_INSTALL) --editable '.[dev,docs,atari,doom,minigrid]'
	@touch $(VENV)/.core-installed $(VENV)/.dev-installed $@

.PHONY: venv
venv: $(VENV)/.dev-installed ## only make the virtual environment, tools included

.PHONY: demo
demo: $(VENV)/.core-installed ## train an agent in its own dream and show it: runs/demo/report.html
	$(BIN)/worldmodels run --preset quick --out runs/demo
	@echo "The report: runs/demo/report.html"

.PHONY: play
play: $(VENV)/.core-installed ## watch the package's agent: a window, or a film in runs/play
	$(BIN)/worldmodels play

.PHONY: test
test: $(VENV)/.dev-installed ## run the tests, the slowest named at the end
	$(BIN)/python -m pytest --durations=10 --durations-min=1.0 $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.dev-installed ## check style, formatting and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

.PHONY: format
format: $(VENV)/.dev-installed ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(VENV)/.dev-installed ## check types, strictly
	$(BIN)/mypy

.PHONY: docs
docs: $(VENV)/.dev-installed ## build the documentation, notebooks executed: docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "The documentation: docs/_build/html/index.html"

.PHONY: figures
figures: $(VENV)/.figures-installed ## draw the pictures of README and docs whose code or data changed
	$(BIN)/python -m scripts.make_figures

.PHONY: readme
readme: $(VENV)/.dev-installed ## run the commands that the README shows, make demo left out
	$(BIN)/python scripts/check_readme.py README.md

.PHONY: wheel
wheel: $(VENV)/.dev-installed ## build the wheel, install it alone, and run its commands elsewhere
	$(BIN)/python scripts/check_wheel.py

.PHONY: claims
claims: $(VENV)/.dev-installed ## check the figures of README and docs against the committed results
	$(BIN)/python scripts/check_claims.py

SPEED := env collection storage training busy dream planning ppo gan sparse commands device

.PHONY: bench
bench: $(VENV)/.bench-installed ## measure speed beside peers and the machine's limit
	for name in $(SPEED); do $(BIN)/python "benchmarks/$$name.py"; done

.PHONY: speed-page
speed-page: $(VENV)/.core-installed ## write the page of speed from the benchmarks' committed results
	$(BIN)/python -m scripts.make_speed_page

.PHONY: compare
compare: $(VENV)/.core-installed ## compare the committed results: runs/compare/comparison.html
	$(BIN)/worldmodels compare benchmarks/results/comparison.json --out runs/compare

.PHONY: clean
clean: ## remove the virtual environment, caches and built files; runs/ stays
	rm -rf $(VENV) docs/_build dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
