"""What all commands share: errors in one line, exit codes, progress bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from mer_runtime.errors import MerError

T = TypeVar("T")


class Command(click.Command):
    """A click command that prints a ``MerError`` in one line and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MerError as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except KeyboardInterrupt:
            raise click.ClickException("interrupted") from None


def warn(message: str) -> None:
    """One line on standard error."""
    click.echo(f"Warning: {message}", err=True)


@contextmanager
def progress(
    items: Iterable[T] | None = None, *, length: int | None = None, label: str
) -> Iterator[Any]:
    """A progress bar on standard error; silent where that isn't a terminal."""
    with click.progressbar(
        items, length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        yield bar
