# Every target sets itself up: it needs Python >= 3.10 with venv, Rust and make, nothing else.
#
#   make demo            trains a character model on Python's own sources and samples from it
#   make test            formatting, lints, types, stubs, Rust tests, Python tests
#   make bench           compares with PyTorch, ONNX Runtime, OpenVINO and tract (an environment of its own, .venv-peers, large)
#   make docs            the documentation as a site, in target/docs-site (an environment of its own, .venv-docs)
#   make wheel           the wheel, in dist/
#   make lint            what `make test` begins with
#   make test-interop    the tests that need PyTorch or Keras, in the same environment
#   make test-servers    serves by gunicorn, uvicorn, Celery and Ray Serve under load (an environment of its own, .venv-servers)
#   make test-neon       the kernels' tests on an emulated AArch64 processor (needs its Rust target, a linker for it and qemu-user)
#   make bench-rust      kernels, layers and a training step, from Rust
#   make bench-rust-peers  compares with burn, candle, tract and rust-lstm (builds them first)
#   make bench-rust-peers-gpu  compares with burn on wgpu, on a GPU (builds it first)
#   make bench-serving   one step, pools of streams, batches of requests and small weights, beside PyTorch and ONNX Runtime
#   make soak            ten minutes of serving under load, every answer checked: make soak ARGS="--minutes 60"
#   make bench-neighbours  beside a busy process, and from many threads
#   make bench-gpu       on a GPU, beside PyTorch with cuDNN where it is installed
#   make clean           removes all that the others made
#
# PYTHON=... chooses the interpreter, ARGS=... goes to the command: make demo ARGS="--minutes 3".

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
PY := $(VENV)/bin/python
SETUP := PYTHON="$(PYTHON)" .ci/setup
# Tests find the package where it is installed, with the settings that a user has by default.
CLEAN_ENV := env -u PYTHONPATH -u SEQRS_NUM_THREADS -u SEQRS_LEVEL -u OMP_NUM_THREADS

SOURCES := Cargo.toml Cargo.lock pyproject.toml \
  $(shell find crates python -type f ! -path '*/__pycache__/*' ! -name '*.so')

.PHONY: help demo test bench bench-rust bench-rust-peers bench-rust-peers-gpu bench-serving soak bench-neighbours bench-gpu docs wheel lint lint-rust lint-python \
  test-rust test-rust-compiled test-stubs test-python test-interop test-servers test-neon clean

help:
	@sed -n 's/^#   //p' Makefile

# --- what is made once

$(VENV)/build.stamp: requirements/build.txt .ci/setup
	@$(SETUP) $(VENV) requirements/build.txt
	@touch $@

$(VENV)/test.stamp: requirements/test.txt $(VENV)/build.stamp
	@$(SETUP) $(VENV) requirements/test.txt
	@touch $@

.venv-peers/ready.stamp: requirements/peers.txt requirements/test.txt requirements/build.txt .ci/setup
	@$(SETUP) .venv-peers requirements/peers.txt
	@touch $@

.venv-servers/ready.stamp: requirements/servers.txt requirements/test.txt requirements/build.txt .ci/setup
	@$(SETUP) .venv-servers requirements/servers.txt
	@touch $@

.venv-docs/ready.stamp: requirements/docs.txt .ci/setup
	@$(SETUP) .venv-docs requirements/docs.txt
	@touch $@

dist/.stamp: $(SOURCES) | $(VENV)/build.stamp
	@command -v cargo > /dev/null || { \
	  echo "make: expected cargo on the PATH, found none; install Rust 1.89 or later from https://rustup.rs"; \
	  exit 1; }
	@mkdir -p dist && rm -f dist/seqrs-*.whl
	$(VENV)/bin/maturin build --release --locked --interpreter $(PY) --out dist
	@$(PY) .ci/wheel_size.py dist
	@touch $@

%/installed.stamp: dist/.stamp
	@$*/bin/python -m pip install --quiet --no-deps --force-reinstall dist/seqrs-*.whl
	@touch $@

$(VENV)/installed.stamp: | $(VENV)/build.stamp
.venv-peers/installed.stamp: | .venv-peers/ready.stamp
.venv-servers/installed.stamp: | .venv-servers/ready.stamp

# --- what is asked for

wheel: dist/.stamp
	@$(PY) .ci/wheel_size.py dist

demo: $(VENV)/installed.stamp
	$(VENV)/bin/seqrs demo $(ARGS)

# The order matters: what fails fastest stands first. Each part can be run by itself.
test:
	@mkdir -p target/test && rm -f target/test/*
	@.ci/timed "lint" $(MAKE) --no-print-directory lint
	@.ci/timed "wheel, and Rust tests compiled" $(MAKE) --no-print-directory --jobs 2 $(VENV)/installed.stamp test-rust-compiled
	@.ci/timed "stubs" $(MAKE) --no-print-directory test-stubs
	@.ci/timed "Rust tests and documentation" $(MAKE) --no-print-directory test-rust
	@.ci/timed "Python tests" $(MAKE) --no-print-directory test-python
	@$(CLEAN_ENV) $(PY) .ci/summary.py

lint: lint-rust lint-python

lint-rust:
	@.ci/tool rustfmt cargo fmt --all --check
	@.ci/tool clippy cargo clippy --workspace --all-targets --features seqrs/gpu --locked -- -D warnings
	@.ci/tool clippy cargo clippy --package seqrs-py --no-default-features --locked -- -D warnings

lint-python: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test-stubs: $(VENV)/test.stamp $(VENV)/installed.stamp
	$(CLEAN_ENV) $(PY) -m mypy.stubtest seqrs._seqrs

# The extension module has no tests of its own and the benches are none.
CARGO_TEST := cargo test --workspace --exclude seqrs-py --exclude seqrs-benches --features seqrs/gpu --locked

# Beside the wheel, as the end of that keeps one processor busy and no more.
test-rust-compiled:
	$(CLEAN_ENV) $(CARGO_TEST) --no-run

test-rust:
	@mkdir -p target/test
	$(CLEAN_ENV) .ci/software-gpu $(CARGO_TEST) 2>&1 | tee target/test/rust.log
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --exclude seqrs-benches --features seqrs/gpu --no-deps --locked

test-python: $(VENV)/test.stamp $(VENV)/installed.stamp
	@mkdir -p target/test
	$(CLEAN_ENV) .ci/software-gpu $(PY) -m pytest tests/python -m "not interop and not servers" --junitxml target/test/python.xml $(ARGS)

test-interop: .venv-peers/installed.stamp
	$(CLEAN_ENV) .venv-peers/bin/python -m pytest tests/python -m interop $(ARGS)

# Nothing is served from a GPU, so that none is required either.
test-servers: .venv-servers/installed.stamp
	$(CLEAN_ENV) -u SEQRS_REQUIRE_GPU .venv-servers/bin/python -m pytest tests/python/test_servers.py -m servers --durations 10 $(ARGS)

# On Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user; rustup target add aarch64-unknown-linux-gnu.
test-neon:
	$(CLEAN_ENV) CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
	  cargo test --package seqrs-cpu --target aarch64-unknown-linux-gnu --locked -- $(ARGS)

bench: .venv-peers/installed.stamp
	@mkdir -p target/bench
	$(CLEAN_ENV) .venv-peers/bin/python benches/python/compare.py --json target/bench/compare.json --plot target/bench/compare.png $(ARGS)

bench-rust:
	cargo bench --package seqrs-benches --locked -- $(ARGS)

bench-rust-peers:
	CARGO_TARGET_DIR=target/rust-peers cargo run --release --locked \
	  --manifest-path benches/rust-peers/Cargo.toml -- $(ARGS)

bench-rust-peers-gpu:
	@mkdir -p target/bench
	CARGO_TARGET_DIR=target/rust-peers cargo run --release --locked --features gpu \
	  --manifest-path benches/rust-peers/Cargo.toml -- \
	  --device gpu --json target/bench/rust-peers-gpu.json $(ARGS)

bench-serving: .venv-peers/installed.stamp
	@mkdir -p target/bench
	$(CLEAN_ENV) .venv-peers/bin/python benches/python/serving.py $(ARGS)
	$(CLEAN_ENV) .venv-peers/bin/python benches/python/batcher.py
	$(CLEAN_ENV) .venv-peers/bin/python benches/python/load.py --plot target/bench/load.png
	$(CLEAN_ENV) .venv-peers/bin/python benches/python/quantised.py

soak: $(VENV)/installed.stamp
	$(CLEAN_ENV) $(PY) benches/python/soak.py $(ARGS)

bench-neighbours: $(VENV)/installed.stamp
	$(CLEAN_ENV) $(PY) benches/python/neighbours.py $(ARGS)

bench-gpu: $(VENV)/installed.stamp
	@mkdir -p target/bench
	$(CLEAN_ENV) $(PY) benches/python/gpu.py --json target/bench/gpu.json $(ARGS)

# What cargo has documented becomes a part of the site.
docs: .venv-docs/ready.stamp
	cargo doc --workspace --exclude seqrs-benches --features seqrs/gpu --no-deps --locked
	SEQRS_RUSTDOC="$${CARGO_TARGET_DIR:-target}/doc" NO_MKDOCS_2_WARNING=1 \
	  .venv-docs/bin/python -m mkdocs build --strict --config-file docs/mkdocs.yml $(ARGS)
	@echo "open target/docs-site/index.html"

clean:
	rm -rf target dist build .venv .venv-peers .venv-servers .venv-docs model.safetensors
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
