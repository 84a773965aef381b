"""What this process may use of its processor, against numpy, the kernel and an emulator."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mer_runtime.engines import processor
from mer_runtime.engines.processor import (
    describe_int8,
    find_kind,
    list_installed,
    read_fact,
    read_instructions,
)

EMULATOR = "qemu-x86_64-static"
X86 = platform.machine() == "x86_64"
#: What numpy, which asks CPUID itself, calls some of them.
NUMPY_NAMES = {
    "avx": "AVX",
    "avx2": "AVX2",
    "avx512f": "AVX512F",
    "avx512_vnni": "AVX512VNNI",
    "asimddp": "ASIMDDP",
}
#: Run in an emulator: the module needs nothing but the standard library.
CODE = """
import json, runpy, sys
found = runpy.run_path(sys.argv[1])
print(json.dumps([found["read_instructions"](), found["list_installed"]()]))
"""


def numpy_features() -> dict[str, bool]:
    """Numpy's own look at the processor, which is private and has two addresses."""
    core = np._core if hasattr(np, "_core") else np.core
    features: dict[str, bool] = core._multiarray_umath.__cpu_features__
    return features


def test_numpy_finds_the_same() -> None:
    features = numpy_features()
    known = {name for name, theirs in NUMPY_NAMES.items() if theirs in features}
    assert known, "numpy has other names now"
    seen = set(read_instructions())
    assert seen & known == {name for name in known if features[NUMPY_NAMES[name]]}


def test_kernel_lists_at_least_those() -> None:
    installed = list_installed()
    assert installed, "the kernel names none"
    assert set(read_instructions()) <= set(installed)
    features = numpy_features()
    hidden = any(
        name in installed and not features[theirs]
        for name, theirs in NUMPY_NAMES.items()
        if theirs in features
    )
    # AVX-VNNI and AMX, which numpy doesn't know, are only hidden with others.
    assert hidden or read_instructions() == installed


@pytest.mark.skipif(not X86, reason="machine code of x86")
def test_without_leave_to_execute_memory_the_kernel_is_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise PermissionError("no executable memory here")

    monkeypatch.setattr(processor, "_read_cpuid", refuse)
    assert processor.read_instructions.__wrapped__() == list_installed()


def test_without_the_kernel_the_process_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_instructions()
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "nowhere")
    processor._read_first.cache_clear()
    try:
        assert read_fact("model name") == ""
        assert list_installed() == ()
        assert processor.read_instructions.__wrapped__() == before
    finally:
        processor._read_first.cache_clear()


def test_what_the_kernel_switched_off_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPUID names AVX-512 even where the kernel saves no such registers."""
    (tmp_path / "cpuinfo").write_text("model name\t: A chip\nflags\t\t: fpu avx avx2\n\nflags: x\n")
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor, "_is_arm", lambda: False)
    monkeypatch.setattr(processor, "_read_seen", lambda: ("avx", "avx512f"))
    processor._read_first.cache_clear()
    try:
        assert read_fact("model name") == "A chip"
        assert processor.read_instructions.__wrapped__() == ("avx",)
    finally:
        processor._read_first.cache_clear()


@pytest.mark.slow
@pytest.mark.skipif(not X86, reason="the emulator shows another machine's list")
@pytest.mark.skipif(not shutil.which(EMULATOR), reason="needs qemu-user-static")
@pytest.mark.parametrize(
    ("model", "expected"), [("Nehalem", []), ("SandyBridge", ["avx"]), ("Haswell", ["avx", "avx2"])]
)
def test_emulated_processors(model: str, expected: list[str]) -> None:
    """The emulator shows the host's /proc/cpuinfo, yet has only what its model has."""
    python = os.path.realpath(sys.executable)
    command = [EMULATOR, "-cpu", model, python, "-I", "-S", "-c", CODE, processor.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    seen, installed = json.loads(done.stdout)
    assert seen == [name for name in expected if name in list_installed()]
    assert tuple(installed) == list_installed(), "this test has lost its point"


@pytest.mark.parametrize(
    ("instructions", "kind", "told"),
    [
        ("avx avx2", "avx2", "AVX2 without VNNI"),
        ("avx avx2 avx_vnni", "vnni", "VNNI (avx_vnni)"),
        ("avx avx2 avx512f", "avx512", "AVX-512 without VNNI"),
        ("avx avx2 avx512f avx512_vnni amx_int8", "vnni", "VNNI (avx512_vnni, amx_int8)"),
        ("asimddp", "dotprod", "SDOT"),
        ("asimddp i8mm bf16", "i8mm", "SMMLA"),
        ("avx", "other", "plain SIMD"),
        ("", "other", "plain SIMD"),
    ],
)
def test_kinds(instructions: str, kind: str, told: str) -> None:
    assert find_kind(instructions.split()) == kind
    assert describe_int8(instructions.split()) == told
