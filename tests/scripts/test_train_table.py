"""The runs behind the tables: which there are, and that they resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from mer.errors import TrainingError

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def script(load_script: Load) -> ModuleType:
    return load_script("train_table")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_cache: Callable[..., Path]) -> Path:
    return write_cache(tmp_path_factory.mktemp("data") / "cache")


def run(script: ModuleType, *args: object) -> Result:
    return CliRunner().invoke(script.main, [str(arg) for arg in args])


def test_the_tables_runs(script: ModuleType) -> None:
    runs = {run.name: run for run in script.list_runs()}
    assert len(runs) == len(script.list_runs())
    for protocol in ("balanced", "tuned", "paper"):
        fusions = {
            run.fusion
            for name, run in runs.items()
            if name.startswith(f"{protocol}-") and run.protocol == protocol
        }
        assert fusions == {"ia", "it", "lt"}, protocol
    assert [runs[f"fold-{fold}"].fold for fold in range(1, 6)] == [1, 2, 3, 4, 5]
    # Section 6.2: three rates times three decays, of which the paper's choice is its own run.
    ablation = [run for name, run in runs.items() if name.startswith("ablation-")]
    assert {run.protocol for run in ablation} == {"paper"}
    points = {(run.learning_rate, run.weight_decay) for run in ablation} | {(0.04, 1e-3)}
    assert points == {(rate, decay) for rate in (0.01, 0.04, 0.1) for decay in (1e-4, 1e-3, 1e-2)}
    assert (runs["voice-only"].modality, runs["face-only"].modality) == ("audio", "video")


def test_runs_are_chosen_by_name(script: ModuleType) -> None:
    runs = script.list_runs()
    assert script.choose_runs(runs, ()) == runs
    assert [run.name for run in script.choose_runs(runs, ("paper-i*", "face-only"))] == [
        "paper-ia",
        "paper-it",
        "face-only",
    ]
    with pytest.raises(TrainingError, match=r"no run is called paper-xx: they are balanced-ia"):
        script.choose_runs(runs, ("paper-xx",))


def test_finished_runs_are_passed_over_and_others_go_on(
    script: ModuleType, cache: Path, tmp_path: Path
) -> None:
    args = (cache, "--out", tmp_path, "--only", "voice-only", "--only", "ablation-lr0.1-wd0.01")
    first = run(script, *args, "--epochs", 1)
    assert first.exit_code == 0, first.output
    told = first.stdout.splitlines()
    assert told[0].startswith("voice-only: best of 1 epochs is 1, validation prec1 ")
    assert told[1].startswith("ablation-lr0.1-wd0.01: best of 1 epochs is 1, ")
    settings = json.loads((tmp_path / "voice-only" / "run.json").read_text())["settings"]
    assert settings["protocol"]["missing"] == {"kind": "ModalityDropout", "voice": 0.0, "face": 1.0}
    assert settings["freeze"] == "encoder"
    log = json.loads((tmp_path / "ablation-lr0.1-wd0.01" / "run.json").read_text())["settings"]
    assert (log["protocol"]["learning_rate"], log["protocol"]["weight_decay"]) == (0.1, 0.01)
    again = run(script, *args, "--epochs", 1)
    assert again.stdout.splitlines() == [
        "voice-only: finished",
        "ablation-lr0.1-wd0.01: finished",
    ]
    # A longer run of a schedule that allows it goes on; the cosine's can't, and says so.
    longer = run(script, *args, "--epochs", 2)
    assert longer.exit_code == 1
    assert "voice-only: " in longer.stderr
    assert "protocol.epochs 1, not 2" in longer.stderr
    assert "ablation-lr0.1-wd0.01: best of 2 epochs is " in longer.stdout
    listed = run(script, cache, "--out", tmp_path, "--only", "*-only", "--list")
    assert listed.stdout.splitlines() == ["voice-only: finished", "face-only: to do"]
