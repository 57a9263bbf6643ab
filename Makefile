# Everything runs in .venv, made from nothing but python3 (3.11 or newer), a C compiler and make. A target that needs
# more than three lines is a script in scripts/; docs/testing.md says what the longer checks are for.

export PYTHON ?= python3
export CLANG ?= clang
# What pytest is given beside its defaults: make test TESTS="tests/test_softmax.py -x"
export TESTS ?=
BIN = .venv/bin
PYTEST = $(BIN)/python -m pytest -q
SOURCES = pyproject.toml setup.py $(shell find csoftmax -name '*.py[xi]' -o -name '*.px[di]' -o -name '*.h')
LONG = sanitize thread-sanitize wheel-test clang-test compilers aarch64-test

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16
	@echo 'longer checks   $(LONG)'

.venv/developer: $(SOURCES)
	scripts/install test embedding mpi dev
	touch $@

.venv/demo: $(SOURCES)
	scripts/install demo
	touch $@

build: .venv/developer  ## the package in place, and all that the other targets need, in .venv

demo: .venv/demo  ## what is gained over the NumPy formula, on handwritten digits; writes demo.png
	$(BIN)/python examples/digits.py --figure demo.png

test: build  ## the suite, with each build of the kernels that this processor runs
	scripts/each-build $(PYTEST) $(TESTS)

lint: build  ## ruff, cython-lint; each fault of `make mutation` has its text
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint csoftmax examples tests/embedding
	$(BIN)/python tests/mutation/mutate.py --check

types: build  ## mypy on typical calls, stubtest on the stubs
	scripts/types

check: lint types test  ## what a change must pass: the three above

conformance: build  ## the cases of SciPy, ONNX and PyTorch
	$(BIN)/python -m pip install --quiet -r tests/conformance/requirements.txt
	$(PYTEST) tests/conformance $(TESTS)

mutation: build  ## plant faults that the suite must catch; writes the table of docs/testing.md
	$(BIN)/python tests/mutation/mutate.py --report docs/testing.md

fuzz: build  ## random calls beside exact arithmetic, for FUZZ_SECONDS
	scripts/fuzz

$(LONG): build
	scripts/$@

peers: build
	$(BIN)/python -m pip install --quiet -r benchmarks/requirements.txt

bench: peers  ## the speed tables and figures, beside the peers; bench-quick and bench-rows are shorter
	scripts/bench

bench-quick: peers
	$(BIN)/python benchmarks/bench.py --quick

bench-rows: peers
	$(BIN)/python benchmarks/rows.py --readme docs/embedding.md

accuracy: peers  ## the error table, beside the peers, and tests/worst_cases.csv
	$(BIN)/python benchmarks/accuracy.py --worst tests/worst_cases.csv --readme README.md

clean:  ## remove all that was built, .venv included
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache demo.png
	find csoftmax -name '*.so' -o -name '*.c' -o -name __pycache__ | xargs rm -rf

.PHONY: help build demo test lint types check conformance mutation fuzz $(LONG) \
	peers bench bench-quick bench-rows accuracy clean
