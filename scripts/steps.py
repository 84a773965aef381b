"""Steps of proofs: other programs, whose failure is one line."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from mer_runtime.errors import MerError

ROOT = Path(__file__).resolve().parents[1]


class ProofError(MerError):
    """A step of a proof failed, or a tool that it needs is missing."""


def run_step(what: str, command: Sequence[object], **options: object) -> str:
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
            f"{what}: {Path(str(command[0])).name} ended with {done.returncode}: {said[-1]}"
        )
    return str(done.stdout)
