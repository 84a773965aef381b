"""What all commands share: text that is safe to print, errors in one line, progress bars."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from mer_runtime.errors import MerError, MerWarning, MissingExtraError

T = TypeVar("T")

#: What would steer a terminal or turn its text around, and bytes of a name that are no text;
#: line feeds and tabs aside.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
#: Stand-ins for our own signs where a terminal lacks them.
_PLAIN = {"█": "#", "…": "...", "Δ": "delta ", "\u00d7": "x"}


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
                message = escape(" ".join(str(error).split()))
                raise click.ClickException(message) from error
            except click.ClickException as error:
                error.message = escape(error.message)  # type: ignore[misc] # it is still ours
                raise
            except KeyboardInterrupt:
                raise click.ClickException("interrupted") from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.message = escape(error.message)  # type: ignore[misc] # it is still ours
            raise


def escape(text: str) -> str:
    """Text that a terminal shows as it is: what would steer it, or isn't text, as ``\\x1b``.

    Line feeds and tabs stay.
    """
    return _UNSAFE.sub(_escape, text)


def escape_name(text: str) -> str:
    """The same for what has to stay within its line: the name of a file or a label."""
    return escape(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that isn't in the system's encoding
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def say(text: str, *, err: bool = False) -> None:
    """Print text, escaped, on standard output or error, whatever signs that has."""
    text = escape(text)
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = "".join(_PLAIN.get(c, c) if not _has(encoding, c) else c for c in text)
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    click.echo(text, err=err)


def _has(encoding: str, character: str) -> bool:
    try:
        return bool(character.encode(encoding))
    except UnicodeEncodeError:
        return False


def warn(message: str) -> None:
    """One line on standard error."""
    say(f"Warning: {message}", err=True)


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
