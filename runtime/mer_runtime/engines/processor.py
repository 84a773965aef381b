"""The processor as this process sees it, and which of its instructions multiply int8.

Engines choose their kernels by CPUID, on ARM by the auxiliary vector. The system's own list,
/proc/cpuinfo, may name more: an emulator shows the host's, and CPUID may be made to hide
instructions from a process. What such a process measures, or keeps for its next start, is the
lesser processor's.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

#: Linux's description of the processors.
CPU_INFO = Path("/proc/cpuinfo")
#: Instruction sets by which engines choose kernels, named as Linux does: CPUID's leaf and subleaf,
#: which of EAX, EBX, ECX and EDX, and the bit.
CPUID_BITS = {
    "avx": (1, 0, 2, 28),
    "avx2": (7, 0, 1, 5),
    "avx512f": (7, 0, 1, 16),
    "avx_vnni": (7, 1, 0, 4),
    "avx512_vnni": (7, 0, 2, 11),
    "avx512_bf16": (7, 1, 0, 5),
    "amx_int8": (7, 0, 3, 25),
    "amx_bf16": (7, 0, 3, 22),
}
#: ARM's: which entry of the auxiliary vector (AT_HWCAP, AT_HWCAP2), and the bit.
HWCAP_BITS = {"asimddp": (16, 20), "i8mm": (26, 13), "bf16": (26, 14)}
#: ``void read(uint32_t leaf, uint32_t subleaf, uint32_t registers[4])``, System V's calls: CPUID is
#: an instruction that Python can't say.
CPUID_CODE = bytes.fromhex("5389f889f14989d00fa241890041895804418948084189500c5bc3")
#: Kinds of processor, the fastest first, and what each is known by: one of these instructions.
KINDS: dict[str, Collection[str]] = {
    "vnni": ("avx_vnni", "avx512_vnni", "amx_int8"),
    "avx512": ("avx512f",),
    "avx2": ("avx2",),
    "i8mm": ("i8mm",),
    "dotprod": ("asimddp",),
}
#: Any other.
OTHER = "other"
#: What a reader is told of a kind.
KIND_TITLES = {
    "vnni": "VNNI",
    "avx512": "AVX-512 without VNNI",
    "avx2": "AVX2 without VNNI",
    "i8mm": "SMMLA",
    "dotprod": "SDOT",
    OTHER: "plain SIMD",
}


@lru_cache(maxsize=1)
def read_instructions() -> tuple[str, ...]:
    """Those of the instruction sets above that this process may use; empty where nobody tells.

    The kernel's list leaves out what it has switched off, CPUID and the auxiliary vector what is
    hidden from the process: an instruction is in both.
    """
    listed = list_installed()
    seen = _read_seen()
    if seen is None:
        return listed
    return tuple(name for name in seen if not listed or name in listed)


def list_installed() -> tuple[str, ...]:
    """Those that the kernel lists for the machine, whatever this process sees of them."""
    flags = read_fact("Features" if _is_arm() else "flags").split()
    return tuple(name for name in (*CPUID_BITS, *HWCAP_BITS) if name in flags)


def name_cpu() -> str:
    """The processor's model, or where it has none, its architecture."""
    return read_fact("model name") or platform.processor() or platform.machine()


def read_fact(name: str) -> str:
    """A line's value in the kernel's description of the first processor; empty without it."""
    return _read_first().get(name, "")


def find_kind(instructions: Collection[str]) -> str:
    """Of ``KINDS`` the first that one of ``instructions`` stands for, else ``OTHER``.

    AVX2 and AVX-512 without VNNI add pairs of products in 16 bits, which may saturate; all others
    are exact.
    """
    found = (kind for kind, marks in KINDS.items() if not set(marks).isdisjoint(instructions))
    return next(found, OTHER)


def describe_int8(instructions: Collection[str]) -> str:
    """What multiplies int8, for a reader: ``VNNI (avx512_vnni)``, ``AVX2 without VNNI``."""
    kind = find_kind(instructions)
    marks = KINDS.get(kind, ())
    found = ", ".join(name for name in marks if name in instructions)
    return f"{KIND_TITLES[kind]} ({found})" if len(marks) > 1 else KIND_TITLES[kind]


def decode_cpuid(registers: dict[tuple[int, int], tuple[int, ...]]) -> tuple[str, ...]:
    """Instruction sets of x86, from EAX, EBX, ECX and EDX by leaf and subleaf."""
    return tuple(
        name
        for name, (leaf, subleaf, register, bit) in CPUID_BITS.items()
        if registers.get((leaf, subleaf), (0, 0, 0, 0))[register] >> bit & 1
    )


@lru_cache(maxsize=1)
def _read_first() -> dict[str, str]:
    """The first processor's lines, by name."""
    facts: dict[str, str] = {}
    with suppress(OSError), CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                break  # its end
            facts[name.strip()] = value.strip()
    return facts


def _read_seen() -> tuple[str, ...] | None:
    """What CPUID or the auxiliary vector names; None where this process can't ask."""
    if sys.maxsize < 1 << 32:  # a 32-bit process has other calls and other entries
        return None
    try:
        if _is_arm():
            ask = ctypes.CDLL(None).getauxval
            ask.argtypes, ask.restype = [ctypes.c_ulong], ctypes.c_ulong
            return tuple(name for name, (entry, bit) in HWCAP_BITS.items() if ask(entry) >> bit & 1)
        if platform.machine() == "x86_64":
            return decode_cpuid(_read_cpuid())
    except (AttributeError, OSError):  # no such call; memory that may not be executed
        pass
    return None


def _read_cpuid() -> dict[tuple[int, int], tuple[int, ...]]:
    """Registers by leaf and subleaf, of those that there are.

    Raises:
        OSError: this process may not execute memory that it wrote.
    """
    protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    with mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, protection) as code:
        code.write(CPUID_CODE)
        start = ctypes.c_char.from_buffer(code)
        call = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(
            ctypes.addressof(start)
        )

        def ask(leaf: int, subleaf: int) -> tuple[int, ...]:
            registers = (ctypes.c_uint32 * 4)()
            call(leaf, subleaf, ctypes.addressof(registers))
            return tuple(registers)

        found = {}
        last_leaf = ask(0, 0)[0]
        last_subleaf = ask(7, 0)[0] if last_leaf >= 7 else -1
        for leaf, subleaf in {place[:2] for place in CPUID_BITS.values()}:
            # Beyond the last leaf a processor answers with the last one's registers.
            if leaf <= last_leaf and (leaf != 7 or subleaf <= last_subleaf):
                found[leaf, subleaf] = ask(leaf, subleaf)
        del start  # the memory can't be closed while it is used
    return found


def _is_arm() -> bool:
    return platform.machine() in ("aarch64", "arm64")
