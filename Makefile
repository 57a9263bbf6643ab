# Everything runs in .venv, made from nothing but python3 (3.11 or newer), gcc and make. The package is installed as a
# path (compat), which type checkers and Cython follow, instead of a hook in the import system, which they do not.

PYTHON ?= python3
CLANG ?= clang
BIN = .venv/bin
SOURCES = pyproject.toml setup.py $(wildcard csoftmax/*.pyx csoftmax/*.pxd csoftmax/*.pxi csoftmax/*.h \
	csoftmax/include/*.h csoftmax/drivers/* csoftmax/kernels/*)
INSTALLED = .venv/installed
PRINT_ISAS = -c "from csoftmax import _isa; print(*_isa.available())"

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 16

$(INSTALLED): $(filter-out %.c %.so %__pycache__,$(SOURCES))
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[test,embedding,demo,mpi,dev]" --config-settings editable_mode=compat
	touch $@

build: $(INSTALLED)  ## make .venv and build the package in place

demo: $(INSTALLED)  ## train on handwritten digits, beside the NumPy formula; writes demo.png
	$(BIN)/python examples/digits.py --figure demo.png

test: $(INSTALLED)  ## the whole suite, on every build that this processor has
	isas=$$($(BIN)/python $(PRINT_ISAS)) && for isa in $$isas; do \
		echo "== kernels: $$isa"; CSOFTMAX_ISA=$$isa $(BIN)/python -m pytest -q || exit 1; \
	done

wheel-test: $(INSTALLED)  ## sdist, wheel from it, the suite against the wheel in an empty environment
	rm -rf build/wheel-test && mkdir -p build/wheel-test
	$(BIN)/python -m build --outdir build/wheel-test/dist .
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/python -m pip install --quiet "$$(ls build/wheel-test/dist/*.whl)[test,mpi]"
	cp -r tests examples docs README.md pyproject.toml build/wheel-test/
	cd build/wheel-test && venv/bin/python -m pytest -q

clang-test: $(INSTALLED)  ## the same with Clang, on every build; CLANG=clang-19 names another
	rm -rf build/clang-test && mkdir -p build/clang-test
	CC=$(CLANG) $(BIN)/python -m build --outdir build/clang-test/dist .
	$(PYTHON) -m venv build/clang-test/venv
	build/clang-test/venv/bin/python -m pip install --quiet "$$(ls build/clang-test/dist/*.whl)[test]"
	cp -r tests examples docs README.md pyproject.toml build/clang-test/
	cd build/clang-test && isas=$$(venv/bin/python $(PRINT_ISAS)) && for isa in $$isas; do \
		echo "== kernels: $$isa"; CSOFTMAX_ISA=$$isa venv/bin/python -m pytest -q || exit 1; \
	done

compilers: $(INSTALLED)  ## part of the suite, and a hash, by every GCC and Clang here, or COMPILERS="gcc-13": half an hour
	scripts/compilers $(COMPILERS)

# The sanitizers' packages, each in an environment of its own: built from the sdist, with the flags of $(SANITIZERS).
define INSTALL_SANITIZED
	rm -rf $(@D) && mkdir -p $(@D)
	$(BIN)/python -m build --sdist --outdir $(@D) . >$(@D)/log
	tar -xzf $(@D)/*.tar.gz -C $(@D) --strip-components=1
	$(PYTHON) -m venv $(@D)/.venv
	cd $(@D) && $(SANITIZERS) .venv/bin/python -m pip install --quiet --editable ".[test]"
endef

# gcc's sanitizers. They end the process at what is not defined, by a report on stderr.
# PYTHONMALLOC: each object is a block that they know. Python itself leaks, and a crash has to stay a signal.
SANITIZED = build/sanitize/installed
$(SANITIZED): SANITIZERS = CC=gcc CFLAGS="-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all \
	-fno-omit-frame-pointer -g"
SANITIZED_RUN = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	PYTHONMALLOC=malloc UBSAN_OPTIONS=print_stacktrace=1 \
	ASAN_OPTIONS=detect_leaks=0:handle_segv=0:allocator_may_return_null=1:detect_stack_use_after_return=1
# Memory does not stay flat where what is freed is kept back, to find out who still uses it.
SANITIZED_WITHOUT = --ignore=tests/test_memory.py

$(SANITIZED): $(INSTALLED)
	$(INSTALL_SANITIZED)
	touch $@

sanitize: $(SANITIZED)  ## the suite under AddressSanitizer and UBSan, on every build: half an hour
	cp -r tests examples pyproject.toml build/sanitize/
	isas=$$($(BIN)/python $(PRINT_ISAS)) && cd build/sanitize && for isa in $$isas; do \
		echo "== sanitized kernels: $$isa"; \
		CSOFTMAX_ISA=$$isa $(SANITIZED_RUN) .venv/bin/python -m pytest -q --capture=sys $(SANITIZED_WITHOUT) || exit 1; \
	done

# Clang's, with libomp and its archer, which tells ThreadSanitizer how OpenMP's threads wait for each other: of
# libgomp's it knows nothing. Accesses of more than 16 bytes it does not look at: the kernels are the baseline's.
THREAD_SANITIZED = build/thread-sanitize/installed
$(THREAD_SANITIZED): SANITIZERS = CC=$(CLANG) CFLAGS="-fsanitize=thread -fno-omit-frame-pointer -g"
THREAD_SANITIZED_RUN = CSOFTMAX_ISA=baseline OMP_TOOL_LIBRARIES="$$($(CLANG) -print-resource-dir)/../../libarcher.so"
# What is recorded of each access takes more memory than the access: none is flat, and 2**31 elements are too many.
# The guard pages' calls alone would take longer than everything else, and `make sanitize` has them.
# Targets that another thread rewrites are a race, which these tests show to be harmless.
THREAD_SANITIZED_WITHOUT = --ignore=tests/test_memory.py --ignore=tests/test_guard_pages.py \
	-k "not (2_to_the_31 or targets_that_another_thread_rewrites or targets_that_change_during_the_call)"

$(THREAD_SANITIZED): $(INSTALLED) scripts/thread-sanitized-python.c
	$(INSTALL_SANITIZED)
	rm $(@D)/.venv/bin/python
	$(CLANG) -fsanitize=thread scripts/thread-sanitized-python.c -o $(@D)/.venv/bin/python \
		$$($(PYTHON)-config --embed --ldflags)
	touch $@

# Addresses must not be random (setarch -R): older runtimes do not find room for their records then.
thread-sanitize: $(THREAD_SANITIZED)  ## the suite under ThreadSanitizer, built by Clang: a quarter of an hour
	cp -r tests examples pyproject.toml build/thread-sanitize/
	cd build/thread-sanitize && $(THREAD_SANITIZED_RUN) setarch -R .venv/bin/python -m pytest -q --capture=sys \
		$(THREAD_SANITIZED_WITHOUT)

# The emulation has neither so much address space nor limits to it, its /proc does not tell who was forked, and it is
# too slow for tests with a limit of time.
AARCH64_PYTEST ?= -k "not (2_to_the_31 or no_memory_is or imports_after_a_fork or flat_over or within_a_second \
	or distilled_student)"
aarch64-test:  ## the suite for aarch64, cross-compiled and emulated: an hour or two, on Debian
	PYTHON=$(PYTHON) scripts/aarch64-test $(AARCH64_PYTEST)

lint: $(INSTALLED)  ## ruff and cython-lint; and that the faults of `make mutation` have a text to change
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint csoftmax examples tests/embedding
	$(BIN)/python tests/mutation/mutate.py --check

# From another folder: what a user's checker finds is the installed package, and not the one beside it.
types: $(INSTALLED)  ## mypy on the stubs and on typical calls, stubtest on stubs and functions
	cd tests && ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache typing_cases.py
	cd tests && ../$(BIN)/python -m mypy.stubtest csoftmax --mypy-config-file ../pyproject.toml \
		--allowlist stubtest_allowlist.txt

check: lint types test  ## all three

conformance: $(INSTALLED)  ## SciPy's own tests, ONNX's node cases and a thousand option sets beside PyTorch's
	$(BIN)/python -m pip install --quiet -r tests/conformance/requirements.txt
	$(BIN)/python -m pytest -q tests/conformance

mutation: $(INSTALLED)  ## plant faults, each of which the suite must catch: an hour; writes the table of docs/testing.md
	$(BIN)/python tests/mutation/mutate.py --report docs/testing.md

FUZZ_SECONDS ?= 3600
FUZZ_CALLS ?= 1000000
FUZZ_SEED ?= $(shell date +%s)
fuzz: $(INSTALLED)  ## FUZZ_CALLS random calls beside exact arithmetic; random uses and properties for FUZZ_SECONDS: two hours
	$(BIN)/python tests/differential/run.py --calls $(FUZZ_CALLS) --seed $(FUZZ_SEED)
	end=$$(( $$(date +%s) + $(FUZZ_SECONDS) )); \
	while [ $$(date +%s) -lt $$end ]; do \
		CSOFTMAX_TEST_PROFILE=fuzz $(BIN)/python -m pytest -q tests/test_fuzz.py tests/test_invariances.py || exit 1; \
	done

peers:  ## install what `make bench` measures against
	$(MAKE) build
	$(BIN)/python -m pip install --quiet -r benchmarks/requirements.txt

bench: peers  ## all cases beside their peers: a quarter of an hour; writes the README's tables and figures
	mkdir -p build
	$(BIN)/python benchmarks/bench.py --json build/bench.json --figures docs/figures --readme README.md \
		| tee docs/benchmarks.txt

bench-quick: peers  ## fewer shapes, under three minutes
	$(BIN)/python benchmarks/bench.py --quick

bench-rows: peers  ## nanoseconds of the C row functions beside loops over libm; writes the table of docs/embedding.md
	$(BIN)/python benchmarks/rows.py --readme docs/embedding.md

accuracy: peers  ## errors beside the peers' against 200-bit arithmetic; writes the README's table and the worst cases
	$(BIN)/python benchmarks/accuracy.py --worst tests/worst_cases.csv --readme README.md

clean:  ## remove what was built, .venv included
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache demo.png
	find csoftmax -name '*.so' -o -name '*.c' -o -name __pycache__ | xargs rm -rf

.PHONY: help build demo test wheel-test clang-test compilers aarch64-test sanitize thread-sanitize lint types check conformance mutation fuzz bench-rows peers bench bench-quick accuracy clean
