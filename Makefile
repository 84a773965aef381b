# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

## Export the shipped checkpoint, run it on the sample clip, draw the answer.
demo: .venv/installed
	rm -rf demo && mkdir demo
	$(BIN)/mer-export --target onnx --precision fp32 --out demo/ia-onnx-fp32
	$(BIN)/mer-run demo/ia-onnx-fp32 samples/portrait.mp4 --overlay demo/portrait.png

## Types, style, import contracts, then every test.
test: .venv/installed lint
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv demo build dist
