# make demo    from counts to a table and a picture (demo.png)
# make test    the tests; make test ARGS="tests/tl -k embed" for some; make test-slow the long ones
# also: test-newest, coverage, lint, doctest, spelling, linkcheck, docs, gallery, tables, tutorials,
#       bench, clean
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

NEWEST_ENOUGH := import sys; sys.exit(sys.version_info < (3, 12))
NEWEST_PYTHON ?= $(shell for p in $(PYTHON) python3.14 python3.13 python3.12; do \
	$$p -c '$(NEWEST_ENOUGH)' 2>/dev/null && echo $$p && break; done)
NEWEST ?= .venv-newest
# No pins: the newest release of everything.
NEWEST_OF := --upgrade --upgrade-strategy eager

# $(call make_venv,interpreter,folder): nothing to do where the folder has a pip.
make_venv = $(2)/bin/python -m pip --version >/dev/null 2>&1 || { \
	"$(1)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(1)' lacks the venv or ensurepip module. Install it (Debian, Ubuntu:" \
		"apt install python3-venv) or call: make PYTHON=/path/to/another/python3" >&2; exit 1; }; \
	echo "Making $(2) with $$("$(1)" --version)"; "$(1)" -m venv $(2); }

.PHONY: demo test test-slow test-newest coverage lint doctest spelling linkcheck docs gallery tables
.PHONY: tutorials bench clean

demo: $(READY)dev
	@$(BIN)/python tutorials/demo.py

test: $(READY)dev
	@$(BIN)/python -m pytest $(ARGS)

test-slow: $(READY)dev
	@$(BIN)/python -m pytest -m slow $(ARGS)

test-newest: $(NEWEST)/.installed
	@$(NEWEST)/bin/python -c "import sys; from importlib.metadata import version as v; print( \
		'Python', sys.version.split()[0], *(f'{n} {v(n)}' for n in \
		('anndata', 'pandas', 'numpy', 'scipy', 'scanpy', 'torch')))"
	@$(NEWEST)/bin/python -m pytest $(ARGS)

coverage: $(READY)dev $(READY)tutorials $(READY)evaluate
	@$(BIN)/python -m pip install --disable-pip-version-check -q pytest-cov
	@$(BIN)/python -m pytest --cov=scmix --cov-report=xml --cov-report=term $(ARGS)

lint: $(READY)dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

doctest: $(READY)dev
	@$(BIN)/python -m pytest src/scmix -q $(ARGS)

spelling: $(READY)docs
	@$(BIN)/codespell

linkcheck: $(READY)docs
	@$(BIN)/python -m sphinx -b linkcheck -q docs docs/_build/linkcheck

docs: $(READY)docs
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

gallery: $(READY)docs
	@$(BIN)/python scripts/draw_gallery.py

tables: $(READY)docs
	@$(BIN)/python scripts/write_array_types.py

tutorials: $(READY)dev $(READY)tutorials
	@for notebook in tutorials/*.ipynb; do echo "== $$notebook"; \
		$(BIN)/jupyter-execute --inplace "$$notebook" || exit 1; done

bench: $(READY)dev $(READY)bench
	@for script in benchmarks/bench_*.py; do \
		echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf build dist docs/_build docs/generated docs/api/generated docs/tutorials/*.ipynb .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf $(VENV) $(NEWEST) demo.png coverage.xml .coverage

$(READY)%: pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "scmix needs Python 3.11 or newer; '$(or $(PYTHON),python3)' is not, or is not there." \
		"Install one and call: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(call make_venv,$(PYTHON),$(VENV))
	@echo "Installing scmix[$*] into $(VENV) (the first time takes some minutes: PyTorch is large)"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

$(NEWEST)/.installed: pyproject.toml
	@"$(NEWEST_PYTHON)" -c '$(NEWEST_ENOUGH)' 2>/dev/null || { \
		echo "test-newest needs Python 3.12 or newer, which was not found. Install one and call:" \
		"make test-newest NEWEST_PYTHON=/path/to/python3" >&2; exit 1; }
	@$(call make_venv,$(NEWEST_PYTHON),$(NEWEST))
	@$(NEWEST)/bin/python -m pip install --disable-pip-version-check $(NEWEST_OF) -e '.[dev]'
	@touch $@
