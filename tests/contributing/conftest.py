"""Guides followed to the letter, and a small checkpoint with a corpus to try them on."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "contributing"
#: A block of code: its first line names the file, and for a row the table in it.
BLOCK = re.compile(r"```python\n# (\S+?)(?:, in (\w+))?\n(.*?)```", re.DOTALL)

Follow = Callable[[str], None]


@pytest.fixture(scope="module")
def follow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Follow]:
    """A function that does what a guide says, without touching the packages' files.

    Its modules are written elsewhere and imported by the names that they would have; its rows are
    put into the tables. All of it is undone at the end of the tests' module.
    """
    with pytest.MonkeyPatch.context() as patch:

        def do(guide: str) -> None:
            folder = tmp_path_factory.mktemp("guide")
            known: dict[str, object] = {}
            blocks = BLOCK.findall((GUIDES / guide).read_text())
            assert blocks, "the guide has no code"
            for path, table, code in blocks:
                name = path.split("/", 1)[1].removesuffix(".py").replace("/", ".")
                if table:
                    module = importlib.import_module(name.removesuffix(".__init__"))
                    rows = eval(f"{{{code}}}", vars(module) | known)
                    for key, row in rows.items():
                        patch.setitem(getattr(module, table), key, row)
                    continue
                file = folder / Path(path).name
                file.write_text(code)
                spec = importlib.util.spec_from_file_location(name, file)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                patch.setitem(sys.modules, name, module)
                spec.loader.exec_module(module)
                known |= vars(module) | {name.rpartition(".")[2]: module}

        yield do


@pytest.fixture(scope="module")
def trained(
    follow: Follow,
    write_cache: Callable[..., Path],
    graphs_once: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """(checkpoint, cache): the fusion and the encoder of their guide, after one epoch.

    The cache's crops and voices are like the golden ones: calibrated is what the gate shows.
    """
    from mer.train.training import train_model
    from mer_export.proof.golden import golden_inputs, sample_clip
    from mer_runtime.inputs.media import read_window
    from mer_runtime.spec import Spec, VideoSpec

    follow("fusion-or-encoder.md")
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    spec = Spec(video=VideoSpec(frames=3, size=32))
    golden, spoken = golden_inputs(spec), read_window(sample_clip(), spec).waveform
    assert spoken is not None
    cache = write_cache(
        folder / "cache",
        actors=(1, 2, 11),
        faces=golden.crops,
        voices=[spoken, (8 * spoken).clip(-1, 1), spoken[::-1]],
    )
    run = folder / "run"
    summary = train_model(cache, run, fusion="gate", face_encoder="small", epochs=1)
    return summary.checkpoint, cache
