"""Ctrl-C, SIGTERM and SIGHUP, whenever they come: one line or none."""

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
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    time.sleep(0.1)  # for it to sleep, too
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "Error: interrupted\n")


ENDED = """
import os, signal, time
import click
from mer_runtime.console import Command

def check():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

def give():
    os.kill(os.getpid(), signal.{name})
    time.sleep(60)

class Deleted:
    def __del__(self):
        give()

def change():
    try:
        give()
    except BaseException:
        raise ImportError("initialization failed") from None

def delete():
    Deleted()
    time.sleep(60)

def leave():
    import atexit
    atexit.register(give)

@click.command("test", cls=Command)
@click.pass_context
def command(ctx):
    ctx.find_root().call_on_close(check)
    {place}()

command()
"""


@pytest.mark.parametrize("place", ["give", "change", "delete"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_wherever_they_come(name: str, place: str) -> None:
    """In a library that says something else, as one whose setting up is interrupted; and where
    Python prints what is raised, and goes on."""
    assert run(name, place) == (
        (1, "Error: interrupted\n") if name == "SIGINT" else (128 + getattr(signal, name), "")
    )


def test_after_a_command() -> None:
    assert run("SIGINT", "leave") == (1, "Error: interrupted\n")


def run(name: str, place: str) -> tuple[int, str]:
    # In a process of its own: an interrupt that came late would end the tests.
    done = subprocess.run(
        [sys.executable, "-c", ENDED.format(name=name, place=place)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done.returncode, done.stderr
