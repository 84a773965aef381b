"""Prove that int8 gives the same integers on every kind of processor.

    python scripts/prove_cpus.py [--fast]

It exports the shipped checkpoints and shows, in ONNX Runtime and in OpenVINO, on this machine and
in QEMU's emulation of others:

- Every dense layer's sums are those of whole numbers in numpy, for the inputs that are worst for
  its weights (``layer_cases``). With weights that were rounded plainly the same inputs must find
  sums that saturate.
- The encoder's last integers on the golden inputs are equal to the bit, and the logits but for
  float32's roundings.

The fast part takes ``ia`` and Haswell alone, and of layers with the same kernel one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import click

from cpu_checks import Row, compare_answers, drive_layers, format_rows, read_answers, write_cases
from emulation import emulate_x86, run_here
from make_tables import write_all_tables
from mer.weights import SHIPPED
from mer_calibration.graph.dialects import DialectName
from mer_runtime.console import Command
from mer_runtime.engines.processor import describe_int8, name_cpu, read_instructions
from mer_runtime.spec import Fusion
from prove_aarch64 import install_base
from quantised_exports import Exported, export_int8
from steps import ROOT, ProofError

DATA = ROOT / "docs" / "cpus.json"
HERE = "this machine"
#: As QEMU names them. Haswell has AVX2 and no VNNI: it saturates. Nehalem has neither AVX nor fused
#: multiply-add, which the products of the modulator's gate are computed with elsewhere.
X86_CPUS = ("Haswell", "Nehalem", "max")
WITHOUT_FMA = ("Nehalem",)
#: Without SDOT, with it, with SMMLA.
ARM_CPUS = ("cortex-a53", "cortex-a76", "max")
#: The one on which plainly rounded weights must be found wrong.
SATURATES = "Haswell"

Task = Callable[[], Row]


def prove_x86(
    exports: Sequence[Exported], cpus: Sequence[str], folder: Path, every: bool
) -> list[Task]:
    """What is run for the dialects ``x86`` and ``openvino``."""
    machines = {HERE: run_here(), **{cpu: emulate_x86(cpu) for cpu in cpus}}
    tasks: list[Task] = []
    for dialect in ("x86", "openvino"):
        made = [one for one in exports if one.dialect == dialect]
        engine = made[0].engine
        cases = write_cases(made, folder / f"{dialect}-layers", every=every)
        planted = write_cases(made[:1], folder / f"{dialect}-planted", every=False, plain=True)
        for cpu, machine in machines.items():
            tasks.append(partial(drive_layers, f"layers of {dialect}", engine, machine, cpu, cases))
        plant = partial(
            drive_layers, "layers, plainly rounded", engine, machines[SATURATES], SATURATES, planted
        )
        tasks.append(partial(expect_wrong, plant))
        for one in made:
            first = read_answers(one, machines[HERE], HERE)
            for cpu in cpus:
                exact = cpu not in WITHOUT_FMA
                tasks.append(partial(compare_answers, one, first, machines[cpu], cpu, exact=exact))
    return tasks


def prove_arm(exports: Sequence[Exported], folder: Path) -> list[Task]:
    """What is run for the dialect ``arm``."""
    made = [one for one in exports if one.dialect == "arm"]
    emulate, _ = install_base(folder)
    cases = write_cases(made, folder / "arm-layers")
    machines = {f"arm64 {cpu}": emulate(cpu) for cpu in ARM_CPUS}
    tasks: list[Task] = [
        partial(drive_layers, "layers of arm", "onnx", machine, cpu, cases)
        for cpu, machine in machines.items()
    ]
    (base, reference), *others = machines.items()
    for one in made:
        first = read_answers(one, reference, base)
        tasks += [partial(compare_answers, one, first, machine, cpu) for cpu, machine in others]
    return tasks


def expect_wrong(drive: Task) -> Row:
    """A planted fault: right where something is found."""
    row = drive()
    return replace(row, right=not row.right)


def describe_machine() -> str:
    """This machine's processor, and what multiplies int8 in it."""
    return f"{name_cpu()}, {describe_int8(read_instructions())}"


@click.command(cls=Command)
@click.option("--fast", is_flag=True, help="Only ia on Haswell, one layer for each kernel.")
@click.option("--record", is_flag=True, help="Write docs/cpus.json and its table.")
def main(fast: bool, record: bool) -> None:
    """Prove that int8 gives the same integers on every kind of processor.

    It needs an x86 machine with QEMU's user-mode emulators, the extra openvino and, unless it is
    fast, Debian's sources for arm64.

    \b
    Example:
        python scripts/prove_cpus.py --fast
    """
    fusions: Sequence[Fusion] = ("ia",) if fast else SHIPPED
    dialects: Sequence[DialectName] = ("x86", "openvino") if fast else ("x86", "openvino", "arm")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for cpu in X86_CPUS:
            emulate_x86(cpu)  # an error here saves the exports
        click.echo("exporting the bundles", err=True)
        exports = [export_int8(f, d, folder) for d in dialects for f in fusions]
        tasks = prove_x86(exports, (SATURATES,) if fast else X86_CPUS, folder, every=not fast)
        if not fast:
            tasks += prove_arm(exports, folder)
        click.echo(f"running {len(tasks)} comparisons", err=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            rows = list(pool.map(lambda task: task(), tasks))
    click.echo(format_rows(rows))
    if record:
        data = {"machine": describe_machine(), "rows": [asdict(row) for row in rows]}
        DATA.write_text(json.dumps(data, indent=1) + "\n")
        write_all_tables()
    if wrong := [row for row in rows if not row.right]:
        raise ProofError(
            f"{len(wrong)} of {len(rows)} comparisons are wrong, first {wrong[0].what} in "
            f"{wrong[0].engine} on {wrong[0].cpu}: {wrong[0].result}"
        )


if __name__ == "__main__":
    main()
