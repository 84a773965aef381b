"""Checkpoints of ours and of the public reference's layout; bad files answer in one line."""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import mer
from mer.checkpoint import load_encoder
from mer.errors import CheckpointError
from mer.models import FUSIONS, EfficientFace, MultimodalNet, build_model
from mer.reference import REFERENCE_SPEC
from mer.weights import SHIPPED
from mer_runtime.bundle import SHIPPED_CHECKPOINTS
from mer_runtime.errors import MerError, OutputError
from mer_runtime.feeds import Temperatures
from mer_runtime.spec import AudioSpec, Fusion, Spec

WriteCheckpoint = Callable[..., Path]
SmallModel = tuple[MultimodalNet, Spec]


def net(fusion: Fusion = "ia", num_heads: int = 1, num_classes: int = 8) -> MultimodalNet:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        labels = tuple(map(str, range(num_classes)))
        return build_model(Spec(fusion=fusion, labels=labels, num_heads=num_heads)).eval()


@torch.inference_mode()
def logits(model: MultimodalNet) -> Tensor:
    """Answers for a fixed input, without the encoder, which costs the time."""
    generator = torch.Generator().manual_seed(1)
    audio = torch.randn(2, 10, 113, generator=generator)
    return model.head(audio, torch.rand(2, 15, 1024, generator=generator))


def one_line(path: Path, error: pytest.ExceptionInfo[CheckpointError]) -> str:
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert isinstance(error.value, MerError)
    return message


# --- ours ---------------------------------------------------------------------------------


def test_round_trip(small_model: SmallModel, write_checkpoint: WriteCheckpoint) -> None:
    model, spec = small_model
    path = write_checkpoint()
    loaded = mer.load_checkpoint(path)
    assert loaded.spec == spec
    assert not loaded.model.training
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


def test_half_precision(small_model: SmallModel, write_checkpoint: WriteCheckpoint) -> None:
    whole, half = write_checkpoint("whole.safetensors"), write_checkpoint("half.st", half=True)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    loaded = mer.load_checkpoint(half).model
    for name, value in small_model[0].state_dict().items():
        got = loaded.state_dict()[name]
        assert got.dtype == value.dtype  # float32 again; counters stay integers
        # float16 keeps 11 bits: half a unit in the last place, 2^-11, of each weight.
        torch.testing.assert_close(got, value, rtol=2**-11, atol=1e-7)


def test_notes_and_spec_travel(small_model: SmallModel, tmp_path: Path) -> None:
    spec = Spec(fusion="lt", num_heads=4, labels=("ja", "nein"), audio=AudioSpec(n_mfcc=13))
    path = tmp_path / "model.safetensors"
    notes = {"corpus": "stand-in for RAVDESS", "epoch": 3, "prec1": 41.5}
    mer.save_checkpoint(path, build_model(spec), spec, notes=notes)
    loaded = mer.load_checkpoint(path)
    assert loaded.spec == spec
    assert loaded.notes == notes
    assert loaded.model.fusion == "lt"


def test_temperature_travels(small_model: SmallModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    given = Temperatures(1.75, 0.5, 2.0)
    mer.save_checkpoint(path, *small_model, temperatures=given)
    assert mer.load_checkpoint(path).temperatures == given
    mer.save_checkpoint(path, *small_model)
    assert mer.load_checkpoint(path).temperatures == Temperatures(1.0, 1.0, 1.0)


@pytest.mark.parametrize("temperature", [None, 0, 0.0, -1.0, float("nan"), float("inf"), True, "1"])
def test_temperature_in_a_file(
    temperature: object, small_model: SmallModel, tmp_path: Path
) -> None:
    model, spec = small_model
    temperatures = {"both": 1.0, "audio": temperature, "video": 1.0}
    note = {"format": 1, "spec": spec.to_dict(), "notes": {}, "temperatures": temperatures}
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, {"mer_edge": json.dumps(note)})
    with pytest.raises(CheckpointError, match="must be a finite number above 0") as error:
        mer.load_checkpoint(path)
    one_line(path, error)


def test_saving_overwrites_as_a_whole(small_model: SmallModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"an older file")
    mer.save_checkpoint(path, *small_model)
    assert mer.load_checkpoint(path).spec == small_model[1]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("obstacle", ["no such folder", "a folder", "a file above"])
def test_unwritable_target(obstacle: str, small_model: SmallModel, tmp_path: Path) -> None:
    path = tmp_path / "out" / "model.safetensors"
    if obstacle == "a folder":
        path.mkdir(parents=True)
    elif obstacle == "a file above":
        path.parent.write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="can't write") as error:
        mer.save_checkpoint(path, *small_model)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written


def test_unwritable_leaves_the_older_file(small_model: SmallModel, tmp_path: Path) -> None:
    """The disk is full: the earlier checkpoint stays whole."""
    path = tmp_path / "model.safetensors"
    mer.save_checkpoint(path, *small_model)
    older = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError):
            mer.save_checkpoint(path, build_model(Spec()), Spec())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == older
    assert list(tmp_path.iterdir()) == [path]


# --- the reference's layout ---------------------------------------------------------------


def parallel(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in weights.items()}


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda w: w,
    "state_dict": lambda w: {"epoch": 7, "state_dict": w, "best_prec1": torch.tensor(66.6)},
    "module.": parallel,
    "state_dict, module.": lambda w: {"epoch": 7, "arch": "x", "state_dict": parallel(w)},
    "with optimizer": lambda w: {
        "state_dict": w,
        "optimizer": torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.04).state_dict(),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_reference_layouts(layout: Callable[..., Any], tmp_path: Path) -> None:
    model = net()
    path = tmp_path / "RAVDESS_multimodalcnn_15_best0.pth"
    torch.save(layout(model.state_dict()), path)
    loaded = mer.load_checkpoint(path)
    torch.testing.assert_close(logits(loaded.model), logits(model), rtol=0, atol=0)
    assert loaded.spec == REFERENCE_SPEC
    assert not loaded.model.training


def test_reference_spec_is_what_its_code_does() -> None:
    """design.md, section 7: 22 050 Hz, 10 MFCCs, no gain control; BGR, /255, nothing else."""
    audio, video = REFERENCE_SPEC.audio, REFERENCE_SPEC.video
    assert audio.shape == (10, 156)
    assert (audio.sample_rate, audio.amplitude, audio.mean, audio.std) == (22_050, "none", (), ())
    assert (video.colour, video.scale) == ("bgr", 1 / 255)
    assert (video.mean, video.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_is_found_from_the_weights(fusion: Fusion, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    state = {"state_dict": parallel(net(fusion).state_dict())}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    loaded = mer.load_checkpoint(path)
    assert loaded.spec.fusion == fusion
    torch.testing.assert_close(logits(loaded.model), logits(net(fusion)), rtol=0, atol=0)


@pytest.mark.parametrize("source", ["argument", "file", "opt in file", "opts.json", "nowhere"])
@pytest.mark.parametrize("fusion", ["it", "lt"])
def test_number_of_heads(fusion: Fusion, source: str, tmp_path: Path) -> None:
    model = net(fusion, num_heads=4)
    path = tmp_path / "model.pth"
    data: dict[str, Any] = {"state_dict": model.state_dict()}
    arguments: dict[str, Any] = {}
    if source == "argument":
        arguments["num_heads"] = 4
        data["num_heads"] = 2  # the argument goes first
    elif source == "file":
        data["num_heads"] = 4
    elif source == "opt in file":
        data["opt"] = {"num_heads": 4, "fusion": fusion}
    elif source == "opts.json":
        (tmp_path / "opts1700000000.0.json").write_text(json.dumps({"num_heads": 4}))
    torch.save(data, path)
    loaded = mer.load_checkpoint(path, **arguments)
    wanted = 1 if source == "nowhere" else 4
    assert loaded.spec.num_heads == wanted
    torch.testing.assert_close(logits(loaded.model), logits(net(fusion, wanted)), rtol=0, atol=0)
    # Heads leave no trace in the shapes: the two answers really differ.
    assert (logits(net(fusion, 1)) - logits(net(fusion, 4))).abs().max() > 1e-6


@pytest.mark.parametrize(
    "content", ["{not json", "[1, 2]", '{"fusion": "it"}', '{"num_heads": "x"}']
)
def test_odd_options_beside_it_are_passed_over(content: str, tmp_path: Path) -> None:
    (tmp_path / "opts.json").write_text(content)
    torch.save(net("it").state_dict(), tmp_path / "model.pth")
    assert mer.load_checkpoint(tmp_path / "model.pth").spec.num_heads == 1


def test_other_classes_need_labels(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(net(num_classes=3).state_dict(), path)
    with pytest.raises(CheckpointError) as error:
        mer.load_checkpoint(path)
    assert "3 classes" in one_line(path, error)
    assert "--labels" in str(error.value)
    with pytest.raises(CheckpointError, match="2 labels"):
        mer.load_checkpoint(path, labels=("a", "b"))
    loaded = mer.load_checkpoint(path, labels=("good", "bad", "ugly"))
    assert loaded.spec.labels == ("good", "bad", "ugly")
    assert logits(loaded.model).shape == (2, 3)


def test_own_preprocessing_for_a_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(net("lt").state_dict(), path)
    loaded = mer.load_checkpoint(path, spec=Spec(audio=AudioSpec(sample_rate=48_000)))
    assert loaded.spec.audio.sample_rate == 48_000
    assert loaded.spec.fusion == "lt"


# --- bad files ----------------------------------------------------------------------------


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
    for path in (tmp_path / "missing.pth", tmp_path):
        with pytest.raises(CheckpointError, match="no such file"):
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
    weights = net().state_dict()
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


# --- encoders -----------------------------------------------------------------------------


def test_encoder_layouts(tmp_path: Path) -> None:
    encoder = EfficientFace().eval().state_dict()
    published = encoder | {"fc.weight": torch.ones(7, 1024), "fc.bias": torch.ones(7)}
    save_file({n: v.contiguous() for n, v in encoder.items()}, tmp_path / "ours.safetensors")
    torch.save({"state_dict": parallel(published)}, tmp_path / "published.pth.tar")
    torch.save(net().state_dict(), tmp_path / "whole.pth")
    for name in ("ours.safetensors", "published.pth.tar"):
        loaded = load_encoder(tmp_path / name)
        assert set(loaded) == set(encoder)
        assert all(torch.equal(loaded[key], encoder[key].float()) for key in encoder)
    loaded = load_encoder(tmp_path / "whole.pth")
    EfficientFace().load_state_dict(loaded)
    assert torch.equal(loaded["conv1.0.weight"], net().visual_model.conv1[0].weight)


@pytest.mark.parametrize("content", ["missing", "empty", "text", "another network"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_bad_encoder(content: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"encoder{suffix}"
    if content == "empty":
        path.touch()
    elif content == "text":
        path.write_text("not weights")
    elif content == "another network":
        other = {"fc.weight": torch.ones(2, 2)}
        save_file(other, path) if suffix == ".safetensors" else torch.save(other, path)
    with pytest.raises(CheckpointError) as error:
        load_encoder(path)
    one_line(path, error)


def test_the_runtime_knows_the_names_of_what_ships() -> None:
    assert SHIPPED_CHECKPOINTS == SHIPPED
