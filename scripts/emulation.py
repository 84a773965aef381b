"""The runtime in a Python of another processor, in QEMU's user-mode emulation, or of this one.

An emulated processor multiplies int8 as that processor does: Haswell's saturates, a Cortex-A53 has
no SDOT. The emulator takes a processor's name and hides what it hasn't.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from steps import ROOT, ProofError, run_step

#: The emulator takes minutes; on a machine that others use too, longer.
TIMEOUT = 3600
#: What this environment's packages are to an emulated Python: its own search starts elsewhere.
SITE = (ROOT / "runtime", Path(sysconfig.get_path("purelib")))


def find_emulator(machine: str) -> str:
    """The path of QEMU's user-mode emulator of ``machine``, such as ``x86_64``.

    Raises:
        ProofError: it isn't installed.
    """
    for name in (f"qemu-{machine}-static", f"qemu-{machine}"):
        if found := shutil.which(name):
            return found
    raise ProofError("this needs QEMU's emulator: sudo apt install qemu-user-static")


class Emulation:
    """A Python on some processor, with the runtime, numpy and an engine.

    Args:
        python: the command that starts it, up to its own options.
        site: folders that its packages are in.
    """

    def __init__(self, python: Sequence[str | Path], site: Sequence[Path]) -> None:
        self._python = [*python, "-s", "-B"]
        # Neither this machine's Python settings nor its face detector.
        self._environment = {
            "PYTHONPATH": ":".join(map(str, site)),
            "LANG": "C.UTF-8",
            "MER_PROVE": "0",  # what is asked for is compared, right or wrong
        }

    def python(self, *arguments: str | Path, cache: Path | None = None) -> str:
        """Run it with ``arguments``: a file or ``-c`` and code, then what that is given.

        Args:
            cache: the runtime's; by default an empty one, so that nothing is found prepared.

        Returns:
            Its standard output.

        Raises:
            ProofError: it failed, or took too long.
        """
        with tempfile.TemporaryDirectory() as empty:
            return run_step(
                f"in the emulator: {' '.join(map(str, arguments))}",
                [*self._python, *arguments],
                env={**self._environment, "MER_CACHE": str(cache or empty)},
                timeout=TIMEOUT,
            )

    def run(self, bundle: str | Path, *arguments: str | Path) -> dict[str, Any]:
        """``mer-run BUNDLE … --json`` on one thread; the object that it printed."""
        code = "from mer_runtime.cli import main; main()"
        said = self.python("-c", code, bundle, *arguments, "--threads", "1", "--json")
        return cast("dict[str, Any]", json.loads(said))


def run_here() -> Emulation:
    """This environment's Python on this machine's processor."""
    return Emulation([Path(sys.executable).resolve()], SITE)


def emulate_x86(cpu: str) -> Emulation:
    """This environment's Python on the processor that QEMU calls ``cpu``, such as ``Haswell``.

    Raises:
        ProofError: the emulator isn't installed, or this machine isn't x86.
    """
    if platform.machine() != "x86_64":
        raise ProofError("only an x86 machine has the Python to emulate x86 processors with")
    python = Path(sys.executable).resolve()  # a virtual environment's is a link
    return Emulation([find_emulator("x86_64"), "-cpu", cpu, python], SITE)


def emulate_arm(cpu: str, root: Path, python: str, site: Path) -> Emulation:
    """An aarch64 Python on the processor that QEMU calls ``cpu``, such as ``cortex-a76``.

    Args:
        root: where its operating system's packages are unpacked.
        python: its version, such as ``3.11``.
        site: where wheels are installed.
    """
    interpreter = root / "usr" / "bin" / f"python{python}"
    start: list[str | Path] = [find_emulator("aarch64"), "-cpu", cpu, "-L", root, interpreter]
    return Emulation(start, [site])
