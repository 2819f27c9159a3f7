# make demo    from counts to a table and a picture (demo.png)
# make test    all tests
# also: make lint, bench, docs, clean
#
# Needs make and Python 3.11 or newer. The first call makes .venv and installs into it; later calls
# skip that until pyproject.toml or constraints.txt change. Another interpreter or folder:
# make test PYTHON=python3.13 VENV=.venv313

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed-

.PHONY: demo test lint bench docs clean

demo: $(READY)dev
	@$(BIN)/python tutorials/demo.py

test: $(READY)dev
	@$(BIN)/python -m pytest $(ARGS)

lint: $(READY)dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY)dev $(READY)bench
	@for script in benchmarks/bench_*.py; do \
		echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(READY)docs
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf build dist docs/_build docs/generated .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf $(VENV) demo.png

$(READY)%: pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "scmix needs Python 3.11 or newer; '$(or $(PYTHON),python3)' is not, or is not there." \
		"Install one and call: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing scmix[$*] into $(VENV) (the first time takes some minutes: PyTorch is large)"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@
