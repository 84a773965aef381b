"""TensorRT on an NVIDIA GPU (extras ``tensorrt`` and ``tensorrt-rtx``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mer_runtime.bundle import ENCODER, FACES, FEATURES, HEAD, LOGITS, MFCC, Bundle
from mer_runtime.engines import Shape, check_shapes, graph_error, read_onnx
from mer_runtime.engines.builder import (
    MODULES,
    EngineError,
    Profile,
    Progress,
    TensorrtTarget,
    build_engine,
    encoder_profile,
    import_tensorrt,
    message_log,
)
from mer_runtime.engines.cache import EngineKey, load_or_build
from mer_runtime.engines.cuda import Gpu
from mer_runtime.errors import BundleError, MerError
from mer_runtime.store import find_folder

#: The type of every input and output; numpy's and, by the same name, TensorRT's.
TYPES: Mapping[str, tuple[DTypeLike, str]] = {
    FACES: (np.uint8, "UINT8"),
    FEATURES: (np.float32, "FLOAT"),
    MFCC: (np.float32, "FLOAT"),
    LOGITS: (np.float32, "FLOAT"),
}


class TensorrtBackend:
    """Encoder and head as engines that share one stream.

    An engine comes from the bundle if its manifest lists one that this version of TensorRT-RTX
    built ahead of time, else from the user's own cache, and is built at first use.

    Args:
        threads: not used, the work is the GPU's.

    Raises:
        MissingExtraError: TensorRT isn't installed.
        EngineError: there is no GPU, or TensorRT refuses a graph.
        BundleError: the bundle is for another target, or its graphs contradict its spec.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._trt = import_tensorrt(_check_target(bundle))
        self._bundle, self._gpu = bundle, Gpu()
        self._runtime = self._trt.Runtime(message_log(self._trt))
        self.name = f"{bundle.target} {self._trt.__version__}"
        major, minor = self._gpu.capability
        self.gpu = f"{self._gpu.name} sm{major}{minor}"
        encoder = self._load(ENCODER, encoder_profile(bundle.spec))
        head = self._load(HEAD, {})
        width = check_shapes(bundle, _shapes(encoder), _shapes(head))
        self.feature_width = width
        faces = bundle.spec.video.shape
        self._frames = faces[0]
        features = (self._frames, width)
        self._encoder = Session(self._trt, self._gpu, encoder, {FACES: faces}, (FEATURES, features))
        self._head = Session(
            self._trt,
            self._gpu,
            head,
            {MFCC: (1, *bundle.spec.audio.shape), FEATURES: (1, *features)},
            (LOGITS, (1, len(bundle.spec.labels))),
        )
        # Its kernels are tiny: launching them one by one takes longer than running them.
        self._head.capture()

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._encoder.run({FACES: faces})

    def classify(
        self, mfcc: NDArray[np.float32], features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._head.run({MFCC: mfcc[None], FEATURES: features[None]})[
            0
        ]
        return logits

    def _load(self, name: str, profile: Profile) -> Any:
        engine = self._load_prebuilt(name)
        if engine is not None:
            return engine
        graph = self._bundle.path / str(self._bundle.manifest["graphs"][name])
        try:
            content = read_onnx(self._bundle, graph)
        except (ValueError, OSError) as error:
            if isinstance(error, MerError):
                raise
            raise graph_error(self._bundle, self.name, error) from error
        # Packed or plain, the same graph has the same engine.
        digest = hashlib.sha256(content).hexdigest()
        key = EngineKey(digest, self.name, self.gpu, profile)

        def build(progress: Progress) -> bytes:
            return build_engine(
                self._trt,
                graph,
                profile=profile,
                capability=self._gpu.capability,
                progress=progress,
                content=content,
            )

        folder = find_folder()
        engine = self._deserialise(load_or_build(name, key, folder, build))
        if engine is None:
            # Kept under the right key and refused all the same, after a driver's change say.
            engine = self._deserialise(load_or_build(name, key, folder, build, rebuild=True))
        if engine is None:
            reason = message_log(self._trt).last() or "it gave no reason"
            raise EngineError(
                f"{graph}: {self.name} can't load the engine it built on {key.device}: {reason}; "
                "see docs/explanation/tensorrt.md for what this version supports"
            )
        return engine

    def _load_prebuilt(self, name: str) -> Any:
        """The bundle's own engine, or None: none there, another version's, or not for this GPU."""
        settings = self._bundle.engine
        if settings.get("version") != self._trt.__version__:
            return None
        try:
            file = str(settings["files"][name])
        except (KeyError, TypeError) as error:
            raise BundleError(
                self._bundle.path, f"its {name} engine can't be read: {error}"
            ) from error
        return self._deserialise(self._bundle.read(file))

    def _deserialise(self, engine: bytes) -> Any:
        message_log(self._trt).errors.clear()
        return self._runtime.deserialize_cuda_engine(engine)


class Session:
    """One engine with its buffers, allocated once for its largest shapes.

    Args:
        inputs: largest shape of each input.
        output: its name and largest shape.

    Raises:
        EngineError: an input's or the output's type is wrong, TensorRT can't prepare the
            engine, or the GPU's memory is full.
    """

    def __init__(
        self,
        trt: Any,
        gpu: Gpu,
        engine: Any,
        inputs: Mapping[str, tuple[int, ...]],
        output: tuple[str, tuple[int, ...]],
    ) -> None:
        self._trt, self._gpu = trt, gpu
        self._inputs, self._output = tuple(inputs), output[0]
        self._graph: int | None = None
        # The context needs its engine alive.
        self._engine, self._context = engine, engine.create_execution_context()
        if self._context is None:
            raise self._fail("has no room to run the engine")
        self._device: dict[str, int] = {}
        self._host: dict[str, NDArray[np.uint8]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in {**inputs, self._output: output[1]}.items():
            kind, trt_kind = TYPES[name]
            if engine.get_tensor_dtype(name) != getattr(trt.DataType, trt_kind):
                raise self._fail(f"has {name} as another type than {trt_kind} in its engine")
            size = prod(shape) * np.dtype(kind).itemsize
            self._device[name], self._host[name] = gpu.allocate(size), gpu.allocate_host(size)
            self._host[name].fill(0)
            if not self._context.set_tensor_address(name, self._device[name]):
                raise self._fail(f"takes no address for {name}")
        for name, shape in inputs.items():
            self._set_shape(name, shape)

    def capture(self) -> None:
        """Record the run as one CUDA graph; inputs keep their largest shapes from then on.

        Where the engine can't be recorded, it runs call by call as before.
        """
        self._gpu.enter()
        self._queue()  # what happens only at a first run can't be recorded
        self._gpu.synchronise()
        # TensorRT-RTX wants to be asked; TensorRT has no such method.
        ask = getattr(self._context, "is_stream_capturable", None)
        if ask is not None and not ask(self._gpu.stream):
            return
        with suppress(EngineError):
            self._graph = self._gpu.capture(self._queue)

    def run(self, values: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Run on inputs of at most the largest shapes.

        Returns:
            The output, float32, the caller's own.

        Raises:
            EngineError: the GPU or TensorRT reports an error, or a shape is too large.
        """
        self._gpu.enter()
        for name in self._inputs:
            self._set_shape(name, values[name].shape)
            np.copyto(self._view(name), values[name], casting="no")
        if self._graph is None:
            self._queue()
        else:
            self._gpu.launch(self._graph)
        self._gpu.synchronise()
        return self._view(self._output).copy()

    def _queue(self) -> None:
        """Copies in, engine, copy out, all on the stream."""
        for name in self._inputs:
            self._gpu.upload(self._device[name], self._bytes(name))
        if not self._context.execute_async_v3(self._gpu.stream):
            raise self._fail("can't run the engine")
        self._gpu.download(self._bytes(self._output), self._device[self._output])

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if self._shapes.get(name) == shape:
            return
        if not self._context.set_input_shape(name, shape):
            raise self._fail(f"doesn't take {name} of shape {shape}")
        self._shapes[name] = shape
        self._shapes[self._output] = tuple(self._context.get_tensor_shape(self._output))

    def _bytes(self, name: str) -> NDArray[np.uint8]:
        """The part of a host buffer that the current shape fills."""
        return self._host[name][: prod(self._shapes[name]) * np.dtype(TYPES[name][0]).itemsize]

    def _view(self, name: str) -> NDArray[Any]:
        return self._bytes(name).view(TYPES[name][0]).reshape(self._shapes[name])

    def _fail(self, what: str) -> EngineError:
        reason = message_log(self._trt).last() or "it gave no reason"
        return EngineError(f"{self._trt.__name__} {self._trt.__version__} {what}: {reason}")


def _check_target(bundle: Bundle) -> TensorrtTarget:
    for target in MODULES:
        if bundle.target == target:
            return target
    raise BundleError(bundle.path, f"TensorRT can't run a bundle for {bundle.target}")


def _shapes(engine: Any) -> dict[str, Shape]:
    """Every input and output; TensorRT says -1 where a size is free."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    return {
        name: tuple(None if size == -1 else size for size in tuple(engine.get_tensor_shape(name)))
        for name in names
    }
