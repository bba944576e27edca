# make itself is the scheduler: an executed notebook is a file that depends on its source, its profile and the library.
SHELL := /bin/sh
PROFILE ?= laptop
RUNS := reports/runs/$(PROFILE)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.from-lock
CPUS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
JOBS ?= $(shell [ $(CPUS) -lt 8 ] && echo $(CPUS) || echo 8)
TABLES ?= digits digits_resnet8 cifar10
# What a notebook's results may depend on: every module but those that run, compare and publish notebooks.
SOURCES := $(filter-out %/report/notebook.py %/report/publish.py %/__main__.py,$(sort $(shell find lib/graphprune -name '*.py')))
PYTEST = GRAPHPRUNE_QUIET=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --durations=10

# A profile other than laptop runs the notebooks it names; laptop is every notebook at its own default parameters.
PROFILE_FILE := $(wildcard notebooks/profiles/$(PROFILE).yaml)
ifeq ($(PROFILE),laptop)
NAMED := $(basename $(notdir $(wildcard notebooks/[0-9][0-9]_*.ipynb)))
else ifneq ($(PROFILE_FILE),)
NAMED := $(shell sed -n 's/^\([0-9][0-9]_[A-Za-z0-9_]*\):.*/\1/p' $(PROFILE_FILE))
else
$(error PROFILE=$(PROFILE) is unknown: use one of laptop $(basename $(notdir $(wildcard notebooks/profiles/*.yaml))))
endif

# One thread a process: notebooks run side by side, and the same seed then gives the same bits.
export OMP_NUM_THREADS ?= 1
# Bytecode is kept inside .venv: each notebook and each process it starts would else spend ten seconds compiling imports.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/pycache

.DEFAULT_GOAL := help
.PHONY: help venv report runs publish test test-lib test-notebooks lint lab notebooks lock clean conformance bench tabular

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'
	@echo "  PROFILE=laptop|cifar|... chooses what report and publish work on, JOBS=$(JOBS) how many processes run at once."

venv: $(STAMP)  ## build .venv from requirements.lock (every other target does it when it is missing or stale)

report: $(STAMP)  ## run the notebooks of PROFILE, then say how their tables differ from the committed ones
	@status=0; $(MAKE) --no-print-directory --keep-going $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS)) runs || status=$$?; \
	$(BIN)/python -m graphprune compare --profile $(PROFILE) || status=$$?; exit $$status

runs: $(NAMED:%=$(RUNS)/%.ipynb)

$(RUNS)/%.ipynb: notebooks/%.ipynb $(PROFILE_FILE) $(SOURCES) requirements.lock | $(STAMP)
	@$(BIN)/python -m graphprune run $< --profile $(PROFILE)

publish: report  ## copy figures, tables and results of PROFILE into reports/, to be committed
	@$(BIN)/python -m graphprune publish --profile $(PROFILE)

test: $(STAMP)  ## the whole check: test-lib and test-notebooks in one run
	$(PYTEST)

test-lib: $(STAMP)  ## the tests, the examples in docstrings, and the code in README and docs
	$(PYTEST) tests lib/graphprune

test-notebooks: $(STAMP)  ## every notebook run anew and compared with its stored outputs
	$(PYTEST) notebooks

conformance: $(STAMP)  ## prune every network of the zoo and prove it, check the proven optimum against 10^9 (resumable)
	$(BIN)/python benchmarks/conformance.py
	$(BIN)/python benchmarks/exact_enumeration.py

tabular: $(STAMP)  ## measure the tables of true accuracies in reports/tabular (resumable; from nothing some hours; TABLES=digits is one)
	@set -e; for table in $(TABLES); do $(BIN)/python -m graphprune tabular $$table; done

bench: $(STAMP)  ## measure the library against its peers, goals and limits; writes reports/benchmarks.{csv,md}
	$(BIN)/python benchmarks/gather.py $(BENCH)

lint: $(STAMP)  ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(STAMP)  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(LABFLAGS)

notebooks: $(STAMP)  ## run the notebooks in place, to renew the outputs stored in them
	GRAPHPRUNE_QUIET=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False $(if $(NOTEBOOK),$(NOTEBOOK),$(sort $(wildcard notebooks/[0-9][0-9]_*.ipynb)))

lock: $(STAMP)  ## resolve pyproject.toml anew into requirements.lock (add UPGRADE=--upgrade for newer versions)
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	  --extra dev --python-version 3.11 $(UPGRADE) --quiet pyproject.toml -o requirements.lock

clean:  ## remove .venv and the tools' caches; what reports/runs holds stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis lib/*.egg-info
	find lib tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

# Python >= 3.11 makes .venv. uv fills it: the one on PATH, else the one the lock pins, else pip does.
$(STAMP): requirements.lock pyproject.toml
	@set -e; python=; \
	for name in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14 python; do \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "Python >= 3.11 is needed and not on PATH: install it, or say make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	rm -f $@; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "Making $(VENV) with $$("$$python" --version)"; rm -rf $(VENV); \
	  if command -v uv >/dev/null; then uv venv --quiet --python "$$(command -v "$$python")" $(VENV); \
	  else "$$python" -m venv $(VENV) || { rm -rf $(VENV); echo "python3 -m venv failed: install your system's python3-venv package, or uv" >&2; exit 1; }; fi; \
	fi; \
	echo "Installing requirements.lock into $(VENV)"; \
	if command -v uv >/dev/null; then uv=uv; \
	elif $(BIN)/uv --version >/dev/null 2>&1; then uv=$(BIN)/uv; \
	else \
	  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
	  awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > $(VENV)/uv.lock; \
	  if $(BIN)/python -m pip install --quiet --force-reinstall --require-hashes -r $(VENV)/uv.lock; then uv=$(BIN)/uv; else uv=; fi; \
	fi; \
	if [ -n "$$uv" ]; then \
	  VIRTUAL_ENV=$(CURDIR)/$(VENV) "$$uv" pip install --quiet --require-hashes -r requirements.lock; \
	  VIRTUAL_ENV=$(CURDIR)/$(VENV) "$$uv" pip install --quiet --no-deps --no-build-isolation -e .; \
	else \
	  $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock; \
	  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .; \
	fi; \
	touch $@
