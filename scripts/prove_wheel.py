"""Install the runtime's wheel into an empty environment, and run the runtime's tests on it.

    python scripts/prove_wheel.py [PYTEST OPTIONS]

First the environment has the wheel and its base requirements, no more: there the bundle that ships
answers its golden inputs and the sample clip. Then the tests' own tools are added behind the wheel,
from the environment that runs this script. Its editable install stays out: ``mer_runtime`` is the
wheel's.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

import click

from mer_runtime.console import Command
from mer_runtime.errors import MerError

ROOT = Path(__file__).resolve().parents[1]
CLIP = ROOT / "samples" / "portrait.mp4"
CONSTRAINTS = ROOT / "constraints.txt"
WHEEL_HELP = "Prove this one.  [default: build one]"


class ProofError(MerError):
    """A step of a proof failed, or a tool that it needs is missing."""


def run_step(what: str, command: Sequence[str | Path], **options: object) -> str:
    """Run a command and give its standard output; further ``options`` are subprocess.run's.

    Raises:
        ProofError: it can't be started, ended with another code than 0, or took too long; with the
            last line that it wrote.
    """
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            [str(part) for part in command], capture_output=True, text=True, check=False, **options
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProofError(f"{what}: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        raise ProofError(
            f"{what}: {Path(command[0]).name} ended with {done.returncode}: {said[-1]}"
        )
    return str(done.stdout)


def build_wheel(folder: Path) -> Path:
    """Build this working tree's wheel in ``folder``, without isolation and without network."""
    run_step(
        "building the wheel",
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(folder: Path, wheel: Path | str, constraints: Path = CONSTRAINTS) -> Path:
    """Make a virtual environment of ``wheel`` and what it requires; give its bin folder.

    Args:
        wheel: its path; extras may follow in brackets.

    Raises:
        ProofError: pip can't install them within the constraints, or not without a compiler.
    """
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--only-binary", ":all:"]
    run_step("installing the wheel", [*pip, "--constraint", constraints, wheel])
    return folder / "bin"


def add_test_tools(binaries: Path) -> None:
    """Let the environment see this one's packages, after its own.

    A path in a .pth file is not searched for further .pth files, so the editable install of
    mer-edge isn't seen.
    """
    python = binaries / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run_step("finding site-packages", [python, "-c", query]).strip())
    (site / "test-tools.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")


def check_origin(binaries: Path, package: str, folder: Path) -> None:
    """Raise ProofError unless ``package`` is imported from ``folder``."""
    code = f"import {package}; print({package}.__file__)"
    python = binaries / "python"
    file = Path(run_step(f"importing {package}", [python, "-c", code], cwd=folder).strip())
    if not file.is_relative_to(folder.resolve()):
        raise ProofError(f"{package} comes from {file}, not from the wheel")


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.option("--wheel", type=click.Path(exists=True, path_type=Path), help=WHEEL_HELP)
def main(options: tuple[str, ...], wheel: Path | None) -> None:
    """Prove that the runtime's wheel is enough for a device, and that its tests pass on it.

    OPTIONS go to pytest.

    \b
    Example:
        python scripts/prove_wheel.py -q
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        wheel = wheel.resolve() if wheel else build_wheel(folder)
        click.echo(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        binaries = make_environment(folder / "environment", wheel)
        listed = run_step("listing", [binaries / "python", "-m", "pip", "freeze", "--all"])
        names = [line.split(" @")[0] for line in listed.splitlines()]
        click.echo(f"installed: {', '.join(names)}")
        for arguments in (["--self-test"], [CLIP, "--threads", "1"]):
            said = run_step("mer-run", [binaries / "mer-run", "ia-int8", *arguments], cwd=folder)
            click.echo(said.splitlines()[0])
        add_test_tools(binaries)
        for package in ("mer_runtime", "mer"):
            check_origin(binaries, package, folder)
        # Started outside the checkout, which "python -m" would put on the path.
        command = [binaries / "python", "-m", "pytest", *options, ROOT / "tests" / "runtime"]
        code = subprocess.run([str(part) for part in command], cwd=folder, check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
