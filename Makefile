# nextup: `make demo` and `make test` do all the set-up on a fresh machine with Python and make.

SHELL := /bin/sh
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	2>/dev/null && { echo $$p; break; }; done)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
WORKERS ?= 2

# PyTorch's wheels for Linux on the common index carry gigabytes of GPU libraries. A Linux machine
# without an NVIDIA device therefore also looks at PyTorch's index of CPU builds: of two files of
# one version pip prefers the one marked `+cpu`, wherever it lies, so a CPU build that pip is
# configured to find already (PIP_FIND_LINKS, pip.conf) serves as well. An index that cannot be
# reached is passed over after a few seconds. `make demo TORCH_INDEX=` leaves it out.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell sed -n 's/^ *"\(torch[<>=][^"]*\)",*$$/\1/p' pyproject.toml)
NEEDS_CPU_BUILD := $(shell [ "$$(uname -s)" = Linux ] && ! ls /dev/nvidia* >/dev/null 2>&1 \
	&& ! command -v nvidia-smi >/dev/null 2>&1 && echo yes)
CPU_INDEX := $(if $(and $(NEEDS_CPU_BUILD),$(TORCH_INDEX)),--extra-index-url $(TORCH_INDEX) \
	--timeout 10 --retries 1)

DEMO_FLAGS := $(if $(DATA),--data "$(DATA)") $(if $(TITLES),--titles "$(TITLES)") \
	$(if $(OUT),--out "$(OUT)")

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format clean

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: $(VENV)/installed ## Install, then fit and compare models on a shop (or DATA=log.csv TITLES=items.csv).
	$(BIN)/nextup demo $(DEMO_FLAGS)

test: $(VENV)/installed-dev lint ## Install, check the style and the types, run the tests.
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-slow: $(VENV)/installed-dev ## Run the tests that take minutes.
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed-dev ## Check the style (ruff) and the types (mypy).
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev ## Put the code into the common format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and what the tools left.
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/made:
	@[ -n "$(PYTHON)" ] || { echo "error: no Python of version 3.10 or newer was found;" \
		"install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment" \
		"(on Debian or Ubuntu: apt install python3-venv)" >&2; exit 2; }
	@touch $@

# Without its dependencies, so that only one page of the extra index is ever asked for.
$(VENV)/torch: | $(VENV)/made
	$(PIP) install --quiet --no-deps $(CPU_INDEX) "$(TORCH)"
	@touch $@

$(VENV)/installed: pyproject.toml | $(VENV)/torch
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/torch
	$(PIP) install --quiet --editable ".[dev]"
	@touch $@ $(VENV)/installed
