# One verb per job; CI calls the same ones. `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# How long each of the long loops of `make soak` runs.
SOAK_MINUTES ?= 10
# How long each target of `make fuzz` runs.
FUZZ_SECONDS ?= 60

.PHONY: help setup build dev one demo soak fuzz miri test test-rust test-python lint format bench bench-stores \
	bench-peers clean

help:
	@echo "setup   make $(VENV) with all that development needs, and build the extension into it"
	@echo "dev     a debug build, in a fraction of the time; the tests accept it"
	@echo "one     one Rust or Python test: make one T=name"
	@echo "demo    the main job: apply, materialize, read, search, SQL"
	@echo "test    every test, Rust and Python"
	@echo "soak    long loops that look for lost rows: SOAK_MINUTES=$(SOAK_MINUTES) each"
	@echo "fuzz    each fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS); needs nightly Rust and cargo-fuzz"
	@echo "miri    what of the kernels' unsafe code Miri can run; needs nightly Rust with miri"
	@echo "lint    formatting, clippy, ruff, mypy, stubs"
	@echo "format  format the code"
	@echo "bench   benchmarks"
	@echo "bench-stores  Feast's stores through the same calls; takes a quarter of an hour"
	@echo "bench-peers  that, and vector search against other engines; takes an hour"
	@echo "clean   remove what these made"

$(BIN)/maturin: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

setup: build

build: $(BIN)/maturin
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet

dev: $(BIN)/maturin
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --quiet

# Python's tests first, on the build that is there; the core's where no Python test has that name.
one: $(BIN)/maturin
	@test -n "$(T)" || { echo "which test? make one T=name"; exit 2; }
	@$(BIN)/python -m pytest -q -k "$(T)" || { \
		status=$$?; test $$status -eq 5 || exit $$status; cargo test --no-default-features "$(T)"; }

demo: build
	$(BIN)/python examples/quickstart/demo.py demo

test: test-rust test-python

test-rust:
	cargo test --no-default-features

test-python: build
	$(BIN)/python -m pytest -n 2 --dist loadfile

soak: build
	for loop in tests/soak/*.py; do \
		echo "== $$loop"; $(BIN)/python $$loop $(SOAK_MINUTES) || exit 1; done

fuzz:
	for target in $$(ls fuzz/corpus); do \
		mkdir -p fuzz/grown/$$target; \
		cargo +nightly fuzz run $$target fuzz/grown/$$target fuzz/corpus/$$target -- -max_len=4096 -max_total_time=$(FUZZ_SECONDS) || exit 1; done

miri:
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --no-default-features --lib vector::

lint: build
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --no-default-features -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest feast_vector._core --mypy-config-file pyproject.toml

format:
	cargo fmt
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: build
	cargo bench --no-default-features
	$(BIN)/python benches/retrieval.py

bench-stores: build
	$(BIN)/python -m pip install --quiet --group stores
	$(BIN)/python benches/reads.py
	$(BIN)/python benches/materialize.py
	$(BIN)/python benches/materialize.py --memory
	$(BIN)/python benches/documents.py
	$(BIN)/python benches/serve.py

bench-peers: bench-stores
	$(BIN)/python -m pip install --quiet --group peers
	$(BIN)/python benches/peers.py --plot docs/recall.svg
	$(BIN)/python benches/cold_start.py

clean:
	rm -rf target $(VENV) demo
