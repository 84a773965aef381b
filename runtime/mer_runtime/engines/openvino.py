"""OpenVINO on the CPU (extra ``openvino``)."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.bundle import FACES, FEATURES, LOGITS, MFCC, Bundle
from mer_runtime.engines import Shape, check_shapes, graph_error, read_onnx
from mer_runtime.engines.cache import KeptFile, find_prepared
from mer_runtime.engines.ir_check import check_ir, check_sizes
from mer_runtime.errors import BundleError, MerError, MissingExtraError

DEVICE = "CPU"
THREADS_SETTING = "INFERENCE_NUM_THREADS"
#: The head takes half a millisecond; a second thread makes it slower.
HEAD_THREADS = 1

#: In the names of IR's files, and of the weights beside it.
IR, WEIGHTS = ".xml", ".bin"

#: The engine setting of the manifest: the type that OpenVINO computes in.
PRECISION_SETTING = "inference_precision"
INFERENCE_PRECISIONS = ("f32", "f16", "bf16")
#: Another: False computes in floats what int8 stands for. TensorRT's int8 has signed activations.
#: Where an x86 processor lacks VNNI, oneDNN halves the weights that meet them, and their last bit
#: is lost. ONNX Runtime's has none in dense layers.
INT8_SETTING = "int8_kernels"
#: OpenVINO's own name for it.
LOW_PRECISION = "LP_TRANSFORMS_MODE"


class OpenvinoBackend:
    """Models compiled for one request at a time: lowest latency.

    The encoder is compiled for each number of crops that it is given; a window's when it is
    loaded, others when they first come. What was compiled is kept: loading that takes a fifth of
    the time.

    Raises:
        MissingExtraError: OpenVINO isn't installed.
        BundleError: OpenVINO can't compile a graph, its inputs aren't the spec's, or the manifest
            doesn't say what to compute in.
    """

    gpu = None

    def __init__(self, bundle: Bundle, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", "a bundle for OpenVINO") from error
        except RuntimeError as error:  # its telemetry looks for a user's home
            raise graph_error(bundle, "OpenVINO", error) from error
        precision = bundle.engine.get(PRECISION_SETTING)
        if precision not in INFERENCE_PRECISIONS:
            raise BundleError(
                bundle.path,
                f"its manifest's engine.{PRECISION_SETTING} must be one of "
                f"{', '.join(INFERENCE_PRECISIONS)}, not {precision!r}",
            )
        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        self._bundle = bundle
        self._core: Any = openvino.Core()
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            # Without it OpenVINO picks bfloat16 where the CPU can, which isn't what was proved.
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": 1,
        }
        int8 = bundle.engine.get(INT8_SETTING, True)
        if not int8:
            self._options[LOW_PRECISION] = "NO"
        self._threads = threads
        # The build counts too; settings are compiled in.
        build = "-".join(openvino.__version__.split("-")[:2])
        self._compiler = f"openvino {build} {precision}{'' if int8 else ' without int8'}"
        self._encoders: dict[int, _Request] = {}
        frames = bundle.spec.video.frames
        try:
            encoder, head = self._restore(bundle.encoder, frames), self._restore(bundle.head)
            if encoder is None or head is None:
                shapes = [_shapes(self._read(graph)) for graph in (bundle.encoder, bundle.head)]
                self.feature_width = check_shapes(bundle, *shapes)
                encoder = encoder or self._compile(bundle.encoder, frames)
                head = head or self._compile(bundle.head)
            else:
                free = {name: (None, *shape[1:]) for name, shape in _shapes(encoder).items()}
                self.feature_width = check_shapes(bundle, free, _shapes(head))
        except (RuntimeError, ValueError, OSError) as error:
            if isinstance(error, MerError):
                raise
            raise graph_error(bundle, "OpenVINO", error) from error
        self._encoders[frames] = _Request(encoder)
        self._head = _Request(head)

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        count = len(faces)
        if count not in self._encoders:
            graph = self._bundle.encoder
            model = self._restore(graph, count) or self._compile(graph, count)
            self._encoders[count] = _Request(model)
        return self._encoders[count].run({FACES: faces})

    def classify(
        self, mfcc: NDArray[np.float32], features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._head.run({MFCC: mfcc[None], FEATURES: features[None]})[
            0
        ]
        return logits

    def _restore(self, graph: Path, crops: int | None = None) -> Any | None:
        """What an earlier start compiled; None where it must be done now."""
        place = self._place(graph, crops)
        prepared = place.read()
        if prepared is None:
            return None
        try:
            return self._core.import_model(prepared, DEVICE, self._settings(crops))
        except RuntimeError:
            place.drop()
            return None

    def _read(self, graph: Path) -> Any:
        """A model from IR or ONNX, packed or plain, after a look at what it would do."""
        if IR not in graph.suffixes:
            return self._core.read_model(read_onnx(self._bundle, graph))
        text = self._bundle.read_graph(graph)
        check_ir(text)
        weights = graph.with_name(graph.name.replace(IR, WEIGHTS))
        return self._core.read_model(text, self._bundle.read_graph(weights))

    def _compile(self, graph: Path, crops: int | None = None) -> Any:
        model = self._read(graph)
        if crops is not None:
            model.reshape({FACES: [crops, *self._bundle.spec.video.shape[1:]]})
        check_sizes(model, self._bundle.spec.video.frames)
        compiled = self._core.compile_model(model, DEVICE, self._settings(crops))
        # Into a stream of ours: what it gives otherwise differs between releases.
        prepared = BytesIO()
        compiled.export_model(prepared)
        self._place(graph, crops).keep(prepared.getvalue())
        return compiled

    def _place(self, graph: Path, crops: int | None) -> KeptFile:
        shapes = {} if crops is None else {FACES: [[crops]]}
        threads = self._settings(crops)[THREADS_SETTING]
        return find_prepared(self._bundle, graph, f"{self._compiler} {threads} threads", shapes)

    def _settings(self, crops: int | None) -> dict[str, Any]:
        """For the encoder of so many crops; None stands for the head."""
        return self._options | {THREADS_SETTING: HEAD_THREADS if crops is None else self._threads}


class _Request:
    """One compiled graph with memory of its own for inputs and output.

    Bound once, they spare OpenVINO's Python layer its work at every call: for the head, half of
    the time.
    """

    def __init__(self, model: Any) -> None:
        from openvino import Tensor

        self._request = model.create_infer_request()
        self._inputs: dict[str, NDArray[Any]] = {}
        for port in model.inputs:
            memory = np.empty(tuple(port.shape), port.element_type.to_dtype())
            self._request.set_tensor(port.any_name, Tensor(memory, shared_memory=True))
            self._inputs[_name(port)] = memory
        self._output: NDArray[np.float32] = self._request.get_output_tensor(0).data

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The graph's one output, (…) float32."""
        for name, value in inputs.items():
            np.copyto(self._inputs[name], value)
        self._request.start_async()
        self._request.wait()
        # A copy: the request's own memory holds the next answer soon.
        return np.array(self._output, np.float32)


def _name(port: Any) -> str:
    """The format's name of an input or output.

    Where a cast behind it does nothing, as between 16-bit floats and float32 in float32, it has
    the cast's name as well, and ``any_name`` may be that.
    """
    ours = port.names & {FACES, FEATURES, MFCC, LOGITS}
    return str(min(ours, default=port.any_name))


def _shapes(model: Any) -> dict[str, Shape]:
    """Every input and output; a dynamic dimension is free."""
    return {
        _name(port): tuple(
            size.get_length() if size.is_static else None for size in port.partial_shape
        )
        for port in (*model.inputs, *model.outputs)
    }
