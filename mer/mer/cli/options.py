"""Options that several commands for models have, declared once, so that they mean the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mer.models import ENCODERS, add_model, is_fusion
from mer_runtime.feeds import MODALITIES
from mer_runtime.spec import ENCODER


def _add(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(add_model(one) for one in value)


own_models = click.option(
    "--model",
    "own_models",
    multiple=True,
    callback=_add,
    expose_value=False,
    metavar="FILE.py:CLASS",
    help="A fusion or face encoder of one's own that the checkpoint has. The file's code is run.",
)


def new_networks(what: str) -> Callable[[Any], Any]:
    """``--model`` of what trains; ``what`` begins its help."""
    return click.option(
        "--model",
        "models",
        multiple=True,
        metavar="FILE.py:CLASS",
        help=f"{what} The file's code is run. With --teacher, one more is the teacher's.",
    )


def add_networks(
    models: Sequence[str], given: Mapping[str, str | None], *, taught: bool
) -> dict[str, str | None]:
    """Make ``models`` known, and put them where ``given`` has none.

    Args:
        given: names of networks by kind: ``fusion``, ``face_encoder``; what lacks isn't trained.
        taught: whether there is a teacher, who may have a network that isn't trained.
    """
    chosen = dict(given)
    for model in models:
        name = add_model(model)
        kind = "fusion" if is_fusion(name) else "face_encoder"
        told = kind.replace("_", " ")
        if kind not in chosen:
            raise click.UsageError(f"--model {model} is a {told}, and none is trained here")
        if chosen[kind] is None:
            chosen[kind] = name
        elif not taught:
            raise click.UsageError(f"--model {model} is a {told}, and another one is given too")
    return chosen


run_folder = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="RUN",
    help="Folder of the run; made if need be.",
)
#: None where it isn't given: ``--model`` may be one.
face_encoder = click.option(
    "--face-encoder",
    type=click.Choice(list(ENCODERS)),
    help=f"Which face encoder.  [default: {ENCODER}]",
)


def modality(what: str) -> Callable[[Any], Any]:
    """``--modality``; ``what`` is its help."""
    return click.option(
        "--modality", type=click.Choice(MODALITIES), default="both", show_default=True, help=what
    )
