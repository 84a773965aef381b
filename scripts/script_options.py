"""Options that several scripts take."""

from __future__ import annotations

import click

from mer.weights import SHIPPED

#: Which of the shipped models.
fusions = click.option(
    "--fusion",
    "fusions",
    type=click.Choice(SHIPPED),
    multiple=True,
    default=SHIPPED,
    help="Measure this one alone and keep the rows of the others.",
)
