"""Checkpoints of ours and of the public reference's layout; bad files answer in one line."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from untrained import net

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
    weights = loaded.model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name], value), name


def test_half_precision(small_model: SmallModel, write_checkpoint: WriteCheckpoint) -> None:
    whole, half = write_checkpoint("whole.safetensors"), write_checkpoint("half.st", half=True)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    weights = mer.load_checkpoint(half).model.state_dict()
    for name, value in small_model[0].state_dict().items():
        got = weights[name]
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
