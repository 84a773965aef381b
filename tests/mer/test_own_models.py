"""Fusions and encoders from a file outside the package."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mer import MultimodalNet, add_model, load_checkpoint, save_checkpoint
from mer.checkpoint import METADATA_KEY
from mer.errors import CheckpointError
from mer.models import ENCODERS, FUSIONS, build_model, is_fusion, require_crops
from mer_runtime.errors import MerWarning, SpecError
from mer_runtime.spec import Spec

CODE = """
import torch
from torch import nn
from mer import MultimodalNet

class MyFusion(MultimodalNet):
    def add_fusion(self, num_heads):
        self.gate = nn.Linear(128, 128)

    def meet_late(self, audio, visual):
        weight = torch.sigmoid(self.gate(audio.mean(dim=-1)))
        return audio, visual * weight[:, :, None]

class MyEncoder(nn.Module):
    feature_width = 4

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)

    def features(self, crops):
        return self.first(crops).mean(dim=(2, 3))
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What a test adds isn't there for the next one."""
    with pytest.MonkeyPatch.context() as patch:
        for table in (FUSIONS, ENCODERS):
            for name in [name for name in table if ":" in name]:
                patch.delitem(table, name)
        yield
    for table in (FUSIONS, ENCODERS):
        for name in [name for name in table if ":" in name]:
            del table[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_fusion.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def checkpoint(file: Path, tmp_path: Path) -> Path:
    """Of both, in a process that then forgets them."""
    fusion, encoder = (add_model(f"{file}:{name}") for name in ("MyFusion", "MyEncoder"))
    spec = Spec(fusion=fusion, encoder=encoder)
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, build_model(spec), spec)
    del FUSIONS[fusion], ENCODERS[encoder]
    return path


def test_a_checkpoint_needs_the_file(file: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"its fusion is my_fusion.py:MyFusion, .* --model"):
        load_checkpoint(checkpoint)
    assert add_model(f"{file}:MyFusion") == "my_fusion.py:MyFusion"
    with pytest.raises(CheckpointError, match=r"its encoder is my_fusion.py:MyEncoder"):
        load_checkpoint(checkpoint)
    assert not is_fusion(add_model(f"{file}:MyEncoder"))
    loaded = load_checkpoint(checkpoint)
    assert type(loaded.model).__name__ == "MyFusion"
    assert loaded.model.visual_model.feature_width == 4


def test_no_code_is_imported_because_of_a_checkpoint(
    file: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match="checkpoints hold no code"):
        load_checkpoint(checkpoint)


def test_a_file_that_changed_since(file: Path, checkpoint: Path) -> None:
    file.write_text(CODE.replace("sigmoid", "tanh"))
    for name in ("MyFusion", "MyEncoder"):
        add_model(f"{file}:{name}")
    with pytest.warns(MerWarning, match="another version of my_fusion.py:MyFusion"):
        load_checkpoint(checkpoint)


def test_a_class_instead_of_a_file() -> None:
    class Mean(MultimodalNet):
        def meet_late(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
            return audio + visual.mean(dim=-1, keepdim=True), visual

    name = add_model(Mean)
    assert name == "test_own_models.py:Mean"
    assert type(build_model(Spec(fusion=name))) is Mean


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        (CODE, "Nobody", "has no class Nobody: it has MyFusion, MyEncoder"),
        ("x = 1\ny = x / 0\n", "A", "can't be imported: ZeroDivisionError, line 2"),
        ("class A\n", "A", "can't be imported: SyntaxError, line 1"),
        ("class A: pass\n", "A", "neither a fusion, .* nor a face encoder"),
        (CODE.replace("128, 128", "128, 64"), "MyFusion", "fails when it is tried: RuntimeError"),
        (CODE.replace("width = 4", "width = 5"), "MyEncoder", r"features of shape \(2, 4\), not"),
        (CODE.replace("first", "classifier_1"), "MyEncoder", "a part called classifier_1"),
    ],
)
def test_none_such(file: Path, code: str, name: str, message: str) -> None:
    file.write_text(code)
    before = dict(sys.modules)
    with pytest.raises(SpecError, match=message) as caught:
        add_model(f"{file}:{name}")
    assert len(str(caught.value).splitlines()) == 1
    assert not [key for key in FUSIONS.keys() | ENCODERS.keys() if ":" in key]
    assert str(file.parent) not in sys.path
    assert before.keys() - sys.modules.keys() == set()


def test_line_that_fails_of_a_file_beside(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("x = 1 / 0\n")
    monkeypatch.chdir(file.parent)
    with pytest.raises(SpecError, match="ZeroDivisionError, line 1: division by zero"):
        add_model(f"{file.name}:MyFusion")


FLAT = """
from torch import nn

class Flat(nn.Module):
    feature_width = 8

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3 * 32 * 32, 8)

    def features(self, crops):
        return self.last(crops.flatten(1))
"""


def test_encoder_of_one_size_of_crops(file: Path) -> None:
    file.write_text(FLAT)
    told = "fails when it is tried on crops of 224 x 224 pixels: RuntimeError, line 12: mat1 and"
    with pytest.raises(SpecError, match=told):
        add_model(f"{file}:Flat")
    file.write_text(FLAT.replace("width = 8", "width = 8\n    crop_size = 32"))
    name = add_model(f"{file}:Flat")
    require_crops(name, 32)
    with pytest.raises(SpecError, match="on crops of 96 x 96 pixels"):
        require_crops(name, 96)
    require_crops("compact", 33)


@pytest.mark.parametrize("text", ["my_fusion.py", "my_fusion:MyFusion", "none.py:A", ":A", "a.py:"])
def test_what_isn_t_written_so(text: str) -> None:
    with pytest.raises(SpecError, match=r"write FILE.py:CLASS|there is no such file"):
        add_model(text)


def test_a_trial_leaves_the_seed_alone(file: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    add_model(f"{file}:MyFusion")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("wrong", ["ia", "it", "lt", "gated"])
@pytest.mark.parametrize("fusion", ["ia", "it", "lt", "gated"])
def test_another_fusion_than_it_says(fusion: str, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    spec = Spec(fusion=fusion, encoder="compact")
    save_checkpoint(path, build_model(spec), spec)
    with safe_open(path, framework="pt") as opened:
        note = json.loads(opened.metadata()[METADATA_KEY])
    note["spec"]["fusion"] = wrong
    save_file(load_file(path), path, {METADATA_KEY: json.dumps(note)})
    if wrong == fusion:
        assert load_checkpoint(path).spec.fusion == fusion
        return
    with pytest.raises(CheckpointError, match="the weights don't fit the model"):
        load_checkpoint(path)


def test_everybody_may_read_it_as_the_umask_lets_them(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain", str(tmp_path / "model.safetensors")
    plain.touch()
    spec = Spec(encoder="compact")
    save_checkpoint(path, build_model(spec), spec)
    assert Path(path).stat().st_mode == plain.stat().st_mode
    assert isinstance(load_checkpoint(path).model, nn.Module)
