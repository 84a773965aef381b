"""The training side's commands: thin click layers over the public functions of ``mer``."""

from importlib.util import find_spec

from mer_runtime.console import exit_without
from mer_runtime.interrupts import hold_interrupts

hold_interrupts()

# Their scripts are installed with the base package too.
for _package in ("torch", "safetensors", "matplotlib"):
    if find_spec(_package) is None:
        exit_without(_package, "train")
