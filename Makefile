# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint accuracy clean

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

## Measure the shipped checkpoints in every engine on a prepared corpus; rewrite docs/accuracy.md.
accuracy: .venv/installed
	$(BIN)/python scripts/measure_accuracy.py $(CACHE)

clean:
	rm -rf .venv demo build dist
