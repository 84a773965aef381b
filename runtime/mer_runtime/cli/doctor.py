"""``mer-doctor``: what this device has, and what to do about what it lacks."""

from __future__ import annotations

from pathlib import Path

import click

from mer_runtime import options
from mer_runtime.console import Command, progress
from mer_runtime.doctor import NEEDS, Finding, examine_device
from mer_runtime.options import Results

EPILOG = """\b
Examples:
  mer-doctor
  mer-doctor bundles/ia-openvino-int8 --need camera --need microphone
  mer-doctor --json
"""


@click.command("mer-doctor", cls=Command, epilog=EPILOG)
@click.argument("bundle", type=click.Path(path_type=Path), default="ia-compact-int8")
@click.option(
    "--need",
    "needs",
    type=click.Choice(NEEDS),
    multiple=True,
    help="Count this as needed, too: an engine besides the bundle's own, a GPU, a camera, a "
    "microphone. May be given several times.",
)
@options.threads
@options.results
@options.common
def main(bundle: Path, needs: tuple[str, ...], threads: int | None, results: Results) -> None:
    """Look at this device, and prove BUNDLE on it: a folder by mer-export, or the name of one
    that ships [default: ia-compact-int8].

    Tells the processor and what multiplies int8 on it, which engines load, whether the bundle's
    answers are right on each and how long a window takes, and whether there is a GPU, a camera, a
    microphone. Below what isn't as it should be stands what mends it. Nothing is recorded, and no
    camera is opened.

    Exit codes: 0 everything needed is there and right; 1 something needed isn't; 2 wrong options.
    """
    findings: list[Finding] = []
    with progress(length=len(NEEDS) + 5, label="Examining") as bar:
        for finding in examine_device(bundle, needs, threads):
            findings.append(finding)
            bar.update(1)
    fatal = [finding for finding in findings if finding.fatal]
    verdict = "All that is needed is right."
    if fatal:
        verdict = f"Wrong: {', '.join(finding.subject for finding in fatal)}."
    results.tell(
        {"ok": not fatal, "findings": [finding.to_dict() for finding in findings]},
        "\n".join([*map(_format, findings), verdict]),
    )
    if fatal:
        raise click.exceptions.Exit(1)


def _format(finding: Finding) -> str:
    state = finding.state.upper() if finding.fatal else finding.state
    text = " ".join(finding.text.split())
    line = f"{state:<7} {finding.subject:<13} {text}"
    return f"{line}\n{'':<22}mend it: {finding.remedy}" if finding.remedy else line
