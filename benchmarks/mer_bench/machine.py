"""The facts of a machine that a time depends on; what can't be read is ``"unknown"``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from mer_runtime.engines import usable_cores
from mer_runtime.engines.processor import list_installed, name_cpu, read_instructions

PACKAGES = (
    "mer-edge",
    "torch",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "numpy",
    "opencv-python-headless",
    "av",
)
UNKNOWN = "unknown"
SYSTEM = Path("/sys")
GOVERNOR = SYSTEM / "devices/system/cpu/cpu0/cpufreq/scaling_governor"
POWER_PROFILE = SYSTEM / "firmware/acpi/platform_profile"
ZONES = SYSTEM / "class/thermal"
BOARD = Path("/proc/device-tree/model")
#: Seconds that a tool which describes the device may take.
PATIENCE = 5.0


def describe_machine() -> dict[str, Any]:
    """Processor, versions, power settings and load, JSON-ready.

    ``flags`` are the instruction sets that engines find in this process, ``hidden`` those that
    the machine has besides.
    """
    flags = read_instructions()
    return {
        "cpu": name_cpu(),
        "board": _read(BOARD),
        "flags": list(flags),
        "hidden": [flag for flag in list_installed() if flag not in flags],
        "cores": usable_cores(),
        "cores_in_all": os.cpu_count() or UNKNOWN,
        "gpu": _ask("nvidia-smi", "--query-gpu=name,driver_version,power.limit", "--format=csv"),
        "memory_mb": _memory(),
        "governor": _read(GOVERNOR),
        "power_mode": find_power_mode(),
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "load": _load(),
    }


def describe_state() -> dict[str, Any]:
    """What changes while one measures: load averages and degrees Celsius by sensor."""
    return {"load": _load(), "temperature": read_temperatures()}


def read_temperatures(zones: Path = ZONES) -> dict[str, float] | str:
    """Degrees Celsius by the name of each thermal zone."""
    found: dict[str, float] = {}
    for zone in sorted(zones.glob("thermal_zone*")):
        name, value = _read(zone / "type"), _read(zone / "temp")
        try:
            degrees = int(value) / 1000
        except ValueError:  # a sensor that is off
            continue
        found[f"{name} ({zone.name[12:]})" if name in found else name] = degrees
    return found or UNKNOWN


def find_power_mode() -> str:
    """Jetson's (``nvpmodel``), else the firmware's profile."""
    told = _ask("nvpmodel", "-q")
    return told if told != UNKNOWN else _read(POWER_PROFILE)


def _load() -> list[float]:
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else []


def _memory() -> int | str:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    except (AttributeError, ValueError, OSError):
        return UNKNOWN


def _ask(tool: str, *options: str) -> str:
    """What a tool prints, in one line."""
    path = shutil.which(tool)
    if path is None:
        return UNKNOWN
    try:
        done = subprocess.run(
            [path, *options], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return " ".join(done.stdout.split()) or UNKNOWN


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ") or UNKNOWN
    except OSError:
        return UNKNOWN


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
