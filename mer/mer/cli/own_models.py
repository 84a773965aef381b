"""The option ``--model FILE.py:CLASS``, which several commands have."""

from __future__ import annotations

import click

from mer.models import add_model


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
