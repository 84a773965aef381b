"""``--config FILE``: a command's arguments and options from a TOML file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Where a value comes from that a user gave.
GIVEN = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.DEFAULT_MAP)
#: Bytes: thousands of times what all options take.
MOST_BYTES = 1 << 20
#: Which values click's kinds of numbers take, and in words.
NUMBERS: tuple[tuple[type, tuple[type, ...], str], ...] = (
    (click.types.IntParamType, (int,), "a whole number"),
    (click.types.FloatParamType, (int, float), "a number"),
)
#: Options that no file can give.
NOT_IN_FILE = ("config", "help", "version")


def read_config(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--config FILE``; what is given on the command line goes before it."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_take_config,
        help="Take arguments and options from a TOML file, each by its name: "
        'bundle = "ia-compact-int8", microphone = true, record-every = 600. '
        "The command line goes before it.",
    )(function)


def _take_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        given = _read(path)
        known = dict(_list_keys(ctx.command))
        values = {}
        for key, value in given.items():
            one = known.get(key)
            if one is None:
                near = get_close_matches(key, known, 1)
                hint = f"; {near[0]}?" if near else ""
                raise ValueError(f"there is no option {key}{hint}")
            values[one.name or ""] = _fit(one, key, value)
    except ValueError as error:
        raise click.BadParameter(f"{path}: {error}", ctx, param) from error
    ctx.default_map = values


def _read(path: Path) -> dict[str, Any]:
    """
    Raises:
        ValueError: the file can't be read, is too large, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MB")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _list_keys(command: click.Command) -> Iterator[tuple[str, click.Parameter]]:
    """What a file may name: options without their dashes, arguments as they are called."""
    for one in command.params:
        if isinstance(one, click.Argument):
            yield one.name or "", one
            continue
        name = max(one.opts, key=len).lstrip("-")
        if name not in NOT_IN_FILE:
            yield name, one


def _fit(one: click.Parameter, key: str, value: Any) -> Any:
    """A value as click takes it.

    Raises:
        ValueError: it is of another kind than the option's.
    """
    types: tuple[type, ...] = (str, int)  # a camera's number is text for click
    wanted = "text"
    if isinstance(one, click.Option):
        if one.is_flag:
            types, wanted = (bool,), "true or false"
        elif value is True and isinstance(one.flag_value, str):
            return one.flag_value  # as --microphone without a device
    for kind, numbers, words in NUMBERS:
        if isinstance(one.type, kind):
            types, wanted = numbers, words
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(f"{key} is {wanted}, not {value!r}")
    return str(value) if str in types else value
