"""The folder of a training run: its settings, metrics, state to resume from, and best model."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mer.errors import TrainingError
from mer_runtime.documents import read_json
from mer_runtime.files import make_folder, write_file, writing

STATE_FILE = "last.pt"
BEST_FILE = "best.safetensors"
SETTINGS_FILE = "run.json"
METRICS_FILE = "metrics.csv"
CURVES_FILE = "curves.png"
METRICS_FIELDS = (
    "epoch",
    "lr",
    "train_loss",
    "train_prec1",
    "validation_loss",
    "validation_prec1",
    "validation_prec5",
    "validation_audio_prec1",
    "validation_video_prec1",
)
#: Those of them that decide which epoch is the best; the last two where a protocol asks for them.
PREC1_FIELDS = ("validation_prec1", "validation_audio_prec1", "validation_video_prec1")

Row = dict[str, float]


class RunFolder:
    """Files of one run; all are written by a temporary name.

    Args:
        settings: what must be the same where a run is resumed, under ``settings``, and what else
            is worth keeping beside it.
        fields: columns of ``metrics.csv``; those that no epoch has are left out.

    Raises:
        TrainingError: the folder holds a run and ``resume`` is not set, or one that differs.
        OutputError: the folder can't be written.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        resume: bool,
        fields: Sequence[str] = METRICS_FIELDS,
    ) -> None:
        self.path, self._fields = path, fields
        self.best = path / BEST_FILE
        self.curves = path / CURVES_FILE
        if not resume:
            require_no_run(path)
        self.resumed = resume and _holds_run(path)
        if self.resumed:
            self._compare(settings)
        make_folder(path)
        self._settings = settings
        self._write_settings({})

    def load_state(self, device: str) -> dict[str, Any]:
        """What ``save_epoch`` last kept.

        Raises:
            TrainingError: the file is damaged.
        """
        return load_state(self.path / STATE_FILE, device)

    def save_epoch(self, rows: Sequence[Row], state: Mapping[str, Any]) -> None:
        """Keep the metrics so far and, last, the state that a resumed run starts from."""
        table = io.StringIO()
        fields = [name for name in self._fields if any(name in row for row in rows)]
        writer = csv.DictWriter(table, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(self.path / METRICS_FILE, table.getvalue().encode())
        data = io.BytesIO()
        torch.save(dict(state), data)
        write_file(self.path / STATE_FILE, data.getvalue())

    def finish(self, results: Mapping[str, Any]) -> None:
        """Add to the settings, under ``results``, what came out of the run."""
        self._write_settings({"results": results})

    def _write_settings(self, more: Mapping[str, Any]) -> None:
        text = json.dumps({**self._settings, **more}, indent=1) + "\n"
        write_file(self.path / SETTINGS_FILE, text.encode())

    def _compare(self, settings: Mapping[str, Any]) -> None:
        path = self.path / SETTINGS_FILE
        try:
            kept = dict(_leaves(read_json(path)["settings"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} can't be read: start the run again elsewhere") from error
        # By way of JSON, so that tuples compare equal to lists.
        wanted = dict(_leaves(json.loads(json.dumps(settings["settings"]))))
        for name in sorted({*kept, *wanted}):
            before, now = kept.get(name), wanted.get(name)
            longer = name == "protocol.epochs" and kept.get("protocol.schedule.kind") != "Cosine"
            if before != now and not longer:
                raise TrainingError(
                    f"{self.path} holds a run with {name} {before}, not {now}: resume it with "
                    "what it was started with, or name another folder"
                )


def require_no_run(path: Path) -> None:
    """Refuse a folder with a run.

    Raises:
        TrainingError: it has one.
    """
    if _holds_run(path):
        raise TrainingError(
            f"{path} already holds a run: resume it with --resume, or name another folder"
        )


def _holds_run(path: Path) -> bool:
    with writing(path):
        return (path / STATE_FILE).exists()


def load_state(path: Path, device: str) -> dict[str, Any]:
    """What a run keeps to be resumed from.

    Raises:
        TrainingError: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise TrainingError(f"{path} is damaged: start the run again elsewhere") from error
    return state


def rank_by_prec1(row: Row) -> tuple[float, ...]:
    """Higher validation prec1, on average over what was validated, or, equal, lower loss."""
    found = [row[name] for name in PREC1_FIELDS if name in row]
    return sum(found) / len(found), -row["validation_loss"]


def is_better(row: Row, than: Row | None) -> bool:
    """Whether an epoch beats another."""
    return than is None or rank_by_prec1(row) > rank_by_prec1(than)


def find_best(rows: Sequence[Row]) -> Row | None:
    """The best epoch so far, the earliest of equals."""
    return max(rows, key=rank_by_prec1, default=None)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested objects as ``a.b.c``, value."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{name}.{key}" if name else key)
