"""What a set of wheels and a constraints file come to on aarch64 Linux.

pip evaluates environment markers for the Python that runs it, whatever ``--python-version`` and
``--platform`` say. Here they are evaluated for the target.
"""

from __future__ import annotations

import email
import zipfile
from collections.abc import Sequence
from email.message import Message
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def target_environment(python: str) -> dict[str, str]:
    """What environment markers see on aarch64 Linux with CPython ``python``, such as "3.10"."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "aarch64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


def select_constraints(text: str, python: str) -> list[str]:
    """Lines of a constraints file that hold on the target, without their markers."""
    selected = []
    for line in text.splitlines():
        pin, _, marker = line.partition("#")[0].partition(";")
        if pin.strip() and (not marker or Marker(marker).evaluate(target_environment(python))):
            selected.append(pin.strip())
    return selected


def read_metadata(wheel: Path) -> Message:
    """The METADATA of a wheel: what it is, and what it requires (PEP 566)."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def list_requirements(wheel: Path, python: str) -> list[Requirement]:
    """What a wheel requires on the target, without markers: those that don't hold are left out."""
    requirements = []
    for line in read_metadata(wheel).get_all("Requires-Dist") or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate(target_environment(python)):
            wanted.marker = None
            requirements.append(wanted)
    return requirements


def list_unmet(wheels: Sequence[Path], python: str) -> list[str]:
    """Requirements on the target that no wheel in the list meets, as "PACKAGE needs …"."""
    metadata = {wheel: read_metadata(wheel) for wheel in wheels}
    versions = {
        canonicalize_name(one["Name"]): Version(one["Version"]) for one in metadata.values()
    }
    unmet = []
    for wheel, one in metadata.items():
        for wanted in list_requirements(wheel, python):
            version = versions.get(canonicalize_name(wanted.name))
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                unmet.append(f"{one['Name']} needs {wanted.name}{wanted.specifier}")
    return unmet
