"""``mer-train --ray``: the same runs and the same table as here, with a network of one's own."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mer import add_model, train_series
from mer.cli.train import main
from mer.data.splits import load_splits
from mer.errors import TrainingError
from mer.models import MultimodalNet

FUSION = """
from torch import nn

from mer import MultimodalNet


class Mine(MultimodalNet):
    def add_fusion(self, num_heads):
        self.scale = nn.Linear(128, 128)

    def meet_late(self, audio, visual):
        return audio, self.scale(visual.transpose(1, 2)).transpose(1, 2)
"""


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def read_table(folder: Path, name: str = "seeds.csv") -> list[dict[str, float]]:
    rows = csv.DictReader((folder / name).read_text().splitlines())
    return [{name: float(value) for name, value in row.items()} for row in rows]


def test_same_table_as_here_and_it_goes_on(
    tmp_path: Path,
    write_cache: Callable[..., Path],
    cluster: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cache(tmp_path / "cache", actors=(1, 11))
    (tmp_path / "mine.py").write_text(FUSION)
    recipe = ("cache", "--model", "mine.py:Mine", "--face-encoder", "compact", "--protocol",
              "tuned", "--epochs", 1)  # fmt: skip
    here = run(*recipe, "--seed", "1,2", "--out", "here")
    there = run(*recipe, "--seed", "1,2", "--out", "there", "--ray", cluster)
    assert (here.exit_code, there.exit_code) == (0, 0), there.output
    assert "there/seed-2/best.safetensors" in there.stdout
    assert "mean ± deviation of 2 seeds" in there.stdout
    tables = [read_table(tmp_path / name) for name in ("here", "there")]
    assert [row["seed"] for row in tables[1]] == [1, 2]
    for one, other in zip(*tables, strict=True):
        assert one == pytest.approx(other, rel=1e-3)  # threads round otherwise
    again = run(*recipe, "--seed", "1,2", "--out", "there", "--ray", cluster)
    assert again.exit_code == 1
    assert "already holds a run" in again.stderr
    more = run(*recipe, "--seed", "1,2,3", "--out", "there", "--ray", cluster, "--resume")
    assert more.exit_code == 0, more.output
    assert read_table(tmp_path / "there")[:2] == tables[1]


def test_folds(tmp_path: Path, write_cache: Callable[..., Path], cluster: str) -> None:
    cache, out = tmp_path / "cache", tmp_path / "run"
    write_cache(cache, actors=[min(fold) for fold in load_splits().folds])
    done = run(cache, "--fusion", "ia", "--face-encoder", "compact", "--protocol", "tuned",
               "--epochs", 1, "--fold", "2,4", "--out", out, "--ray", cluster)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "mean ± deviation of 2 folds" in done.stdout
    assert [row["fold"] for row in read_table(out, "folds.csv")] == [2, 4]
    assert (out / "fold-4" / "best.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--ray", "local"), "--ray is for several runs: give --seed 1,2,3 or --fold all"),
        (("--threads", "2", "--seed", "1,2"), "--threads goes with --ray"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    result = run(tmp_path, "--fusion", "ia", "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_class_without_a_file(cache: Path, tmp_path: Path) -> None:
    name = add_model(type("Nowhere", (MultimodalNet,), {}))
    with pytest.raises(TrainingError, match=r"write it in a file, and add that by mer\.add_model"):
        train_series(cache, tmp_path / "run", seeds=[1, 2], fusion=name, ray="local")
