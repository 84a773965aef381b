"""Ctrl-C, whenever it comes: one line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

#: Loads a command's modules, and waits where NumPy is about to be imported.
LOADING = """
import sys, time

class Waiting:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("loading", flush=True)
            time.sleep(600)

sys.meta_path.insert(0, Waiting())
from {module} import main
"""


@pytest.mark.parametrize(
    "module",
    [
        "mer_runtime.cli",
        "mer.cli.train",
        "mer.cli.pretrain",
        "mer.cli.prepare",
        "mer.cli.evaluate",
        "mer_export.cli",
        "mer_bench.command",
    ],
)
def test_while_modules_are_loaded(module: str) -> None:
    if module.startswith(("mer.", "mer_export.")):
        pytest.importorskip("torch")
    process = subprocess.Popen(
        [sys.executable, "-c", LOADING.format(module=module)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores interrupts, and hands that down to the tests.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    time.sleep(0.1)  # for it to sleep, too
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "Error: interrupted\n")


INTERRUPTED = """
import os, signal, time
import click
from mer_runtime.console import Command

signal.signal(signal.SIGINT, signal.default_int_handler)

def check():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

@click.command("test", cls=Command)
@click.pass_context
def command(ctx):
    ctx.find_root().call_on_close(check)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None

command()
"""


def test_in_a_library_that_says_something_else() -> None:
    """As one whose setting up is interrupted."""
    # In a process of its own: an interrupt that came late would end the tests.
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "Error: interrupted\n")
