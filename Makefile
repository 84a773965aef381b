# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin
export NO_MKDOCS_2_WARNING := 1

.PHONY: help demo check lint test test-fast docs accuracy bench bench-rivals fuzz sbom test-wheel \
    test-versions test-aarch64 test-cpus test-faults clean

help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml weights/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ./weights --editable '.[dev]'
	touch $@

demo: .venv/installed ## Export the shipped checkpoint to int8, run it on the sample clip, draw the answer.
	rm -rf demo && mkdir demo
	$(BIN)/mer-export ia-compact --target onnx --out demo/ia-compact-onnx-int8
	$(BIN)/mer-run demo/ia-compact-onnx-int8 samples/portrait.mp4 --overlay demo/portrait.png

check: .venv/installed lint ## Style, types, import contracts, and whether generated tables are up to date.
	$(BIN)/python scripts/make_tables.py --check
	$(BIN)/python -m pytest -q tests/test_docs.py -k 'not command_lines and not dotted'

lint: .venv/installed ## Style, types, import contracts.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test-fast: .venv/installed ## The tests that are not marked slow: three minutes on two cores.
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow'

# The runtime's tests keep time, so nothing heavy runs beside them. In a worker a crash is told with its test.
# Both runs share what takes long to make.
test: .venv/installed lint ## Style, types, import contracts, then every test.
	once=$$(mktemp -d) && trap 'rm -rf "$$once"' EXIT && export MER_TEST_ONCE="$$once" && \
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/runtime && \
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/runtime

docs: .venv/installed ## Build the documentation as a site, in site/; a broken link is an error.
	$(BIN)/mkdocs build --strict

test-wheel: .venv/installed ## The wheel in an empty environment: what ships runs, the runtime's tests pass.
	$(BIN)/python scripts/prove_wheel.py -q

sbom: .venv/installed ## A bill of materials with licences, of the base install and of all, in dist.
	$(BIN)/python scripts/make_sbom.py dist

test-versions: .venv/installed ## The oldest and the newest versions of what the runtime needs, in a table.
	$(BIN)/python scripts/prove_versions.py

# Needs qemu-user-static; cache/aarch64 keeps downloads.
test-aarch64: .venv/installed ## The base install on aarch64, in QEMU's emulation.
	$(BIN)/python scripts/prove_aarch64.py

# Every layer's sums against numpy's, and the golden inputs, equal to the bit. Needs qemu-user-static.
# CPUS=--fast: ia on Haswell alone, which takes minutes.
test-cpus: .venv/installed ## Int8 on other processors, in QEMU's emulation.
	$(BIN)/python scripts/prove_cpus.py $(CPUS)

# FUZZ='--only graphs': one subject's share. FUZZ='--only graphs --inputs 500' keeps no counts.
fuzz: .venv/installed ## 20 000 hostile inputs for everything that takes any: about an hour of a core.
	$(BIN)/python scripts/fuzz.py $(FUZZ)

# cache/faults keeps the inputs. FAULTS="--kills 5 --only train": less of it; all takes hours.
test-faults: .venv/installed ## Kill every command again and again, and run it where things are lacking.
	$(BIN)/python scripts/prove_faults.py cache/faults $(FAULTS)

accuracy: .venv/installed ## Measure the shipped checkpoints in every engine on a prepared corpus (CACHE=).
	$(BIN)/python scripts/measure_accuracy.py $(CACHE)

bench: .venv/installed ## Time every contender in turns, rewrite the tables. Leave the machine idle.
	$(BIN)/python benchmarks/bench.py $(BENCH)

# The first time it makes two environments, 3.5 GB. CORPUS=folder in RAVDESS's layout: the peer's
# accuracy, too.
bench-rivals: .venv/installed ## Time our runtime against what others have published.
	$(BIN)/python benchmarks/peers.py $(if $(CORPUS),--corpus $(CORPUS)) $(BENCH)

clean: ## Remove what make made.
	rm -rf .venv demo build dist site
