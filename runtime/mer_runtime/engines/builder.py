"""An ONNX graph to a TensorRT engine: one path for TensorRT 10.3, TensorRT 11 and TensorRT-RTX.

Networks are strongly typed, so the graph alone says what is computed in which precision:
TensorRT 11 removed the calibrators and the builder's INT8 and FP16 flags, and 10.3 doesn't need
them. The module (``tensorrt`` or ``tensorrt_rtx``) is passed in; nothing is imported before.
"""

from __future__ import annotations

import importlib
import platform
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from mer_runtime.errors import MerError, MissingExtraError
from mer_runtime.files import read_graph
from mer_runtime.spec import Spec

TensorrtTarget = Literal["tensorrt", "tensorrt-rtx"]
#: Of each target, the module to import.
MODULES: dict[TensorrtTarget, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
#: Strongly typed networks with uint8 inputs; JetPack 6 has 10.3.
OLDEST_TENSORRT = (10, 3)

#: Of each dynamic input, the smallest, likeliest and largest shape.
Profile = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
#: Called several times a second with the seconds so far and what TensorRT is at. What it raises
#: stops the build.
Progress = Callable[[float, str], None]

#: Seconds between two calls of a ``Progress``.
PROGRESS_INTERVAL = 0.1
#: TensorRT-RTX's engines serve compute capability 8.0 and later; an older GPU must be named.
OLDEST_PORTABLE = (8, 0)
#: Where in its own source TensorRT was, and CUDA's complaint where there is no GPU to ask.
SOURCE_PLACE = re.compile(r" In \w+ at \S+?(?=\)?$)")
WITHOUT_GPU = re.compile(r"^\[checkMacros\.cpp.*cudaError")


class EngineError(MerError, RuntimeError):
    """TensorRT can't build or run an engine here."""


def import_tensorrt(target: TensorrtTarget) -> Any:
    """The module ``tensorrt`` or ``tensorrt_rtx``.

    Raises:
        MissingExtraError: it isn't installed.
        EngineError: it can't be loaded, is too old, or should have come with JetPack.
    """
    name = MODULES[target]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name and target == "tensorrt" and platform.machine() == "aarch64":
            raise EngineError(
                "a bundle for tensorrt needs the module tensorrt, which comes with JetPack: "
                "sudo apt install python3-libnvinfer, then use a virtual environment made with "
                "--system-site-packages"
            ) from error
        raise MissingExtraError(
            (error.name or name).replace("_", "-"), target, f"a bundle for {target}"
        ) from error
    except (ImportError, OSError) as error:
        raise EngineError(f"{name} is installed but can't be loaded: {error}") from error
    version = tuple(int(part) for part in re.findall(r"\d+", module.__version__)[:2])
    if target == "tensorrt" and version < OLDEST_TENSORRT:
        oldest = ".".join(map(str, OLDEST_TENSORRT))
        raise EngineError(
            f"TensorRT {module.__version__} is too old: it takes {oldest} (JetPack 6) or later"
        )
    return module


def encoder_profile(spec: Spec) -> Profile:
    """One crop to a whole window of them, tuned for the window."""
    frames, *crop = spec.video.shape
    return {"faces": ((1, *crop), (frames, *crop), (frames, *crop))}


def build_engine(
    trt: Any,
    onnx_path: Path,
    *,
    profile: Profile | None = None,
    capability: tuple[int, int] | None = None,
    progress: Progress | None = None,
    content: bytes | None = None,
) -> bytes:
    """Parse a strongly typed ONNX graph and build its engine, in a thread of its own.

    TensorRT tunes for the GPU at hand; TensorRT-RTX needs none, and its engine is finished on
    the device. float32 means float32: TensorRT's default, TF32, keeps 10 bits of mantissa.

    Args:
        trt: the module, from ``import_tensorrt``.
        onnx_path: the graph, plain or packed (``.onnx.gz``).
        profile: shapes of the dynamic inputs; not needed where all are static.
        capability: of the GPU that TensorRT-RTX builds for, by default any from 8.0.
        progress: see ``Progress``; an interrupt (Ctrl-C) stops the build as well.
        content: the graph, where it was read already.

    Returns:
        The serialised engine.

    Raises:
        EngineError: the graph can't be read, TensorRT refuses a node, or the build fails.
    """
    try:
        graph = read_graph(onnx_path) if content is None else content
    except OSError as error:
        raise EngineError(f"{onnx_path}: {error.strerror or error}") from error
    work = _Work(trt, onnx_path, graph, profile or {}, capability)
    # A daemon, so that a second Ctrl-C needn't wait for TensorRT to listen.
    thread = threading.Thread(target=work.run, name="tensorrt-build", daemon=True)
    start = time.monotonic()
    thread.start()
    try:
        while thread.is_alive():
            thread.join(PROGRESS_INTERVAL)
            if progress:
                progress(time.monotonic() - start, work.phase)
    except BaseException:
        work.stopped = True
        thread.join()
        raise
    if work.failure:
        raise work.failure
    return work.engine


class _Work:
    """One build, and where it is.

    It has a thread of its own: an interrupt reaches the main thread only, and an exception
    must not pass through TensorRT's callbacks.
    """

    def __init__(
        self,
        trt: Any,
        path: Path,
        graph: bytes,
        profile: Profile,
        capability: tuple[int, int] | None,
    ) -> None:
        self.engine = b""
        self.failure: BaseException | None = None
        self.phase = "Parsing"
        self.stopped = False
        self._trt, self._path, self._graph = trt, path, graph
        self._profile, self._capability = profile, capability
        # TensorRT's objects need it as long as they live.
        self._monitor = _monitor(trt, self)

    def run(self) -> None:
        try:
            self.engine = self._build()
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            self.failure = error

    def _build(self) -> bytes:
        trt = self._trt
        log = message_log(trt)
        log.errors.clear()
        try:
            builder = trt.Builder(log)
        except TypeError as error:  # how the bindings say that TensorRT returned nothing
            raise self._fail("can't start here", log.last()) from error
        strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        flags = 0 if strongly_typed is None else 1 << int(strongly_typed)
        # The parser doesn't keep its network alive.
        network = builder.create_network(flags)
        parser = trt.OnnxParser(network, log)
        if not parser.parse(self._graph):
            raise self._refuse([parser.get_error(i) for i in range(parser.num_errors)])
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.progress_monitor = self._monitor
        self._set_capability(config)
        self._add_profile(builder, network, config)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise self._fail("can't build an engine", log.last())
        return bytes(engine)

    def _set_capability(self, config: Any) -> None:
        known = getattr(self._trt, "ComputeCapability", None)
        if known is None or self._capability is None or self._capability >= OLDEST_PORTABLE:
            return
        name = "SM{}{}".format(*self._capability)
        if not hasattr(known, name):
            raise self._fail("can't build for this GPU", f"it doesn't know {name}")
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(known, name), 0)

    def _add_profile(self, builder: Any, network: Any, config: Any) -> None:
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        dynamic = {tensor.name for tensor in inputs if -1 in tuple(tensor.shape)}
        if dynamic != set(self._profile):
            raise EngineError(
                f"{self._path}: inputs of changing shape are {sorted(dynamic)}, shapes were given "
                f"for {sorted(self._profile)}: export the bundle again"
            )
        if not dynamic:
            return
        shapes = builder.create_optimization_profile()
        try:
            for name, (smallest, likeliest, largest) in self._profile.items():
                shapes.set_shape(name, smallest, likeliest, largest)
            index = config.add_optimization_profile(shapes)
        except (ValueError, RuntimeError) as error:
            raise self._fail("can't take the input shapes", str(error)) from error
        if index < 0:
            raise self._fail("can't take the input shapes", message_log(self._trt).last())

    def _refuse(self, errors: list[Any]) -> EngineError:
        if not errors:
            return self._fail("can't read the graph", message_log(self._trt).last())
        first = errors[0]
        node = first.node_name() or (f"number {first.node()}" if first.node() >= 0 else "")
        what = f"can't take node {node} ({first.node_operator()})" if node else "can't read it"
        return self._fail(what, clean_message(first.desc()))

    def _fail(self, what: str, why: str) -> EngineError:
        remedy = "export the bundle again, with another precision if that doesn't help"
        name = f"{self._trt.__name__} {self._trt.__version__}"
        return EngineError(f"{self._path}: {name} {what}: {why or 'it gave no reason'}; {remedy}")


@cache
def message_log(trt: Any) -> Any:
    """The process's one logger of a TensorRT module: keeps the last errors, prints nothing.

    TensorRT stays with the first logger it was given, whatever comes later.
    """

    class MessageLog(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=8)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)

        def last(self) -> str:
            """The last error that says something; empty if there was none."""
            cleaned = (clean_message(message) for message in reversed(self.errors))
            return next((message for message in cleaned if message), "")

    return MessageLog()


def clean_message(text: str) -> str:
    """TensorRT's message in one line, without the places in its own source."""
    lines = (SOURCE_PLACE.sub("", line.strip()) for line in text.splitlines())
    return " ".join(line for line in lines if line and not WITHOUT_GPU.match(line))


def _monitor(trt: Any, work: _Work) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            work.phase = phase_name

        def step_complete(self, phase_name: str, step: int) -> bool:  # whether to go on
            return not work.stopped

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
