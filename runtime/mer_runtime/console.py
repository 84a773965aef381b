"""What all commands share: errors in one line, exit codes, progress bars on standard error."""

from __future__ import annotations

import errno
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from mer_runtime.errors import MerError, MerWarning, MissingExtraError
from mer_runtime.interrupts import MESSAGE, release_interrupts

T = TypeVar("T")

#: Whose logging ``--log-level`` shows.
PACKAGES = ("mer", "mer_calibration", "mer_export", "mer_runtime", "mer_bench")
#: They ask a command to end. Python has no name for the second on Windows.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Command(click.Command):
    """A click command that prints a ``MerError`` in one line and exits with 1.

    So it does with errors of the system, a folder that may not be read say. Usage errors exit
    with 2. A ``MerWarning`` is one line on standard error.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        release_interrupts()  # its modules are loaded

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
                with _ended_by_signals() as interrupted:
                    try:
                        return super().invoke(ctx)
                    except Exception as error:
                        # A library that was interrupted may say something else, or be said to.
                        if interrupted and not isinstance(error, click.ClickException):
                            raise KeyboardInterrupt from error
                        raise
            except MerError as error:
                raise click.ClickException(" ".join(str(error).split())) from error
            except KeyboardInterrupt:
                raise click.ClickException(MESSAGE) from None
            except MemoryError as error:
                raise click.ClickException("there isn't enough memory") from error
            except OSError as error:
                if error.errno in (None, errno.EPIPE):  # the latter is click's
                    raise
                what = f"{error.filename}: " if error.filename else ""
                raise click.ClickException(f"{what}{error.strerror}") from error


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, tidily; a second one ends it at once.

    What ignores them, as under nohup, goes on ignoring them. Gives a list that Ctrl-C fills.
    """
    interrupts: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end(number: int, frame: FrameType | None) -> None:
        restore()
        raise SystemExit(128 + number)  # as a shell tells it

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    for number in ENDING:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, end)
    if before[signal.SIGINT] is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        restore()


@contextmanager
def show_logs(level: str) -> Iterator[None]:
    """Show what our packages log on standard error for a while, from ``level`` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level.upper())
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)


def log_level() -> str:
    """From which level on our packages log here, for a process that shall do the same."""
    return logging.getLevelName(logging.getLogger(PACKAGES[0]).getEffectiveLevel())


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
