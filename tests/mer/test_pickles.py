"""Checkpoints as others save them: wrapped, counted, with options beside the weights."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mer
from mer.errors import CheckpointError
from mer.models import build_model
from mer_runtime.errors import MerWarning
from mer_runtime.spec import Fusion, Spec

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return net("it")


def net(fusion: Fusion) -> Weights:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return dict(build_model(Spec(fusion=fusion)).state_dict())


def prefixed(prefix: str) -> Callable[[Weights], Any]:
    return lambda weights: {prefix + name: value for name, value in weights.items()}


def inside(weights: Weights) -> Weights:
    """Compiled and parallel parts of a network that is neither."""
    renamed = {"visual_model.": "visual_model.module.", "audio_model.": "audio_model._orig_mod."}
    found = dict(weights)
    for old, new in renamed.items():
        found = {name.replace(old, new): value for name, value in found.items()}
    return found


def counted(weights: Weights) -> Weights:
    counts = {"total_ops": torch.zeros(1), "visual_model.total_params": torch.zeros(1)}
    return weights | counts


LAYOUTS: dict[str, Callable[[Weights], Any]] = {
    "plain": lambda w: w,
    "state_dict": lambda w: {"state_dict": w, "scale": torch.ones(1)},
    "model_state_dict": lambda w: {"model_state_dict": w, "optimizer": {"state": {0: {"m": w}}}},
    "model": lambda w: {"model": w, "ema": {name: value + 1 for name, value in w.items()}},
    "net": lambda w: {"net": w, "acc": 91.5},
    "unheard of": lambda w: {"the_weights": w},
    "nested": lambda w: {"checkpoint": {"model_state_dict": w}},
    "module.": prefixed("module."),
    "_orig_mod.": prefixed("_orig_mod."),
    "model.": prefixed("model."),
    "all three": prefixed("_orig_mod.module.model."),
    "owner unheard of": prefixed("mer_net."),
    "inside": inside,
    "counted by thop": counted,
    "counted and wrapped": lambda w: {"net": prefixed("module.")(counted(w))},
    "namespace": lambda w: {"state_dict": w, "args": argparse.Namespace(lr=0.1, path=Path("a"))},
    "date": lambda w: {
        "state_dict": w,
        "when": datetime.date(2024, 1, 2),
        "at": datetime.datetime.fromtimestamp(1.7e9, datetime.timezone.utc).replace(tzinfo=None),
        "took": datetime.timedelta(hours=1),
    },
    "numpy": lambda w: {
        "state_dict": w,
        "best": np.float64(91.5),
        "epoch": np.int64(7),
        "history": np.arange(3.0),
    },
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(weights: Weights, tmp_path: Path, layout: str, legacy: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save(LAYOUTS[layout](weights), path, _use_new_zipfile_serialization=not legacy)
    with warnings.catch_warnings():  # nothing is assumed
        warnings.simplefilter("error", MerWarning)
        loaded = mer.load_checkpoint(path, num_heads=1)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert loaded.notes.get("epoch") == (7 if layout == "numpy" else None)


@pytest.mark.parametrize(
    "holder",
    [
        lambda heads: {"args": argparse.Namespace(num_heads=heads)},
        lambda heads: {"opt": argparse.Namespace(num_heads=np.int64(heads), fusion="it")},
        lambda heads: {"hyper_parameters": {"num_heads": heads}},
        lambda heads: {"num_heads": np.int32(heads)},
    ],
)
def test_heads_beside_the_weights(weights: Weights, tmp_path: Path, holder: Any) -> None:
    torch.save({"state_dict": weights} | holder(4), tmp_path / "model.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mer.load_checkpoint(tmp_path / "model.pth").spec.num_heads == 4


def test_assumed_heads_are_told(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "model.pth")
    with pytest.warns(MerWarning, match="1 is assumed.*--num-heads"):
        assert mer.load_checkpoint(tmp_path / "model.pth").spec.num_heads == 1


@pytest.mark.parametrize(
    "names", [("opts1.0.json", "opts2.0.json"), ("opts2.0.json", "opts1.0.json")]
)
def test_options_of_the_checkpoint_s_own_run(
    weights: Weights, tmp_path: Path, names: tuple[str, str]
) -> None:
    """Of three runs, the second's: the last that had begun, whatever the files are called."""
    path = tmp_path / "model.pth"
    torch.save(weights, path)
    os.utime(path, (2500, 2500))
    for begun, (name, heads) in enumerate([*zip(names, (2, 4), strict=True), ("opts3.json", 8)], 1):
        file = tmp_path / name
        file.write_text(json.dumps({"num_heads": heads, "fusion": "it"}))
        os.utime(file, (1000 * begun, 1000 * begun))
    other = tmp_path / "opts9.json"
    other.write_text(json.dumps({"num_heads": 16, "fusion": "lt"}))
    os.utime(other, (2400, 2400))
    with pytest.warns(MerWarning, match=f"{names[1]} is taken for its own, with num_heads 4"):
        assert mer.load_checkpoint(path).spec.num_heads == 4


def test_another_fusion_than_it_says(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"state_dict": weights, "opt": argparse.Namespace(fusion="lt", num_heads=1)}, path)
    with pytest.raises(CheckpointError, match="it says fusion lt, but its weights are of it"):
        mer.load_checkpoint(path)


def test_two_fusions_in_one(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(weights | net("lt"), path)
    with pytest.raises(CheckpointError, match="have no place in it, as av"):
        mer.load_checkpoint(path, num_heads=1)


def test_what_was_found_and_expected(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"loss": 1.0, "args": argparse.Namespace()}, path)
    with pytest.raises(
        CheckpointError, match=r"no weights, but loss \(float\), args \(Namespace\)"
    ):
        mer.load_checkpoint(path)
    torch.save({"fc.weight": torch.ones(2), "conv.weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="its weights are of conv, fc, and of none"):
        mer.load_checkpoint(path)
    torch.save(weights | {"classifier_1.0.bias": torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match=r"bias is \(3,\), where \(8,\) is expected"):
        mer.load_checkpoint(path, num_heads=1)
    torch.save({n: v for n, v in weights.items() if "running" not in n}, path)
    with pytest.raises(CheckpointError, match=r"\d+ of \d+ are missing, as \w+"):
        mer.load_checkpoint(path, num_heads=1)


def test_a_whole_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(build_model(Spec()), path)
    with pytest.raises(
        CheckpointError, match=r"holds a mer\.models.*torch\.save\(model\.state_dict"
    ):
        mer.load_checkpoint(path)
