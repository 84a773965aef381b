"""What ``prove_faults`` kills: commands on small inputs, and what of theirs must be whole."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np

from make_sample_corpus import make_corpus
from mer.checkpoint import load_checkpoint, load_encoder
from mer.data.cache import Cache
from mer.data.index import CLIPS_FOLDER, INDEX_FILE, read_clip, read_index
from mer.data.preparation import prepare_cache
from mer.train.training import train_model
from mer_runtime.bundle import load_bundle
from mer_runtime.spec import Spec

#: Pictures of 224 pixels would take minutes.
PRETRAIN = """
import mer.cli.pretrain as command
from mer.train.photo_learner import PretrainingRecipe
small = PretrainingRecipe(batch_size=32)
command.PretrainingRecipe = lambda: small
command.main()
"""
#: There is no TensorRT without a GPU: of building an engine the keeping is proved.
ENGINE = """
import sys, time
from pathlib import Path
from mer_runtime.engines.cache import EngineKey, load_or_build, read_engine

def build(progress):
    for _ in range(10):
        time.sleep(0.05)
    return bytes(20_000_000)

key = EngineKey("0" * 64, "stand-in 1", "none", {})
assert load_or_build("encoder", key, Path(sys.argv[1]), build) == bytes(20_000_000)
"""


Check = Callable[[Path], object]
#: Words with which a run goes on.
AFTER = {"pretrain": ("--resume",), "train": ("--resume",)}
#: Seconds in which what takes minutes is killed.
WITHIN = {"export, calibrated": 60.0}


@dataclass(frozen=True)
class Subject:
    """A command.

    Attributes:
        command: the words after ``python``; ``{out}`` is its output.
        check: called with the output in whatever state it is; raises where something there looks
            whole and isn't.
        done: the same of the output of a run that ended well.
        after: of a run that goes on: words for a second start.
        within: seconds of the time in which it is killed; as long as it takes otherwise.
    """

    name: str
    command: tuple[str, ...]
    check: Check
    done: Check
    after: tuple[str, ...] = ()
    within: float | None = None
    needs: dict[str, Path] = field(default_factory=dict)

    def words(self, out: Path, *, again: bool) -> list[str]:
        """The command; ``again`` where its output may be there."""
        given = [*self.command, *(self.after if again else ())]
        for name, path in {**self.needs, "out": out}.items():
            given = [word.replace(f"{{{name}}}", str(path)) for word in given]
        return [sys.executable, *given]


def start(module: str, *arguments: str) -> tuple[str, ...]:
    """A command of ours, as its console script starts it."""
    return ("-c", f"from {module} import main; main()", *arguments)


def list_subjects(folder: Path) -> list[Subject]:
    """All of them; inputs are made in ``folder``, where a former call left none."""
    needs = {name: folder / name for name in ("corpus", "cache", "clips", "run", "photos", "clip")}
    needs["clip"] = Path(__file__).resolve().parents[1] / "samples" / "portrait.mp4"
    _make_inputs(needs)
    bundle, train = ("mer_export.cli", "--out", "{out}"), ("mer.cli.train", "{cache}")
    fit = ("--fusion", "ia", "--freeze", "encoder", "--epochs", "3", "--out", "{out}")
    own = ("{run}/best.safetensors", "--calibration", "{cache}", "--max-drop", "100")
    answer, there = ("mer_runtime.cli", "ia-int8"), ("--overlay", "{out}")
    live = ("{clip}", "--pace", "real", "--record", "{out}/out.mp4")
    commands: list[tuple[str, tuple[str, ...], Check, Check]] = [
        (
            "prepare",
            start("mer.cli.prepare", "{clips}", "--out", "{out}", "--jobs", "2"),
            check_cache,
            check_whole_cache,
        ),
        (
            "pretrain",
            ("-c", PRETRAIN, "{photos}", "--epochs", "3", "--size", "64", "--out", "{out}"),
            check_encoder,
            check_encoder,
        ),
        ("train", start(*train, *fit), check_run, check_run),
        ("export, fp32", start(*bundle, "ia", "--precision", "fp32"), check_bundle, load_bundle),
        ("export, calibrated", start(*bundle, *own), check_bundle, load_bundle),
        ("engine", ("-c", ENGINE, "{out}"), check_nothing, check_engine),
        (
            "folder, 2 jobs",
            start(*answer, "{clips}", "--jobs", "2", *there),
            check_pictures,
            check_all_pictures,
        ),
        ("record", start(*answer, *live), check_recording, check_whole_recording),
    ]
    return [
        Subject(name, words, check, done, AFTER.get(name, ()), WITHIN.get(name), needs)
        for name, words, check, done in commands
    ]


def _make_inputs(needs: dict[str, Path]) -> None:
    if not needs["corpus"].exists():
        make_corpus(needs["corpus"])
    prepare_cache(needs["corpus"], needs["cache"], jobs=2)
    if not (needs["run"] / "best.safetensors").exists():
        train_model(needs["cache"], needs["run"], fusion="ia", freeze="encoder", epochs=1)
    if not needs["clips"].exists():
        needs["clips"].mkdir()
        for actor in range(1, 9):
            shutil.copy(needs["clip"], needs["clips"] / f"01-01-03-01-01-01-{actor:02}.mp4")
    if not needs["photos"].exists():
        generator = np.random.default_rng(0)
        for half, count in (("train", 32), ("test", 4)):
            for label in ("happy", "sad"):
                (needs["photos"] / half / label).mkdir(parents=True)
                for i in range(count):
                    picture = generator.integers(0, 256, (48, 48), np.uint8)
                    cv2.imwrite(str(needs["photos"] / half / label / f"{i}.png"), picture)


def check_nothing(out: Path) -> None:
    """Nothing is promised of it before its end."""


def check_cache(out: Path) -> None:
    """Every clip that has its name can be read."""
    index = read_index(out) if (out / INDEX_FILE).exists() else None
    if index is not None:
        spec = Spec.from_dict(index["spec"])
        for path in (out / CLIPS_FOLDER).glob("[!.]*.npy"):
            read_clip(path, spec)


def check_whole_cache(out: Path) -> None:
    """It opens, and nothing half-written is left."""
    assert len(Cache.open(out)) == 8
    assert not list(out.rglob("*.part*"))


def check_encoder(out: Path) -> None:
    """The encoder, once it has its name, loads."""
    if (out / "encoder.safetensors").exists():
        load_encoder(out / "encoder.safetensors")


def check_run(out: Path) -> None:
    """The best checkpoint and the settings, once they have their names, load."""
    if (out / "best.safetensors").exists():
        load_checkpoint(out / "best.safetensors")
    if (out / "run.json").exists():
        json.loads((out / "run.json").read_text())


def check_bundle(out: Path) -> None:
    """A bundle is there whole or not at all."""
    if out.exists() and any(out.iterdir()):
        load_bundle(out)


def check_engine(out: Path) -> None:
    """One engine is kept, and no lock."""
    (kept,) = out.iterdir()
    assert kept.suffix == ".engine", kept


def check_pictures(out: Path) -> None:
    """Every picture that has its name is whole."""
    for path in out.glob("[!.]*.png"):
        content = path.read_bytes()
        assert content.endswith(b"IEND\xaeB`\x82"), path
        assert cv2.imread(str(path)) is not None, path


def check_all_pictures(out: Path) -> None:
    """There is one of each clip, and nothing half-written of this run."""
    check_pictures(out)
    assert len(list(out.glob("[!.]*.png"))) == 8


def check_whole_recording(out: Path) -> None:
    """It is there."""
    assert (out / "out.mp4").exists()
    check_recording(out)


def check_recording(out: Path) -> None:
    """A recording that has its name can be played to its end."""
    if (out / "out.mp4").exists():
        with av.open(str(out / "out.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0


def find_leftovers(out: Path) -> Sequence[Path]:
    """Locks; half-written files are hidden, and the next run's to clear."""
    return list(out.rglob("*.lock")) if out.is_dir() else []
