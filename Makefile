# Two commands need nothing but Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test check docs bench wheel clean

demo: $(STAMP)            ## simulate, train, apply to a held-out run, show table and figures
	$(BIN)/python -m map2map.demo --folder demo

test: $(STAMP)            ## all tests, in as many processes as there are cores
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile

check: $(STAMP)           ## style, types, layers
	$(BIN)/ruff check src tests benchmarks noxfile.py
	$(BIN)/ruff format --check src tests benchmarks noxfile.py
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)            ## the documentation, in site/
	$(BIN)/mkdocs build --strict

bench: $(STAMP)           ## side-by-side timings
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

wheel: $(STAMP)           ## a wheel, in dist/
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("map2map needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:                    ## remove what was built, but not the environment
	rm -rf build dist site demo .pytest_cache .mypy_cache .ruff_cache .coverage* coverage.xml
