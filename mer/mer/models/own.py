"""Fusions and face encoders from outside the package: ``FILE.py:CLASS``."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from mer.models.branches import join_encoder
from mer.models.network import MultimodalNet
from mer.models.registry import ENCODERS, FUSIONS
from mer_runtime.errors import SpecError
from mer_runtime.files import describe_fault, is_file

#: sha256 of the file, by name, of each network that was added.
_HASHES: dict[str, str] = {}
#: ``FILE.py:CLASS`` of those that came from a file.
_SOURCES: dict[str, str] = {}
#: Of the inputs that a network is tried with: windows, MFCCs, their frames, crops and pixels,
#: where an encoder has no ``crop_size``.
TRIED, TRIED_MFCC, TRIED_STEPS, TRIED_FRAMES, TRIED_PIXELS = 2, 10, 113, 15, 224


def add_model(model: str | Path | type[nn.Module]) -> str:
    """Make a fusion or a face encoder of one's own known, and give its name.

    The name, such as ``my_fusion.py:MyFusion``, is what ``train_model`` takes as ``fusion`` or
    ``face_encoder``, and what checkpoints call it. They don't hold its code, and nothing imports
    code because of a checkpoint: a process that is to load one must have called this first.

    Args:
        model: ``FILE.py:CLASS``, or the class. The file's code is run. A class that derives from
            ``mer.models.MultimodalNet`` is a fusion; any other module with ``features`` and
            ``feature_width`` is a face encoder (docs/contributing/fusion-or-encoder.md).

    Raises:
        SpecError: the file can't be imported, has no such class, or the class is neither of the
            two or fails on a window.
    """
    if isinstance(model, type):
        found, name, digest = model, *_describe(model)
    else:
        file, colon, wanted = str(model).rpartition(":")
        if not colon or not wanted.isidentifier() or Path(file).suffix != ".py":
            raise SpecError(f"{model}: write FILE.py:CLASS, such as my_fusion.py:MyFusion")
        found = _find_class(Path(file), wanted)
        name = f"{Path(file).name}:{wanted}"
        digest = _hash(Path(file))
    if issubclass(found, MultimodalNet):
        _try(name, lambda: _try_fusion(found))
        FUSIONS[name] = found
    else:
        pixels = int(getattr(found, "crop_size", TRIED_PIXELS))
        _try(name, lambda: _try_encoder(found, pixels), f" on crops of {pixels} x {pixels} pixels")
        ENCODERS[name] = found
    _HASHES[name] = digest
    if not isinstance(model, type):
        _SOURCES[name] = f"{Path(file).absolute()}:{wanted}"
    return name


def require_crops(name: str, size: int) -> None:
    """See that an encoder of one's own takes crops of ``size`` pixels; others do.

    Raises:
        SpecError: it doesn't.
    """
    if name in _HASHES:
        encoder = ENCODERS[name]
        _try(name, lambda: _try_encoder(encoder, size), f" on crops of {size} x {size} pixels")


def is_fusion(name: str) -> bool:
    """Whether what ``add_model`` gave this name is a fusion, and no encoder."""
    return name in FUSIONS


def own_source(name: str) -> str | None:
    """``FILE.py:CLASS`` that a network came from, the file's whole path; None of another."""
    return _SOURCES.get(name)


def own_hash(name: str) -> str | None:
    """sha256 of the file that a network came from; None of the package's own."""
    return _HASHES.get(name)


def _find_class(file: Path, name: str) -> type[nn.Module]:
    module = _import(file)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        classes = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]
        raise SpecError(f"{file} has no class {name}: it has {', '.join(classes) or 'none'}")
    return found


def _import(file: Path) -> ModuleType:
    """Run a file as a module, with its folder to import from, as Python runs a script."""
    fault = describe_fault(file, "Python file")
    if fault is not None:
        raise SpecError(f"{file}: {fault}")
    module_name = f"mer_own_{file.stem}_{_hash(file)[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise SpecError(f"{file} can't be imported: {_tell(error, file.name)}") from error
    finally:
        sys.path.remove(folder)
    return module


def _tell(error: Exception, file: str) -> str:
    """An error in one line, with the last line that it passed of the file of that name."""
    trace, line = error.__traceback__, getattr(error, "lineno", None)
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f", line {line}" if line else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())[:300]}"


def _describe(model: type[nn.Module]) -> tuple[str, str]:
    """Name and hash of a class: its file's, or its source's in a notebook."""
    try:
        file = Path(inspect.getfile(model))
        if is_file(file):
            return f"{file.name}:{model.__name__}", _hash(file)
        source = inspect.getsource(model)
    except (OSError, TypeError):
        source = ""
    return f"notebook:{model.__name__}", hashlib.sha256(source.encode()).hexdigest()


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _try(name: str, trial: Callable[[], str | None], where: str = "") -> None:
    generator = torch.get_rng_state()
    try:
        with torch.no_grad():
            reason = trial()
    except Exception as error:
        told = _tell(error, name.rpartition(":")[0])
        raise SpecError(f"{name} fails when it is tried{where}: {told}") from error
    finally:
        torch.set_rng_state(generator)  # a seeded training draws the same with it and without
    if reason:
        raise SpecError(f"{name} {reason} (docs/contributing/fusion-or-encoder.md)")


def _try_fusion(fusion: type[MultimodalNet]) -> str | None:
    """What is wrong with the logits of two windows."""
    network = fusion(_Stub, num_classes=3, n_mfcc=TRIED_MFCC, num_heads=1).eval()
    audio = torch.zeros(TRIED, TRIED_MFCC, TRIED_STEPS)
    logits = network.head(audio, torch.zeros(TRIED, TRIED_FRAMES, _Stub.feature_width))
    if logits.shape != (TRIED, 3):
        return f"gives logits of shape {tuple(logits.shape)}, not {(TRIED, 3)}"
    return None


def _try_encoder(encoder: type[nn.Module], pixels: int) -> str | None:
    """What is wrong with the features of two crops."""
    if not (issubclass(encoder, nn.Module) and hasattr(encoder, "features")):
        return "is neither a fusion, which derives from MultimodalNet, nor a face encoder"
    network: Any = join_encoder(encoder, 3).eval()
    own = {name.split(".")[0] for name in encoder().state_dict()}
    if taken := sorted(own & {"classifier_1", *(f"conv1d_{i}" for i in range(4))}):
        return f"has a part called {taken[0]}, which is the branch's around it"
    features = network.features(torch.zeros(TRIED, 3, pixels, pixels))
    if features.shape != (TRIED, network.feature_width):
        wanted = (TRIED, network.feature_width)
        return f"gives features of shape {tuple(features.shape)}, not {wanted}"
    return None


class _Stub(nn.Module):
    """An encoder that is never run."""

    feature_width = 8
