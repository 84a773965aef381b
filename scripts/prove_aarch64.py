"""Prove on an x86 machine that the base install runs on aarch64, fp32 and int8.

    python scripts/prove_aarch64.py

The wheel's base requirements are resolved for aarch64 with Python 3.10 to 3.13. On 3.11, Debian's
for arm64 unpacked into a folder, they then run in QEMU's user-mode emulation of a Cortex-A76:
bundles answer their golden inputs and the sample clip. Nothing is installed on this machine.
What is downloaded is kept in cache/aarch64 for the next run: delete it to download anew.

Seen with onnxruntime 1.23.2; 1.31.1 crashes in the emulator when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import click

from distributions import build
from emulation import Emulation, emulate_arm, find_emulator
from mer_runtime.console import Command
from prove_wheel import CLIP, CONSTRAINTS
from steps import ROOT, ProofError, run_step
from target_wheels import list_requirements, list_unmet, read_metadata, select_constraints

CACHE = ROOT / "cache" / "aarch64"
#: Those of JetPack 6, Raspberry Pi OS 12, JetPack 7, Raspberry Pi OS 13.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
#: The one that runs: Debian 12's.
EMULATED = "3.11"
DEBIAN_PACKAGES = (f"python{EMULATED}-minimal", f"libpython{EMULATED}-stdlib", "libstdc++6")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
#: A Raspberry Pi 5's core; a Jetson Orin's (A78AE) has the same instructions.
CPU = "cortex-a76"
#: Probabilities are of the same engine on other hardware; a decoder's rounding is all that differs.
MAX_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Row:
    """One thing that was done, how long it took, and what came out."""

    what: str
    seconds: float
    result: str


def largest_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """The largest |Δprobability| of two answers to one clip."""
    if ours.keys() != theirs.keys():
        raise ProofError("the answers have different labels")
    return max(abs(ours[label] - theirs[label]) for label in ours)


def format_table(rows: Sequence[Row]) -> str:
    """``rows`` in columns."""
    width = max(len(row.what) for row in rows)
    return "\n".join(f"{row.what:{width}}  {row.seconds:6.0f} s  {row.result}" for row in rows)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes ``folder``'s name once it's complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as name:
        filled = Path(name) / folder.name
        filled.mkdir()
        yield filled
        shutil.rmtree(folder, ignore_errors=True)
        filled.rename(folder)


def check_tools() -> None:
    """See that this is a Debian machine with the emulator.

    Raises:
        ProofError: it isn't.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise ProofError(f"this needs {tool}, so a Debian machine")
    find_emulator("aarch64")


def pip(*arguments: str | Path, python: str) -> None:
    """Run pip for aarch64 with CPython ``python``; wheels only."""
    target = [word for platform in PLATFORMS for word in ("--platform", platform)]
    target += ["--implementation", "cp", "--python-version", python, "--only-binary", ":all:"]
    command, *rest = arguments
    run_step(
        f"pip {command} for aarch64 with Python {python}",
        [sys.executable, "-m", "pip", command, "--disable-pip-version-check", *target, *rest],
    )


def resolve(wheel: Path, python: str) -> tuple[Path, Row]:
    """Download what ``wheel`` requires on the target; the folder of wheels, and its row."""
    start = perf_counter()
    pins = "\n".join(select_constraints(CONSTRAINTS.read_text("utf-8"), python))
    requires = "\n".join(read_metadata(wheel).get_all("Requires-Dist") or ())
    key = hashlib.sha256(f"{pins}\n\n{requires}".encode()).hexdigest()[:12]
    folder = CACHE / f"wheels-{python}-{key}"
    kept = folder.is_dir()
    if not kept:
        with new_folder(folder) as filled, tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(pins + "\n")
            file.flush()
            # pip reads the wheel's markers for its own Python: what holds on the target is named.
            wanted = map(str, list_requirements(wheel, python))
            options = ("--constraint", file.name, "--dest", filled)
            pip("download", *options, wheel, *wanted, python=python)
            if unmet := list_unmet(sorted(filled.glob("*.whl")), python):
                raise ProofError(f"aarch64 with Python {python}: {'; '.join(unmet)}")
            (filled / wheel.name).unlink()
    result = f"{len(list(folder.glob('*.whl')))} wheels" + (
        ", kept from an earlier run" if kept else ""
    )
    return folder, Row(f"base install, Python {python}", perf_counter() - start, result)


def unpack_debian() -> Path:
    """Debian's Python for arm64 with the libraries that it needs, unpacked into a folder.

    apt works in a folder of its own, with an empty list of installed packages, on this machine's
    sources: it resolves what the packages need, and the system's own state stays as it is.
    """
    root = CACHE / "root"
    if root.is_dir():
        return root
    with new_folder(root) as filled, tempfile.TemporaryDirectory() as name:
        state = Path(name)
        for folder in ("lists/partial", "archives/partial"):
            (state / folder).mkdir(parents=True)
        (state / "status").touch()
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "root",
            "Dir::State": state,
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state,
            "Dir::Cache::archives": state / "archives",
            "Dir::Log": state,
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
        run_step("apt-get update for arm64", [*apt, "update"])
        run_step(
            "apt-get for arm64 (Debian 12's sources have these packages)",
            [*apt, "-y", "--no-install-recommends", "--download-only", "install", *DEBIAN_PACKAGES],
        )
        for package in sorted((state / "archives").glob("*.deb")):
            run_step(f"unpacking {package.name}", ["dpkg-deb", "-x", package, filled])
    return root


def install_base(folder: Path) -> tuple[Callable[[str], Emulation], list[Row]]:
    """The base install for aarch64, and what was resolved.

    Args:
        folder: where the wheel is built and installed; it must outlive the emulations.

    Returns:
        A function from QEMU's name of a processor to the install on it, and a row for each Python.
    """
    check_tools()
    wheel = build("mer-edge", folder)
    click.echo(f"{wheel.name}: resolving for aarch64", err=True)
    found = {python: resolve(wheel, python) for python in PYTHONS}
    site, (wheels, _) = folder / "site", found[EMULATED]
    options = ("--no-index", "--find-links", wheels, "--no-compile", "--target", site)
    pip("install", *options, wheel, python=EMULATED)
    root = unpack_debian()
    return lambda cpu: emulate_arm(cpu, root, EMULATED, site), [row for _, row in found.values()]


def export_bundles(folder: Path) -> dict[str, str | Path]:
    """fp32 and int8 bundles of the shipped checkpoint, and the one that ships, by their titles."""
    options = {"fp32": ("--precision", "fp32"), "int8": ("--cpu", "arm")}
    for title, chosen in options.items():
        run_step(
            f"exporting {title}",
            [
                *(sys.executable, "-c", "from mer_export.cli import main; main()"),
                *("--target", "onnx", *chosen, "--out", folder / title),
            ],
        )
    return {
        "fp32": folder / "fp32",
        "int8 for ARM": folder / "int8",
        "int8 for x86, as shipped": "ia-int8",
    }


def check_bundle(emulation: Emulation, title: str, bundle: str | Path) -> list[Row]:
    """Golden inputs and the sample clip, both in the emulator, the clip here too."""
    start = perf_counter()
    test = emulation.run(bundle, "--self-test")
    between = perf_counter()
    offset = f"max |Δlogit| {test['max_difference']:.1e} (at most {test['tolerance']:.0e})"
    rows = [Row(f"{title}: --self-test", between - start, offset)]
    there = emulation.run(bundle, CLIP)
    took = perf_counter() - between
    code = "from mer_runtime.cli import main; main()"
    command = [sys.executable, "-c", code, bundle, CLIP, "--threads", "1", "--json"]
    environment = {k: v for k, v in os.environ.items() if k != "MER_FACE_DETECTOR"}
    here = json.loads(run_step("mer-run here", command, env=environment))
    difference = largest_difference(there["probabilities"], here["probabilities"])
    label = there["label"]
    if label != here["label"] or difference > MAX_DIFFERENCE:
        raise ProofError(f"{title}: {CLIP.name} is {label}, here {here['label']}: {difference:.3f}")
    answer = f"{label} {there['probabilities'][label]:.1%}, max |Δprobability| {difference:.1e}"
    return [*rows, Row(f"{title}: {CLIP.name}", took, answer)]


@click.command(cls=Command)
def main() -> None:
    """Prove on this x86 machine that the base install resolves and runs on aarch64.

    It needs QEMU's user-mode emulator and Debian's sources.

    \b
    Example:
        python scripts/prove_aarch64.py
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        emulate, rows = install_base(folder)
        emulation = emulate(CPU)
        click.echo("exporting the bundles", err=True)
        bundles = export_bundles(folder)
        code = "import platform, onnxruntime as o; print(platform.machine(), o.__version__)"
        start = perf_counter()
        machine, version = emulation.python("-c", code).split()
        rows.append(Row(f"onnxruntime {version}", perf_counter() - start, f"imported on {machine}"))
        click.echo("running them in the emulator, which takes minutes", err=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for checked in pool.map(lambda item: check_bundle(emulation, *item), bundles.items()):
                rows += checked
    click.echo(format_table(rows))


if __name__ == "__main__":
    main()
