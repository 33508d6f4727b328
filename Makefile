# make demo | test | check | fuzz | lint | docs | bench | clean: each sets up .venv as far as it needs.
# A Python of your own: make PYTHON=/path/to/python3.12 demo

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WORKERS ?= 2
# One BLAS thread per process: the parallelism is over realisations and test workers.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: demo test check long fuzz lint types docs bench clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.base
	$(BIN)/quenched derive scs
	$(BIN)/quenched solve scs -p g=2
	$(BIN)/quenched validate scs -p g=2 --quick --report scs.html

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

check: $(VENV)/.docs
	$(MAKE) --jobs 2 docs long  # pages are executed one after the other, by one process
	$(BIN)/quenched validate --all --quick || test $$? -eq 3  # inconclusive is shown, disagreement fails

long: $(VENV)/.test
	$(MAKE) fuzz DRAWS=100 VERDICTS=1
	$(BIN)/python -m pytest -n $(WORKERS) -m slow --ignore tests/test_fuzz.py --ignore tests/test_path_variants.py

# Random declarations: every step of each checked against numbers; theory and simulation of each held together.
DRAWS ?= 200
VERDICTS ?= 200
fuzz: $(VENV)/.test
	QUENCHED_FUZZ=$(DRAWS) QUENCHED_VERDICTS=$(VERDICTS) \
		$(BIN)/python -m pytest -n $(WORKERS) tests/test_witness_variants.py tests/test_fuzz.py tests/test_path_variants.py

lint: $(VENV)/.test types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The four folders as the one package that Python imports: type checkers follow links, not package-dir.
types:
	@rm -rf build/types && mkdir -p build/types/quenched
	@ln -s $(CURDIR)/quenched/* $(CURDIR)/theory $(CURDIR)/numerics $(CURDIR)/validate build/types/quenched/

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.base
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build docs/_build *.egg-info

$(VENV)/.python:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "quenched needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.base: pyproject.toml $(VENV)/.python
	$(PIP) install --editable .
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.python
	$(PIP) install --editable ".[test]"
	@touch $@ $(VENV)/.base

$(VENV)/.docs: pyproject.toml $(VENV)/.test
	$(PIP) install --editable ".[test,docs]"
	@touch $@
