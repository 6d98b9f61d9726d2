# Every target does the set-up it needs; `make setup` may be run again at any time.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

# One line of the terminal: what pip is at; nothing in a log. Its errors go to stderr, past this.
PROGRESS := { test -t 1 || exec cat > /dev/null; \
  awk '/^(Collecting|Obtaining|Installing)|Downloading/ { printf "\r%-79.79s", $$0; fflush() } \
  END { printf "\r%-79s\r", "" }'; }

.PHONY: setup demo test quick lint up down bench bench-orchestrator docs

setup: .venv/.installed

# A copied or moved folder brings a .venv whose scripts and links name the place it was made in: they get the new one.
VENV_PLACE := $(shell sed -n 's|^command = .* -m venv \(.*\)/\.venv$$|\1|p' .venv/pyvenv.cfg 2>/dev/null)
ifneq ($(VENV_PLACE),$(if $(VENV_PLACE),$(CURDIR)))
$(info this folder was copied or moved from $(VENV_PLACE); its .venv is set to this place)
$(shell grep -rlIF "$(VENV_PLACE)/" .venv/bin .venv/pyvenv.cfg .venv/lib/python*/site-packages/__editable__* \
  | xargs -r -d '\n' sed -i "s|$(VENV_PLACE)/|$(CURDIR)/|g")
endif

# The CPU build of torch is taken where the package index offers one: installed first, the rest keeps it.
.venv/.installed: pyproject.toml constraints.txt
	@echo "Setting up .venv: about 2 minutes and 3 GB of disk, more with a CUDA build of torch"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install torch==2.13.0 | $(PROGRESS)
	@$(BIN)/python -m pip install -c constraints.txt -e '.[pipeline,serve,dev]' | $(PROGRESS)
	@$(BIN)/python -m pip check
	@touch $@

demo: setup
	$(BIN)/python -m flows.run demo $(if $(TAKE_OVER),--take-over)

up: setup
	$(BIN)/python -m flows.run up $(if $(TAKE_OVER),--take-over)

down: setup
	$(BIN)/python -m flows.run down $(if $(NOW),--now)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/prose.py
	$(BIN)/deptry .
	$(BIN)/deptry tests benchmarks --exclude data/ --ignore DEP002,DEP004  # these may import what dev has
	$(BIN)/python -m docs.generate --check

# The reference pages that are made from the command line and the settings.
docs: setup
	$(BIN)/python -m docs.generate

# Two processes: while a test of one waits, the other computes. Files stay whole, for what their tests share, and begin in
# their order: the long ones are not the last.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

# The tests without networks, engines and processes: under a minute.
quick: setup
	$(BIN)/python -m pytest --quick -q -m "not slow and not gpu"

# The peers live in an environment of their own: what they need does not fit beside what we need.
.bench-venv/.installed: benchmarks/requirements.txt
	test -x .bench-venv/bin/python || $(PYTHON) -m venv .bench-venv
	.bench-venv/bin/python -m pip install --quiet -r benchmarks/requirements.txt
	touch $@

# All that fits into 20 minutes, and one table of it.
bench: setup .bench-venv/.installed
	$(BIN)/python -m benchmarks --docs

bench-orchestrator: setup .bench-venv/.installed
	$(BIN)/python -m benchmarks.orchestrator
