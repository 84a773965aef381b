"""Files that are no checkpoint, or a damaged or foreign one: refused in a line, and never run."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from untrained import net

import mer
from mer.errors import CheckpointError
from mer_runtime.errors import MerError
from mer_runtime.spec import Spec

WriteCheckpoint = Callable[..., Path]


def one_line(path: Path, error: pytest.ExceptionInfo[CheckpointError]) -> str:
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert isinstance(error.value, MerError)
    return message


class Malicious:
    """Unpickles by running a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "was-run", tmp_path / "model.pth"
    torch.save({"state_dict": net().state_dict(), "extra": Malicious(marker)}, path)
    with pytest.raises(CheckpointError) as error:
        mer.load_checkpoint(path)
    one_line(path, error)
    assert not marker.exists()
    path.write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(CheckpointError):
        mer.load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["ours", "zip", "legacy"])
def test_truncated(
    kind: str, share: float, write_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    if kind == "ours":
        path = write_checkpoint()
    else:
        torch.save(net().state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError) as error:
        mer.load_checkpoint(path)
    one_line(path, error)


BAD_CONTENTS = {
    "text": b"dear diary\n" * 50,
    "one byte": b"{",
    "zeros": bytes(4096),
    "header only": (2).to_bytes(8, "little") + b"{}",
    "bad header": (20).to_bytes(8, "little") + b"{" + b"x" * 19,
    "huge header": (2**62).to_bytes(8, "little") + b"{}",
    "zip of nothing": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("content", BAD_CONTENTS.values(), ids=BAD_CONTENTS.keys())
def test_not_a_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        mer.load_checkpoint(path)
    one_line(path, error)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, fault in ((tmp_path / "missing.pth", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(CheckpointError, match=fault):
            mer.load_checkpoint(path)


FOREIGN: dict[str, Any] = {
    "list": [1, 2],
    "tensor": torch.ones(3),
    "number": 3,
    "empty dict": {},
    "no tensors": {"state_dict": {"a": 1}},
    "state_dict is no dict": {"state_dict": [torch.ones(1)]},
    "another network": {"fc.weight": torch.ones(2, 2)},
    "keys are numbers": {1: torch.ones(2)},
    "scalar for a weight": {"audio_model.conv1d_0.0.weight": torch.tensor(1.0)}
    | {"av1.q.weight": torch.tensor(1.0), "classifier_1.0.weight": torch.tensor(1.0)},
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_pytorch_file(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as error:
        mer.load_checkpoint(path)
    one_line(path, error)


@pytest.mark.parametrize(
    "name",
    [
        "classifier_1.0.weight",
        "classifier_1.0.bias",
        "audio_model.conv1d_0.0.weight",
        "visual_model.conv1.0.weight",
        "av1.kv.weight",
        "visual_model.stage3.2.branch2.1.running_mean",
    ],
)
@pytest.mark.parametrize("defect", ["missing", "wrong shape"])
def test_weights_that_do_not_fit(name: str, defect: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    weights = net().state_dict()
    if defect == "missing":
        del weights[name]
    else:
        weights[name] = torch.ones(3, *weights[name].shape[1:]).repeat(1, 2, *[1] * 9)[0]
    torch.save(weights, path)
    with pytest.raises(CheckpointError) as error:
        mer.load_checkpoint(path)
    one_line(path, error)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_of_a_training_that_diverged(value: float, tmp_path: Path) -> None:
    weights = copy.deepcopy(net().state_dict())  # the net is every test's
    weights["classifier_1.0.bias"][2] = value
    torch.save(weights, tmp_path / "diverged.pth")
    with pytest.raises(CheckpointError, match=r"aren't finite numbers, as classifier_1\.0\.bias"):
        mer.load_checkpoint(tmp_path / "diverged.pth", num_heads=1)


def test_extra_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(net().state_dict() | {"text_model.fc.weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"text_model\.fc\.weight"):
        mer.load_checkpoint(path)


@pytest.mark.parametrize("heads", [0, 3, -1, 128])
def test_impossible_heads(heads: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(net("it").state_dict(), path)
    with pytest.raises(CheckpointError, match="num_heads"):
        mer.load_checkpoint(path, num_heads=heads)


def spoil(note: dict[str, Any], **changes: Any) -> dict[str, str]:
    return {"mer_edge": json.dumps(note | changes)}


def test_safetensors_without_a_usable_spec(tmp_path: Path) -> None:
    weights = {name: value.contiguous() for name, value in net().state_dict().items()}
    good = {"format": 1, "spec": Spec().to_dict(), "notes": {}, "temperatures": 1.0}
    path = tmp_path / "model.safetensors"
    for metadata in (
        None,
        {"format": "pt"},
        {"mer_edge": "{"},
        {"mer_edge": "[]"},
        {"mer_edge": "{}"},
        spoil(good, format=2),
        spoil(good, spec=None),
        spoil(good, spec={"fusion": "zz"}),
        spoil(good, spec={"surprise": 1}),
        spoil(good, notes=3),
        spoil(good, notes="ab"),
        spoil(good, spec=Spec(fusion="lt").to_dict()),  # not the weights' fusion
        spoil(good, spec=Spec(labels=("a", "b")).to_dict()),
    ):
        save_file(weights, path, metadata=metadata)
        with pytest.raises(CheckpointError) as error:
            mer.load_checkpoint(path)
        one_line(path, error)
    save_file(weights, path, metadata=spoil(good))  # the untouched note loads
    assert mer.load_checkpoint(path).spec == Spec()


def test_another_programs_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"fc.weight": torch.ones(2, 2)}, path)
    with pytest.raises(CheckpointError) as error:
        mer.load_checkpoint(path)
    assert "spec" in one_line(path, error)
