"""What a bundle is made for, and how: the options of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mer_calibration.graph.dialects import DialectName
from mer_export.errors import OptionError
from mer_export.targets import Cpu, find_dialect, find_target, host_cpu
from mer_runtime.bundle import Precision, Target


@dataclass(frozen=True)
class ExportOptions:
    """What a bundle is made for, and how.

    Attributes:
        target: the engine.
        precision: the numbers that it computes with.
        ranges: of an earlier calibration of the same checkpoint; with a corpus they are proved and
            none are made. By default, for int8 without a corpus, those that ship with the
            checkpoint or lie beside it.
        max_drop: points of prec1 that may be lost on the validation actors (or one clip), by
            default 0.5.
        cpu: what an int8 bundle for ONNX Runtime is made for, by default this machine's kind.
        face_detector: YuNet's file to put in, by default that of ``$MER_FACE_DETECTOR``.
        seed: draws the calibration's clips, by default 0. Answers that are close calls are rounded
            either way: where a gate is missed narrowly, another draw may pass it.
        float_head: leaves the head of an int8 bundle in float from the start: a window takes 2 %
            longer, and the voice alone is answered as by the float model.
        timing: whether to measure the time of a window too.
    """

    target: Target = "onnx"
    precision: Precision = "int8"
    ranges: str | Path | None = None
    max_drop: float | None = None
    cpu: Cpu | None = None
    face_detector: str | Path | None = None
    seed: int | None = None
    float_head: bool = False
    timing: bool = True

    def find_dialect(self) -> DialectName:
        """The dialect of the graphs.

        Raises:
            ExportError: there is no such target or CPU.
        """
        return find_dialect(self.target, self.cpu or host_cpu())

    def check(self, *, calibrated: bool) -> None:
        """Refuse what would change nothing; ``calibrated`` says whether there is a corpus.

        Raises:
            OptionError: names it, and what it goes with.
            ExportError: there is no such target.
        """
        int8 = self.precision == "int8"
        draws = int8 and calibrated and self.ranges is None
        takes_cpu = int8 and find_target(self.target).dialect is None
        for option, given, applies, goes_with in (
            ("ranges", self.ranges is not None, int8, "--precision int8"),
            ("float-head", self.float_head, int8, "--precision int8"),
            ("seed", self.seed is not None, draws, "int8's --calibration, which draws clips"),
            ("max-drop", self.max_drop is not None, calibrated, "--calibration"),
            ("cpu", self.cpu is not None, takes_cpu, "--target onnx --precision int8"),
        ):
            if given and not applies:
                raise OptionError(f"--{option} changes nothing here: it goes with {goes_with}")
