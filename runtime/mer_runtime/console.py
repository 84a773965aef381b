"""What all commands share: errors in one line, exit codes, progress bars on standard error."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from mer_runtime.errors import MerError, MerWarning, MissingExtraError

T = TypeVar("T")


class Command(click.Command):
    """A click command that prints a ``MerError`` in one line and exits with 1.

    Usage errors exit with 2. A ``MerWarning`` is one line on standard error.
    """

    def invoke(self, ctx: click.Context) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("once", MerWarning)
            shown = warnings.showwarning

            def show(
                message: Warning | str, category: type[Warning], *rest: Any, **more: Any
            ) -> None:
                if issubclass(category, MerWarning):
                    warn(str(message))
                else:
                    shown(message, category, *rest, **more)

            warnings.showwarning = show
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
    items: Iterable[T] | None = None,
    *,
    length: int | None = None,
    label: str,
    hidden: bool = False,
) -> Iterator[Any]:
    """A progress bar on standard error; silent where that isn't a terminal, or ``hidden``."""
    hidden = hidden or not sys.stderr.isatty()
    with click.progressbar(
        items, length=length, label=label, file=sys.stderr, hidden=hidden
    ) as bar:
        yield bar


def exit_without(package: str, extra: str) -> NoReturn:
    """End a command whose extra isn't installed: one line, exit code 1."""
    click.echo(f"Error: {MissingExtraError(package, extra, 'this command')}", err=True)
    raise SystemExit(1)
