"""Options that several commands for models have, declared once, so that they mean the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mer.models import ENCODERS, add_model
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
