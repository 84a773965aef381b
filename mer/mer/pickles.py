"""PyTorch's own files: the weights among whatever else was saved, and what it says of them.

Nothing is executed that a file names: besides weights and plain values only the types below are
made.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import re
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mer.errors import CheckpointError

#: Under these names weights are looked for first.
HOLDERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
#: What wrappers put into a weight's name, anywhere: DataParallel, torch.compile.
WRAPPERS = {"module", "_orig_mod"}
#: And in front of it: classes that hold the network.
OWNERS = {"model", "net", "network"}
#: thop leaves its counts among the weights.
COUNTS = {"total_ops", "total_params"}
#: How deep weights may lie.
DEPTH = 3
#: What PyTorch calls a type that it won't make.
REFUSED = re.compile(r"GLOBAL ([\w.]+)")

_numpy_types = [type(np.dtype(code)) for code in (*"?bBhHiIlLqQefdUS",)]
_scalar = np.float64(0).__reduce__()[0]
_array = np.zeros(0).__reduce__()[0]
_plain: list[Any] = [
    *(argparse.Namespace, types.SimpleNamespace, OrderedDict),
    *(datetime.datetime, datetime.date, datetime.timedelta),
    *(pathlib.PosixPath, pathlib.PurePosixPath),
    *(np.dtype, np.ndarray, _scalar, _array, *_numpy_types),
]
#: As files of NumPy 1 and 2 name the same function.
_renamed: list[Any] = [
    (function, f"numpy.{core}.multiarray.{name}")
    for core in ("core", "_core")
    for function, name in ((_scalar, "scalar"), (_array, "_reconstruct"))
]


def read_pickle(path: Path) -> Mapping[str, Any]:
    """What a file holds.

    Raises:
        CheckpointError: it is damaged, holds other types than those above, or is no dict.
    """
    try:
        data = _load(path)
    except Exception as error:  # damaged bytes make the unpickler raise just anything
        refused = REFUSED.search(str(error))
        if refused:
            raise CheckpointError(
                path,
                f"it holds a {refused[1]}, and only weights and plain values are read: save it "
                "again as torch.save(model.state_dict(), FILE)",
            ) from error
        raise CheckpointError(path, "truncated or not a PyTorch checkpoint of weights") from error
    if not isinstance(data, Mapping):
        raise CheckpointError(path, f"holds a {type(data).__name__}, not a dict of weights")
    return data


def _load(path: Path) -> Any:
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        with torch.serialization.safe_globals([*_plain, *_renamed]):
            return torch.load(path, **options)
    except AttributeError:  # PyTorch 2.5 takes no names
        with torch.serialization.safe_globals(_plain):
            return torch.load(path, **options)


def find_weights(path: Path, data: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a file's content, by their names in the network alone.

    Raises:
        CheckpointError: there are none.
    """
    found = max(_list_holders(data, "", DEPTH), key=lambda held: held[0], default=None)
    if found is None:
        told = ", ".join(f"{name} ({type(value).__name__})" for name, value in data.items())
        raise CheckpointError(path, f"holds no weights, but {told[:200] or 'nothing'}")
    return _bare(found[1])


def _list_holders(
    data: Mapping[Any, Any], name: str, depth: int
) -> Iterator[tuple[tuple[int, int], dict[str, Tensor]]]:
    """Every dict that has tensors, the better the higher its key: by its name, then its size."""
    tensors = {k: v for k, v in data.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        rank = -HOLDERS.index(name) if name in HOLDERS else -len(HOLDERS)
        yield (rank, len(tensors)), tensors
    for key, value in data.items() if depth else ():
        if isinstance(value, Mapping):
            yield from _list_holders(value, str(key), depth - 1)


def _bare(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without those of wrappers and owners, and of one root that all have."""
    parts = {}
    for name, value in weights.items():
        words = [word for word in name.split(".") if word not in WRAPPERS]
        while len(words) > 1 and words[0] in OWNERS:
            del words[0]
        if words and words[-1] not in COUNTS:
            parts[tuple(words)] = value
    while (
        len(parts) > 1
        and len({words[0] for words in parts}) == 1
        and all(len(words) > 2 for words in parts)
    ):
        parts = {words[1:]: value for words, value in parts.items()}
    return {".".join(words): value for words, value in parts.items()}


def list_settings(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The content itself, and every dict or namespace of options in it."""
    yield data
    for value in data.values():
        if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
            yield vars(value)
        elif isinstance(value, Mapping):
            yield value
