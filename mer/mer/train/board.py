"""Metrics of a run for TensorBoard, beside its CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from mer.errors import TrainingError
from mer.train.runs import Row
from mer_runtime.errors import MissingExtraError

Log = Literal["tensorboard"]
LOGS: tuple[Log, ...] = get_args(Log)


def require_log(log: str) -> None:
    """Refuse a log that can't be written.

    Raises:
        TrainingError: there is no such log.
        MissingExtraError: its package isn't installed.
    """
    if log not in LOGS:
        raise TrainingError(f"there is no log {log!r}: take {', '.join(LOGS)}")
    if find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tensorboard", "--log tensorboard")


@contextmanager
def open_log(log: Log | None, folder: Path) -> Iterator[Callable[[Row], None]]:
    """A function that writes an epoch's metrics as scalars, such as validation/prec1.

    An epoch that is run again after an interruption takes its old place.
    """
    if log is None:
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def write(row: Row) -> None:
            for name, value in row.items():
                if name != "epoch":
                    tag = name.replace("_", "/", 1)
                    writer.add_scalar(tag, value, int(row["epoch"]))
            writer.flush()

        yield write
