"""What all commands share: text that is safe to print, errors in one line, progress bars."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from mer_runtime.errors import MerError, MerWarning, MissingExtraError, lacks_memory
from mer_runtime.interrupts import (
    MESSAGE,
    ended_by_signals,
    hold_interrupts,
    release_interrupts,
)

T = TypeVar("T")

#: What would steer a terminal or turn its text around, and bytes of a name that are no text;
#: line feeds and tabs aside.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
#: Stand-ins for our own signs where a terminal lacks them.
_PLAIN = {"█": "#", "…": "...", "Δ": "delta ", "\u00d7": "x"}
#: The logger's name in JSON lines of what a command itself says.
SPEAKER = "mer"
#: Whose logging ``--log-level`` shows.
PACKAGES = ("mer", "mer_calibration", "mer_export", "mer_runtime", "mer_bench")
#: ``show_logs``' level, "" outside of it, and style.
_shown = ("", "text")


class Command(click.Command):
    """A click command that prints a ``MerError`` in one line and exits with 1.

    So it does with errors of the system, a folder that may not be read say. Usage errors exit
    with 2. A ``MerWarning`` is one line on standard error.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        release_interrupts()  # its modules are loaded

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().__call__(*arguments, **options)
        except SystemExit:
            if not hasattr(sys, "ps1"):  # else Python goes on, for somebody to type into
                hold_interrupts()  # nothing is left to end
            raise

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
                with ended_by_signals() as raised:
                    try:
                        return super().invoke(ctx)
                    except Exception as error:
                        # A library that was interrupted may say something else, or be said to.
                        if raised and not isinstance(error, click.ClickException):
                            raise raised[-1] from error
                        raise
            except MerError as error:
                raise _fail(ctx, " ".join(str(error).split())) from error
            except click.ClickException as error:
                if _wants_json(ctx):
                    raise _fail(ctx, error.format_message(), error.exit_code) from error
                error.message = escape(error.message)  # type: ignore[misc] # it is still ours
                raise
            except KeyboardInterrupt:
                raise _fail(ctx, MESSAGE) from None
            except OSError as error:
                if error.errno in (None, errno.EPIPE):  # the latter is click's
                    raise
                what = f"{error.filename}: " if error.filename else ""
                raise _fail(ctx, f"{what}{error.strerror}") from error
            except Exception as error:
                if lacks_memory(error):
                    raise _fail(ctx, "there isn't enough memory") from error
                raise

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            left = super().parse_args(ctx, args)
            for parameter in self.params:
                value = ctx.params.get(parameter.name or "")
                for one in value if isinstance(value, tuple) else (value,):
                    is_source = isinstance(parameter, click.Argument) and isinstance(one, str)
                    if isinstance(one, Path) or (is_source and "://" not in one):
                        _check_name(ctx, parameter, one)
            return left
        except click.UsageError as error:
            error.message = escape(error.message)  # type: ignore[misc] # it is still ours
            raise
        except MerError as error:  # of an option that reads a file
            raise _fail(ctx, " ".join(str(error).split())) from error
        except ValueError as error:  # click asks the system about paths, and lets this through
            raise click.UsageError(escape(str(error)), ctx) from error


def _fail(ctx: click.Context, message: str, code: int = 1) -> Exception:
    """What ends a command with a message: click prints it, or it was printed here as JSON."""
    if _wants_json(ctx):
        click.echo(_format_json("error", SPEAKER, message), err=True)
        return click.exceptions.Exit(code)
    return click.ClickException(escape(message))


def _wants_json(ctx: click.Context) -> bool:
    return ctx.params.get("log_format") == "json"


def _check_name(ctx: click.Context, parameter: click.Parameter, path: Path | str) -> None:
    """Refuse what no file can be called: whatever a command asks of it is an ``OSError``.

    What this user may not look for is no fault of the name: the command says what it wanted.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise click.BadParameter(f"{str(path)[:100]}: {reason}", ctx, parameter) from error


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
    """Print text, escaped, on standard output or error, whatever signs that has.

    On standard error it is a line of JSON where ``--log-format json`` was given.
    """
    _echo(_format_json("info", SPEAKER, text) if err and _shown[1] == "json" else text, err=err)


def _echo(text: str, *, err: bool) -> None:
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


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escape(super().format(record))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return _format_json(record.levelname.lower(), record.name, text, record.created)


def _format_json(level: str, name: str, text: str, seconds: float | None = None) -> str:
    """A line of ``--log-format json``; ``seconds`` since 1970, by default now."""
    now = datetime.now(timezone.utc)
    at = now if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    told = {"time": at.isoformat(timespec="milliseconds"), "level": level}
    return json.dumps(told | {"logger": name, "message": text})


@contextmanager
def show_logs(level: str, style: str = "text") -> Iterator[None]:
    """Show what our packages log on standard error for a while, from ``level`` on.

    Args:
        style: ``text``, or ``json`` for a line of JSON each; then so is all that ``say`` and
            ``warn`` print there.
    """
    global _shown
    handler = logging.StreamHandler()
    text = _Formatter("%(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonFormatter() if style == "json" else text)
    shown, _shown = _shown, (level, style)
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level.upper())
    try:
        yield
    finally:
        _shown = shown
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)


def log_settings() -> tuple[str, str]:
    """``show_logs``' arguments as of now, for a process that shall do the same."""
    level, style = _shown
    return level or logging.getLevelName(logging.getLogger(PACKAGES[0]).getEffectiveLevel()), style


def warn(message: str) -> None:
    """One line on standard error."""
    as_json = _shown[1] == "json"
    text = _format_json("warning", SPEAKER, message) if as_json else f"Warning: {message}"
    _echo(text, err=True)


@contextmanager
def progress(
    items: Iterable[T] | None = None,
    *,
    length: int | None = None,
    label: str,
    hidden: bool = False,
) -> Iterator[Any]:
    """A progress bar on standard error; silent where that isn't a terminal, or ``hidden``."""
    hidden = hidden or not sys.stderr.isatty() or _shown[1] == "json"
    with click.progressbar(
        items, length=length, label=label, file=sys.stderr, hidden=hidden
    ) as bar:
        yield bar


def exit_without(package: str, extra: str) -> NoReturn:
    """End a command whose extra isn't installed: one line, exit code 1."""
    click.echo(f"Error: {MissingExtraError(package, extra, 'this command')}", err=True)
    raise SystemExit(1)
