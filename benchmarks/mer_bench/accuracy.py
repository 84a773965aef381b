"""Accuracy of all contenders on the clips of one cache, by a process with the extra ``train``."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mer_bench.contender import BenchError, Entry
from mer_runtime.errors import MissingExtraError

#: What measures it, as ``python -m`` takes it.
MEASURER = "mer_bench.torch_accuracy"


def require_train(purpose: str) -> None:
    """Refuse what needs PyTorch where there is none, before anything is measured.

    Raises:
        MissingExtraError: it isn't installed.
    """
    for package in ("torch", "mer"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train", purpose)


def measure_accuracy(entries: Sequence[Entry], cache: Path, split: str) -> dict[str, Any]:
    """By contender's name: ``prec1``, ``prec5``, ``uar`` in percent with their ``intervals``,
    ``confusion`` (classes, classes) by ``labels``, and, where the reference takes part,
    ``agreement`` with it in percent and ``prec1_difference`` in points with its interval.

    Raises:
        BenchError: the cache or a model can't be read, or they don't suit each other.
    """
    ordered = sorted(entries, key=lambda entry: entry.kind != "reference")
    command = [sys.executable, "-m", MEASURER, "--split", split]
    for entry in ordered:
        if entry.kind == "reference":
            command += ["--reference", entry.model]
    command += [str(cache), *(entry.model for entry in ordered if entry.kind == "bundle")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise BenchError(f"the process that measures accuracy ended ({done.returncode})") from None
    if isinstance(found, dict):
        raise BenchError(str(found["error"]))
    return {entry.name: one for entry, one in zip(ordered, found, strict=True)}
