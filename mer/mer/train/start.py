"""The checkpoint that a training starts from."""

from __future__ import annotations

from pathlib import Path

from mer.checkpoint import load_checkpoint
from mer.errors import TrainingError
from mer.models import MultimodalNet
from mer_runtime.files import hash_file
from mer_runtime.spec import Spec


def load_start(model: MultimodalNet, spec: Spec, path: Path) -> str:
    """Give ``model`` the weights of a checkpoint, but for classifiers of other classes.

    Returns:
        The file's sha256.

    Raises:
        CheckpointError: the file can't be read.
        TrainingError: it is of another network.
    """
    found = load_checkpoint(path)
    for name in ("fusion", "encoder", "num_heads"):
        theirs, ours = getattr(found.spec, name), getattr(spec, name)
        if theirs != ours:
            raise TrainingError(f"{path} has {name} {theirs}, not {ours}: ask for that one")
    own, given = model.state_dict(), found.model.state_dict()
    odd = [name for name, value in given.items() if own[name].shape != value.shape]
    foreign = [name for name in odd if "classifier_1" not in name]
    if foreign:
        raise TrainingError(f"{path} doesn't fit: {foreign[0]} has another shape")
    if found.spec.labels != spec.labels:
        odd = [name for name in given if "classifier_1" in name]
    model.load_state_dict({n: v for n, v in given.items() if n not in odd}, strict=False)
    return hash_file(path)
