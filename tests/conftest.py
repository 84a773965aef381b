"""What all tests share: what counts as slow, where the corpus and the sample lie.

The rest are plugins, by what they make, in ``tests/fixtures``. Nothing there imports torch at the
top: the runtime's tests must not need it.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = [
    f"{what}_fixtures" for what in ("browser", "bundle", "cache", "install", "media", "model")
]

ROOT = Path(__file__).resolve().parents[1]

#: What takes long: folders and files whose tests train, calibrate, export, install, walk a whole
#: path or start a Python each, and fixtures that do. Single tests are marked where they stand.
#: ``make test-fast`` is what is left.
SLOW_PLACES = (
    "tests/bench",  # and tests/benchmarks
    "tests/calibration",
    "tests/contributing",
    "tests/examples",
    "tests/export",
    "tests/fuzz",
    "tests/journeys",
    "tests/mer/train",
    "tests/runtime/live",
    "tests/runtime/test_interrupts.py",
    "tests/runtime/test_jobs.py",
    "tests/runtime/test_processes.py",
    "tests/runtime/test_sharing.py",
    "tests/scripts",
    "tests/cli/test_environment.py",
    "tests/cli/test_export.py",
    "tests/cli/test_permissions.py",
    "tests/cli/test_pretrain.py",
    "tests/cli/test_privacy.py",
    "tests/cli/test_train.py",
    "tests/test_contracts.py",
    "tests/test_public_errors.py",
    "tests/test_sample_clip.py",
)
SLOW_FIXTURES = {"bundle", "calibration", "corpus", "fitted", "lean_python", "proved", "wheel"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where slow tests are left out, their modules aren't even imported."""
    left_out = config.option.markexpr == "not slow" and _is_slow(collection_path)
    return True if left_out else None


def _is_slow(path: Path) -> bool:
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).as_posix().startswith(SLOW_PLACES)


def pytest_configure() -> None:
    """Let the processes that tests start hear the signals that the tests were started to ignore.

    nohup ignores SIGHUP, and a job in the background SIGINT; a child goes on ignoring them. What
    has a handler has its default action again in a child, and does nothing here.
    """
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for number in (getattr(signal, name) for name in names):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if _is_slow(item.path) or fixtures & SLOW_FIXTURES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the checkout: stand-in corpus, oracle, YuNet."""
    folder = ROOT.parent / "shared"
    if not (folder / "data" / "ravdess-proxy").is_dir():
        pytest.skip("needs ../shared (stand-in corpus, oracle, YuNet) beside the checkout")
    return folder


@pytest.fixture(scope="session")
def yunet() -> Path:
    """YuNet's ONNX file."""
    from mer_runtime.inputs.face import SHIPPED_YUNET

    return SHIPPED_YUNET


@pytest.fixture(scope="session")
def corpus(shared: Path) -> Path:
    """The stand-in for RAVDESS, in RAVDESS's layout."""
    return shared / "data" / "ravdess-proxy"


@pytest.fixture(scope="session")
def sample_clip() -> Path:
    """The committed sample: about 4.2 s of a face that moves and a voice."""
    return ROOT / "samples" / "portrait.mp4"


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Any]:
    """``once(name, make)``: what ``make(folder)`` gives, made once for all of xdist's processes.

    The folder is new, and nobody else's. What is given is pickled into it for the other processes,
    and for the other runs that are told the same folder in MER_TEST_ONCE (``make test``).
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    shared = Path(os.environ.get("MER_TEST_ONCE", shared))

    def give(name: str, make: Callable[[Path], Any]) -> Any:
        from mer_runtime.files import locked

        folder = shared / f"once-{name}"
        result = folder / "result.pickle"
        with locked(shared / f"once-{name}.lock", wait=lambda seconds: None):
            if not result.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                result.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(result.read_bytes())

    return give


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines and prepared graphs of the tests' bundles stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MER_CACHE", str(tmp_path_factory.mktemp("engines")))
        yield
