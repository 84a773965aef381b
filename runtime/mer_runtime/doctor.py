"""What this device has, and whether a bundle's answers are right here: ``mer-doctor``.

Each engine is tried in a process of its own, so that one that a processor can't run, or that dies
of a driver, is a finding like any other.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

import av
import cv2

from mer_runtime import jobs
from mer_runtime.bundle import Bundle, load_bundle, shipped_bundle
from mer_runtime.engines.builder import MODULES, import_tensorrt
from mer_runtime.engines.cores import present_cores, usable_cores
from mer_runtime.engines.cuda import LIBRARY, Gpu
from mer_runtime.engines.processor import describe_int8, name_cpu, read_instructions
from mer_runtime.errors import BundleError, MerError, MissingExtraError
from mer_runtime.files import is_folder, is_there
from mer_runtime.inputs.face import load_detector
from mer_runtime.live.sources.devices import Kind, is_built_in, plan_opening
from mer_runtime.proof.choice import choose_backend, time_window
from mer_runtime.proof.self_test import run_self_test
from mer_runtime.registry import ENGINES, list_engines
from mer_runtime.store import NOWHERE, find_folder

#: ``ok``; ``absent``: this device doesn't have it; ``wrong``: it is there, and of no use.
State = Literal["ok", "absent", "wrong"]

CAMERA: Final = "camera"
MICROPHONE: Final = "microphone"
GPU: Final = "gpu"
#: What may be needed besides the bundle and its own engine.
NEEDS = (*ENGINES, GPU, CAMERA, MICROPHONE)
#: Where Linux has cameras, their names, and sound cards that record.
CAMERAS, CAMERA_NAMES = Path("/dev"), Path("/sys/class/video4linux")
SOUND, SOUND_NAMES = Path("/dev/snd"), Path("/proc/asound/cards")


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        subject: what it is about, such as ``openvino`` or ``camera``.
        text: what was found, in one line.
        remedy: the command, or the act, that mends what isn't ``ok``; may be empty.
        needed: whether the device is of no use without it.
        facts: numbers, JSON-ready.
    """

    subject: str
    state: State
    text: str
    remedy: str = ""
    needed: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fatal(self) -> bool:
        """Whether it is needed, and not ``ok``."""
        return self.needed and self.state != "ok"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "subject": self.subject,
            "state": self.state,
            "needed": self.needed,
            "text": self.text,
            "remedy": self.remedy,
            **self.facts,
        }


def examine_device(
    bundle: str | Path, needs: Collection[str] = (), threads: int | None = None
) -> Iterator[Finding]:
    """Look at everything, one finding after another; takes some seconds.

    Args:
        bundle: as for ``Recognizer.load``.
        needs: of ``NEEDS``: what is needed besides the bundle and the engine it was made for.
        threads: of each engine; by default as many as this process may use cores.
    """
    yield _find_processor()
    yield _find_packages()
    try:
        loaded = load_bundle(bundle)
    except BundleError as error:
        yield Finding("bundle", "wrong", str(error), _mend_bundle(bundle), needed=True)
    else:
        text = f"{loaded.path}: {loaded.precision} for {loaded.target}, its files are whole"
        yield Finding("bundle", "ok", text, needed=True)
        yield from _find_engines(loaded, needs, threads)
        yield _find_detector(loaded)
    yield _find_gpu(GPU in needs)
    yield _find_device(CAMERA, "video", list_cameras(), CAMERA in needs)
    yield _find_device(MICROPHONE, "audio", list_microphones(), MICROPHONE in needs)
    yield _find_cache()


def _find_processor() -> Finding:
    instructions = read_instructions()
    cores, present = usable_cores(), present_cores()
    text = f"{name_cpu()}; int8 by {describe_int8(instructions)}; {cores} of {present} cores"
    return Finding("processor", "ok", text, facts={"cores": cores, "flags": list(instructions)})


def _find_packages() -> Finding:
    names = ("mer-edge", "numpy", "opencv-python-headless", "av", "click", "onnxruntime")
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # no such distribution: OpenCV may be the system's
            found[name] = cv2.__version__ if name.startswith("opencv") else None
    text = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    python = platform.python_version()
    return Finding("packages", "ok", f"Python {python}: {text}", facts={"versions": found})


def _find_engines(bundle: Bundle, needs: Collection[str], threads: int | None) -> Iterator[Finding]:
    """Each engine; those that can run the bundle answer its golden inputs."""
    found = {}
    for outcome in _try_apart(
        list(ENGINES), partial(load_bundle, bundle.path), partial(_try_engine, threads)
    ):
        name = outcome.item
        if outcome.error is None:
            found[name] = outcome.value
        elif isinstance(outcome.error, MissingExtraError):
            remedy = f"pip install 'mer-edge[{name}]'"
            found[name] = Finding(name, "absent", "it isn't installed", remedy)
        else:
            found[name] = Finding(name, "wrong", str(outcome.error))
    own = list_engines(bundle.target)[0]
    right = [name for name, finding in found.items() if finding.state == "ok"]
    for name, one in found.items():
        remedy = one.remedy or (_mend_engine(bundle, right) if one.state == "wrong" else "")
        yield replace(one, remedy=remedy, needed=name in (own, *needs))


def _try_apart(
    names: list[str], load: Callable[[], Any], work: Callable[[Any, str], Any]
) -> list[jobs.Outcome]:
    """What became of each name in a process of its own; where there can be none, that."""
    try:
        return list(jobs.work_in_parallel(names, 1, load, work))
    except MerError as error:
        return [jobs.Outcome(name, None, error) for name in names]


def _try_engine(threads: int | None, bundle: Bundle, name: str) -> Finding:
    """In a process of its own: answer the golden inputs, and time a window.

    Raises:
        MerError: the engine isn't installed, or refuses the bundle.
    """
    engine = ENGINES[name]
    if name not in list_engines(bundle.target):
        text = f"{_load_engine(name)} loads; it runs bundles for {engine.target}, this one is for "
        remedy = f"mer-export CHECKPOINT --target {engine.target}"
        return Finding(name, "absent", text + bundle.target, remedy)
    backend = choose_backend(bundle, name, threads, prove=False).backend
    result = run_self_test(bundle, backend)
    milliseconds = round(1000 * time_window(bundle, backend), 2)
    facts = {
        "backend": backend.name,
        "max_difference": result.max_difference,
        "tolerance": result.tolerance,
        "milliseconds": milliseconds,
    }
    off = f"max |Δlogit| {result.max_difference:.2g} of {result.tolerance:.2g}"
    speed = f"a window of {bundle.spec.video.window:g} s takes {milliseconds:g} ms"
    if result.passed:
        text = f"{backend.name}: {result.cases} golden inputs are right ({off}); {speed}"
        return Finding(name, "ok", text, facts=facts)
    text = f"{backend.name}: its answers are wrong here ({result.fault or off}); {speed}"
    return Finding(name, "wrong", text, facts=facts)


def _load_engine(name: str) -> str:
    """Import an engine that can't run the bundle; gives its name and version.

    Raises:
        MerError: it isn't installed, or can't be loaded.
    """
    target = ENGINES[name].target
    module = import_tensorrt(target) if target in MODULES else importlib.import_module(name)
    return f"{name} {module.__version__}"


def _mend_engine(bundle: Bundle, right: list[str]) -> str:
    if right:
        return f"mer-run {bundle.path} SOURCE --backend {right[0]}"
    return f"on a PC: mer-export CHECKPOINT --target {bundle.target}, and copy the bundle again"


def _mend_bundle(bundle: str | Path) -> str:
    if shipped_bundle(str(bundle)) is not None:
        return "pip install --force-reinstall --no-deps mer-edge"
    return f"mer-export CHECKPOINT --out {bundle}, or copy it again"


def _find_detector(bundle: Bundle) -> Finding:
    try:
        detector = load_detector(bundled=bundle.face_detector, trained=bundle.spec.video.detector)
    except MerError as error:
        remedy = "unset MER_FACE_DETECTOR, or pip install --force-reinstall --no-deps mer-edge"
        return Finding("face detector", "wrong", str(error), remedy, needed=True)
    return Finding("face detector", "ok", f"{detector.name} opens", needed=True)


def _find_gpu(needed: bool) -> Finding:
    """What CUDA's driver shows, in a process of its own where there is one: it may die, too."""
    remedy = "install NVIDIA's driver; on a Jetson, JetPack" if needed else ""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        text = f"no NVIDIA driver ({LIBRARY} isn't found)"
        return Finding(GPU, "absent", text, remedy, needed)
    (outcome,) = _try_apart([GPU], Path, _name_gpu)
    if outcome.error is None:
        return Finding(GPU, "ok", outcome.value, needed=needed)
    return Finding(GPU, "wrong", str(outcome.error), f"nvidia-smi; {remedy}", needed)


def _name_gpu(_: object, __: str) -> str:
    gpu = Gpu()
    return f"{gpu.name}, compute capability {'.'.join(map(str, gpu.capability))}"


def list_cameras() -> dict[Path, str]:
    """Video4Linux devices and what they are called."""
    found = {}
    for device in sorted(CAMERAS.glob("video[0-9]*")):
        found[device] = _read(CAMERA_NAMES / device.name / "name").strip() or "a camera"
    return found


def list_microphones() -> dict[Path, str]:
    """ALSA's devices that record, and the card that each is of."""
    cards = {}
    for line in _read(SOUND_NAMES).splitlines():
        number, bracket, name = line.partition("[")
        if bracket and number.strip().isdecimal():
            cards[number.strip()] = name.partition("]: ")[2] or name
    found = {}
    for device in sorted(SOUND.glob("pcmC*c")):  # p plays, c records
        number = device.name[4:].partition("D")[0]
        found[device] = cards.get(number, f"sound card {number}").strip()
    return found


def _find_device(subject: Kind, group: str, found: Mapping[Path, str], needed: bool) -> Finding:
    if sys.platform != "linux":
        return Finding(subject, "absent", "not looked for on this system", needed=needed)
    listed = [f"{device} ({name})" for device, name in found.items()]
    facts = {"devices": [str(device) for device in found]}
    if not found:
        where = CAMERAS / "video*" if subject == CAMERA else SOUND / "pcm*c"
        remedy = f"plug a {subject} in; in a container, pass {where.parent}'s devices to it"
        text = f"there is none ({where})"
        return Finding(subject, "absent", text, remedy if needed else "", needed, facts)
    text = ", ".join(listed)
    closed = [device for device in found if not os.access(device, os.R_OK | os.W_OK)]
    if len(closed) == len(found):
        remedy = f"sudo usermod -aG {group} $USER, then log in again"
        return Finding(subject, "wrong", f"{text}: you may not open it", remedy, needed, facts)
    name = plan_opening(subject, "", {}).format
    if not is_built_in(name):
        text = f"{text}; PyAV {av.__version__} is built without {name}"
        return Finding(subject, "wrong", text, "pip install --upgrade av", needed, facts)
    return Finding(subject, "ok", text, needed=needed, facts=facts)


def _find_cache() -> Finding:
    """Where prepared graphs and passed proofs are kept; without it each start takes longer."""
    folder = find_folder()
    if folder == NOWHERE:
        text = "nothing can be kept, so each start prepares and proves the bundle again"
        return Finding("cache", "wrong", text, "export MER_CACHE=A_FOLDER_OF_YOUR_OWN")
    nearest = next(part for part in (folder, *folder.absolute().parents) if is_there(part))
    if not (is_folder(nearest) and os.access(nearest, os.W_OK | os.X_OK)):
        text = f"{folder} can't be written, so each start prepares and proves the bundle again"
        return Finding("cache", "wrong", text, "export MER_CACHE=A_FOLDER_OF_YOUR_OWN")
    return Finding("cache", "ok", str(folder))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
