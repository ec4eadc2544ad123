# make demo           distil the embedded teacher to four steps and write runs/demo/report.html
# make test           the fast tier: formatting, types, import rules, tests
# make test-slow      the slow tier: the wheel in an empty environment, the demo and its claims, the benchmarks
# make test-all       the fast tier, then the slow one
# make test-portable  the numeric tests as on other processors: fewer instructions, other kernels, 1, 2 and 4 threads
# make test-lowest    short tests with the lowest versions that pyproject.toml allows, in .venv-lowest; torch as constrained
# make check          formatting and types only
# make docs           the documents as a site, strictly, into build/site
# make package        the wheel and the source archive, looked through, into dist
# make audit          the pinned versions against the known vulnerabilities (asks PyPI)
# make rebuild        train the embedded teacher and its classifier again (an hour), into runs/rebuild
# make verify         measure the shipped rows again (a quarter of an hour)
#
# Each target makes .venv and installs what it needs from constraints.txt; the second time that takes no time.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

# One thread per process: on a busy machine OpenMP threads wait for each other far longer than they help. Bytecode is
# kept whatever the shell says: dozens of the tests' processes import the package again.
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=
# Workers take whole stretches of tests, so that one of them makes what the tests of a file share.
SPREAD := -n $(WORKERS) --dist worksteal

# Settings of tests/portable.py, their numbers of threads, folders of tests; all of them when none are named.
SETTINGS ?=
THREADS ?= 1,2,4
TESTS ?= tests

# Packages that `make test-lowest` leaves at the version of constraints.txt, and its tests.
KEEP ?= torch
LOWEST ?= tests/core tests/config tests/prompts tests/cli/test_commands.py tests/cli/test_journey.py \
  tests/backbones/test_sd3.py tests/backbones/test_flux.py tests/backbones/test_sana.py tests/export/test_diffusers_folder.py \
  tests/roles/test_lora.py tests/training/test_run.py tests/scores/test_scoring.py
AUDIT := build/audit/bin/python

.PHONY: demo test test-slow test-all test-portable test-lowest check docs package audit rebuild verify clean
.DEFAULT_GOAL := demo

demo: .venv/installed
	@$(BIN)/fewstep demo

test: check
	$(TEST_ENV) $(BIN)/python -m pytest -m "not slow" $(SPREAD) --durations=15

test-slow: .venv/installed-dev
	$(TEST_ENV) $(BIN)/python -m pytest -m slow -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=40

test-all: test test-slow

test-portable: .venv/installed-dev
	$(BIN)/python -m tests.portable $(SETTINGS) --threads $(THREADS) --workers $(WORKERS) --tests $(TESTS)

test-lowest: .venv-lowest/installed
	$(TEST_ENV) .venv-lowest/bin/python -m pytest -m "not slow" $(LOWEST)

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

package: .venv/installed-dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m tools.distribution dist

audit:
	$(PYTHON) -m venv build/audit
	$(AUDIT) -m pip install --quiet 'pip-audit==2.10.1'
	$(AUDIT) -m pip_audit --requirement constraints.txt --disable-pip --no-deps

rebuild verify: .venv/installed-dev
	$(BIN)/python -m tools.embedded_teacher $@

clean:
	rm -rf .venv .venv-lowest build dist .mypy_cache .pytest_cache .ruff_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "fewstep needs Python 3.11 or newer, but '$(PYTHON)' is older or is not there ($$($(PYTHON) --version 2>&1 | head -n 1))." \
	       "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing fewstep into .venv (once; a few minutes)."
	$(INSTALL) --editable .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing fewstep with its test tools into .venv (once; a few minutes)."
	$(INSTALL) --editable '.[dev]'
	@touch $@

.venv-lowest/installed: pyproject.toml constraints.txt tools/lowest.py
	$(PYTHON) -m venv --clear .venv-lowest
	$(PYTHON) -m tools.lowest eval parquet --keep $(KEEP) > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/lowest.txt --editable '.[eval,parquet]' \
	  beartype hypothesis pytest
	@touch $@
