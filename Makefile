# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint accuracy bench bench-rivals test-wheel test-versions test-aarch64 test-cpus clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

## Export the shipped checkpoint to int8, run it on the sample clip, draw the answer.
demo: .venv/installed
	rm -rf demo && mkdir demo
	$(BIN)/mer-export --target onnx --out demo/ia-onnx-int8
	$(BIN)/mer-run demo/ia-onnx-int8 samples/portrait.mp4 --overlay demo/portrait.png

## Types, style, import contracts, then every test.
test: .venv/installed lint
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

## The wheel in an empty environment: what ships runs there, and the runtime's tests pass on it.
test-wheel: .venv/installed
	$(BIN)/python scripts/prove_wheel.py -q

## The oldest and the newest versions of what the runtime needs; rewrite docs/versions.md.
test-versions: .venv/installed
	$(BIN)/python scripts/prove_versions.py

## The base install on aarch64, in QEMU's emulation. Needs qemu-user-static; cache/aarch64 keeps downloads.
test-aarch64: .venv/installed
	$(BIN)/python scripts/prove_aarch64.py

## Int8 on other processors, emulated: every layer's sums against numpy's, and the golden inputs, equal to
## the bit. Needs qemu-user-static. CPUS=--fast: ia on Haswell alone, which takes minutes.
test-cpus: .venv/installed
	$(BIN)/python scripts/prove_cpus.py $(CPUS)

## Measure the shipped checkpoints in every engine on a prepared corpus; rewrite docs/accuracy.md.
accuracy: .venv/installed
	$(BIN)/python scripts/measure_accuracy.py $(CACHE)

## Time every contender in turns, with 1 and 2 threads; rewrite README's table. Leave the machine idle.
bench: .venv/installed
	$(BIN)/python benchmarks/bench.py $(BENCH)

## Time our runtime against what others have published; rewrite docs/benchmarks.md's tables. The first
## time it makes two environments, 3.5 GB. CORPUS=folder in RAVDESS's layout: the peer's accuracy, too.
bench-rivals: .venv/installed
	$(BIN)/python benchmarks/peers.py $(if $(CORPUS),--corpus $(CORPUS)) $(BENCH)

clean:
	rm -rf .venv demo build dist
