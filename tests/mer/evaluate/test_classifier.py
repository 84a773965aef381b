"""Checkpoints and bundles behind one interface, and the names of what ships."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mer import load_checkpoint
from mer.errors import CheckpointError
from mer.evaluate.classifier import NetworkClassifier, find_model, open_model
from mer.models import Standardiser
from mer.weights import shipped_checkpoint
from mer_runtime.bundle import shipped_bundle
from mer_runtime.errors import MissingModalityError
from mer_runtime.spec import Spec

Write = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def window() -> tuple[np.ndarray, np.ndarray]:
    """Raw MFCCs and crops of no clip."""
    generator = np.random.default_rng(5)
    mfcc = generator.normal(-20, 60, (10, 113)).astype(np.float32)
    return mfcc, generator.integers(0, 256, (15, 224, 224, 3), np.uint8)


def test_network_answers_as_its_forward_pass(
    write_checkpoint: Write, small_model: tuple[Any, Spec], window: tuple[np.ndarray, np.ndarray]
) -> None:
    video = dataclasses.replace(small_model[1].video, size=64)  # a twelfth of the work
    checkpoint = load_checkpoint(
        write_checkpoint(spec=dataclasses.replace(small_model[1], video=video))
    )
    mfcc, crops = window[0], np.ascontiguousarray(window[1][:, :64, :64])
    classifier = NetworkClassifier(checkpoint)
    features = classifier.encode(crops)
    assert features.shape == (15, 1024)
    cases = {
        "both": (classifier.classify(mfcc, features), mfcc, crops),
        "no voice": (classifier.classify(None, features), 0 * mfcc, crops),
        "no face": (classifier.classify(mfcc, None), mfcc, 0 * crops),
    }
    for name, (logits, *inputs) in cases.items():
        fed = Standardiser(checkpoint.spec)(*(torch.from_numpy(one)[None] for one in inputs))
        with torch.no_grad():
            expected = checkpoint.model(*fed)[0].numpy()
        # float32 through the same layers, in batches of other sizes.
        np.testing.assert_allclose(logits, expected, atol=1e-4, err_msg=name)
    with pytest.raises(MissingModalityError):
        classifier.classify(None, None)


def test_bundle_and_checkpoint_agree(
    bundle: Path, write_checkpoint: Write, window: tuple[np.ndarray, np.ndarray]
) -> None:
    mfcc, crops = window
    models = [open_model(bundle), open_model(write_checkpoint())]
    assert [model.kind for model in models] == ["bundle", "checkpoint"]
    one, other = (
        model.classifier.classify(mfcc, model.classifier.encode(crops)) for model in models
    )
    np.testing.assert_allclose(one, other, atol=1e-3)  # what the gate lets fp32 differ by


def test_names_of_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ia", "it", "lt", "ia-compact"):
        assert find_model(name) == shipped_checkpoint(name)
    for name in ("ia-int8", "ia-compact-int8"):
        assert find_model(name) == shipped_bundle(name)
    assert open_model("lt").spec.fusion == "lt"
    assert open_model("ia-int8").kind == "bundle"
    with pytest.raises(
        CheckpointError,
        match=r"no such file or folder.* ia, it, lt, ia-compact, ia-compact-int8, ia-int8",
    ):
        find_model("xt")
    with pytest.raises(CheckpointError, match="no such file"):
        find_model("it-nothing-int8")
    # A file of one's own goes before.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ia").write_bytes(b"x")
    assert find_model("ia") == Path("ia")
