"""Options that several commands have, declared once, so that they mean the same in each."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import click

from mer_runtime import __version__
from mer_runtime.closing import Closing
from mer_runtime.console import say, show_logs
from mer_runtime.files import check_output, write_file, writing
from mer_runtime.inputs.face import DETECTION_SIZE, DETECTION_SIZES
from mer_runtime.proof.choice import ENGINE_CHOICES

LEVELS = ("debug", "info", "warning", "error")

threads = click.option(
    "--threads", type=click.IntRange(min=1), help="Engine threads [default: all cores]."
)
num_heads = click.option(
    "--num-heads",
    type=click.IntRange(min=1),
    help="Attention heads of a checkpoint whose file doesn't say.",
)
device = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where PyTorch computes.",
)
resume = click.option("--resume", is_flag=True, help="Go on with the run in RUN, if there is one.")


def face_detector(
    what: str = "YuNet's ONNX file, or haar for OpenCV's cascade",
    default: str = "$MER_FACE_DETECTOR, the bundle's, else the YuNet that ships",
) -> Callable[[Any], Any]:
    """``--face-detector FILE``; ``what`` and ``default`` are its help."""
    return click.option(
        "--face-detector",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"{what} [default: {default}].",
    )


detect_size = click.option(
    "--detect-size",
    type=click.IntRange(*DETECTION_SIZES),
    default=DETECTION_SIZE,
    show_default=True,
    metavar="PIXELS",
    help="A frame's longer side as faces are looked for in it; where none is found, they are "
    "looked for again at twice that. More finds smaller faces, and takes longer.",
)


def backend(what: str) -> Callable[[Any], Any]:
    """``--backend``; ``what`` is its help."""
    return click.option("--backend", type=click.Choice(ENGINE_CHOICES), help=what)


def table(what: str) -> Callable[[Any], Any]:
    """``--table OUT.md|csv|tex``; ``what`` is its help."""
    return click.option(
        "--table", type=click.Path(path_type=Path), metavar="OUT.md|csv|tex", help=what
    )


def plot(what: str) -> Callable[[Any], Any]:
    """``--plot OUT.png|svg``; ``what`` is its help."""
    return click.option("--plot", type=click.Path(path_type=Path), metavar="OUT.png|svg", help=what)


def reads_measure(
    unit: str, what: str, *, zero: bool = False
) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """A callback for a number that may have its unit behind it: ``8ms`` or ``8`` is 8.0.

    Args:
        unit: what may stand behind the number.
        what: a measure in words, with an example.
        zero: whether it may be zero.
    """

    def read(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
        if value is None:
            return None
        with suppress(ValueError):
            found = float(value.removesuffix(unit))
            if 0 < found < math.inf or (zero and found == 0):
                return found
        raise click.BadParameter(f"{value} is not {what}", context, parameter)

    return read


def _split_labels(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    return tuple(label.strip() for label in value.split(",")) if value else None


labels = click.option(
    "--labels",
    callback=_split_labels,
    metavar="A,B,...",
    help="Names of a checkpoint's classes, where they aren't RAVDESS's eight.",
)


class Results(Closing):
    """Where a command's results go: text or JSON on standard output, and JSON in a file.

    Each result is one line of JSON. The file is begun with the first one, and has every line at
    once, so that a stream's can be read while it runs.

    Attributes:
        as_json: whether standard output gets JSON instead of text.
        out: the file.

    Args:
        sources: what else the command was given; the file is none of it.

    Raises:
        OutputError: the file can't be written, or is something else of the command's.
    """

    def __init__(self, as_json: bool, out: Path | None, sources: Iterable[str | Path] = ()) -> None:
        self.as_json = as_json
        self.out = out
        self._file: IO[str] | None = None
        if out is not None:
            check_output(out, *sources)

    def tell(self, data: Mapping[str, Any], text: str | None = None) -> None:
        """Give a result: ``data`` where JSON goes, ``text`` on standard output where it doesn't."""
        line = json.dumps(data)
        if self.out is not None:
            self._write(self.out, line)
        if self.as_json:
            say(line)
        elif text is not None:
            say(text)

    def go_on(self, is_kept: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Go on with the file that an earlier run left, if there is one; gives its lines.

        Lines that ``is_kept`` refuses go, as does one that was cut off.

        Raises:
            OutputError: it can't be read or written.
        """
        if self.out is None:
            return []
        with writing(self.out):
            text = self.out.read_text("utf-8", "replace") if self.out.exists() else ""
        kept = {}
        for line in text.splitlines():
            with suppress(ValueError, RecursionError):
                data = json.loads(line)
                if isinstance(data, dict) and is_kept(data):
                    kept[line] = data
        write_file(self.out, "".join(f"{line}\n" for line in kept))
        with writing(self.out):
            self._file = self.out.open("a", encoding="utf-8")
        return list(kept.values())

    def _write(self, out: Path, line: str) -> None:
        with writing(out):
            self._file = self._file or out.open("w", encoding="utf-8")
            self._file.write(f"{line}\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def results(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json`` and ``--json-out FILE``; the function gets ``results``, its ``Results``."""

    @click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print JSON instead of text: one document, or a line for each result.",
    )
    @click.option(
        "--json-out",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write that JSON to FILE, and print text all the same.",
    )
    @functools.wraps(function)
    def call(*arguments: Any, as_json: bool, json_out: Path | None, **options: Any) -> Any:
        with Results(as_json, json_out, _list_paths(options.values())) as found:
            return function(*arguments, results=found, **options)

    return call


def _list_paths(values: Iterable[Any]) -> Iterator[str | Path]:
    """Those among a command's arguments that may be paths."""
    for value in values:
        if isinstance(value, (str, Path)):
            yield value
        elif isinstance(value, tuple):
            yield from _list_paths(value)


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """What every command has: ``--version``, ``--log-level`` and ``--log-format``."""

    @click.option(
        "-v",
        "--log-level",
        type=click.Choice(LEVELS, case_sensitive=False),
        default="warning",
        show_default=True,
        help="Tell what happens on standard error; info says what was chosen, and why.",
    )
    @click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How: in words, or each line an object with time, level, logger and message.",
    )
    @click.version_option(__version__)
    @functools.wraps(function)
    def call(*arguments: Any, log_level: str, log_format: str, **options: Any) -> Any:
        with show_logs(log_level, log_format):
            return function(*arguments, **options)

    return call
