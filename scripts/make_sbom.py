"""A software bill of materials: what an installation of mer-edge is made of, with licences.

    python scripts/make_sbom.py dist                  # sbom-base.json and sbom-all.json
    python scripts/make_sbom.py dist --only all

CycloneDX's own tool lists the packages of an environment. Added is what no package's metadata
says: the models that are in our wheels, the native libraries that come inside others' wheels, and
FFmpeg's licence as it was built. *base* is a fresh environment of the wheel alone, *all* the one
that runs this script. A package without a licence is an error.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from distributions import build
from mer_runtime.console import Command
from mer_runtime.files import make_folder, write_file
from prove_wheel import make_environment
from steps import ProofError, run_step

Json = dict[str, Any]
#: Tools of the environment itself, which nothing of ours imports.
TOOLS = ("pip", "setuptools", "wheel")
#: What of ours isn't code, and what has which licence. The second comes with the extra ``train``.
MODELS = {
    "mer-edge": [
        ("YuNet, face_detection_yunet_2023mar", "MIT"),
        ("ia-int8 and ia-compact-int8, bundles trained on RAVDESS's voices", "CC-BY-NC-SA-4.0"),
    ],
    "mer-edge-weights": [
        ("ia, it, lt and ia-compact, trained on RAVDESS's voices", "CC-BY-NC-SA-4.0")
    ],
}
#: Whose metadata says a licence in words that the tool doesn't take; by their LICENSE files.
READ = {"asttokens": "Apache-2.0", "protobuf": "BSD-3-Clause", "ray": "Apache-2.0"}
#: Asked in the environment: shared libraries in wheels, by package, and FFmpeg's licence.
QUESTION = """
import json, importlib.metadata as m
libraries = {}
for one in m.distributions():
    files = {f.name for f in one.files or () if f.parts[0].endswith(".libs")}
    if files:
        libraries[one.name.lower()] = sorted(files)
from av._core import library_meta
print(json.dumps([libraries, {n: x["license"] for n, x in library_meta.items()}]))
"""


def make_sbom(python: Path) -> Json:
    """The bill of the environment that ``python`` belongs to: CycloneDX, JSON-ready.

    Raises:
        ProofError: it can't be asked, or a package says no licence.
    """
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", python]
    bill: Json = json.loads(run_step("listing packages", tool))
    bill["components"] = [c for c in bill["components"] if c["name"] not in TOOLS]
    libraries, ffmpeg = json.loads(run_step("listing libraries", [python, "-c", QUESTION]))
    for component in bill["components"]:
        name = component["name"].lower()
        if name in READ and not list_licences(component):
            component["licenses"] = [{"license": {"id": READ[name]}}]
        inside = [_describe("library", file) for file in libraries.get(name, ())]
        if name == "av":
            inside += [_describe("library", f"FFmpeg's {n}", lic) for n, lic in ffmpeg.items()]
        inside += [_describe("machine-learning-model", *model) for model in MODELS.get(name, ())]
        if inside:
            component["components"] = inside
    check_licences(bill)
    return bill


def check_licences(bill: Json) -> None:
    """See that every package says one.

    Raises:
        ProofError: one doesn't.
    """
    unknown = [c["name"] for c in bill["components"] if not list_licences(c)]
    if unknown:
        raise ProofError(f"no licence is known of {', '.join(unknown)}")


def list_licences(component: Json) -> list[str]:
    """The licences that a component says, as SPDX names or expressions where it has them."""
    found = []
    for one in component.get("licenses", ()):
        licence = one.get("license", {})
        found.append(one.get("expression") or licence.get("id") or licence.get("name") or "")
    return [" ".join(name.split())[:80] for name in found if name]


def format_table(bill: Json) -> str:
    """A line for each package: name, version, licences."""
    rows = [
        (c["name"], c.get("version", ""), "; ".join(list_licences(c)))
        for c in sorted(bill["components"], key=lambda c: str(c["name"]).lower())
    ]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}} {version:<14} {said}" for name, version, said in rows)


def _describe(kind: str, name: str, licence: str | None = None) -> Json:
    component: Json = {"type": kind, "name": name}
    if licence is not None:
        component["licenses"] = [{"license": {"name": licence}}]
    return component


@click.command(cls=Command)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--only",
    type=click.Choice(["base", "all"]),
    help="Make one of the two.  [default: both]",
)
def main(out: Path, only: str | None) -> None:
    """Write OUT/sbom-base.json and OUT/sbom-all.json, and print their packages and licences.

    \b
    Example:
        python scripts/make_sbom.py dist
    """
    make_folder(out)
    if only != "all":
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            binaries = make_environment(folder / "environment", build("mer-edge", folder))
            _write(out / "sbom-base.json", make_sbom(binaries / "python"))
    if only != "base":
        _write(out / "sbom-all.json", make_sbom(Path(sys.executable)))


def _write(file: Path, bill: Json) -> None:
    write_file(file, json.dumps(bill, indent=1) + "\n")
    click.echo(f"{file}: {len(bill['components'])} packages\n{format_table(bill)}")


if __name__ == "__main__":
    main()
