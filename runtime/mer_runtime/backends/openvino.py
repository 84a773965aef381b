"""OpenVINO on the CPU (extra ``openvino``)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.backends import Shape, check_shapes, graph_error
from mer_runtime.bundle import FACES, FEATURES, MFCC, Bundle
from mer_runtime.errors import BundleError, MissingExtraError

#: The engine setting of the manifest: the type that OpenVINO computes in.
PRECISION_SETTING = "inference_precision"
INFERENCE_PRECISIONS = ("f32", "f16", "bf16")


class OpenvinoBackend:
    """Models compiled for one request at a time: lowest latency.

    The encoder is compiled for each number of crops that it is given; a window's when it is
    loaded, others when they first come.

    Raises:
        MissingExtraError: OpenVINO isn't installed.
        BundleError: OpenVINO can't compile a graph, its inputs aren't the spec's, or the manifest
            doesn't say what to compute in.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", "a bundle for OpenVINO") from error
        precision = bundle.engine.get(PRECISION_SETTING)
        if precision not in INFERENCE_PRECISIONS:
            raise BundleError(
                bundle.path,
                f"its manifest's engine.{PRECISION_SETTING} must be one of "
                f"{', '.join(INFERENCE_PRECISIONS)}, not {precision!r}",
            )
        self._core: Any = openvino.Core()
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            # Without it OpenVINO picks bfloat16 where the CPU can, which isn't what was proved.
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        self._crop = bundle.spec.video.shape[1:]
        self._requests: dict[int, Any] = {}
        try:
            self._encoder: Any = self._core.read_model(bundle.encoder)
            head = self._core.read_model(bundle.head)
            self.feature_width = check_shapes(bundle, _shapes(self._encoder), _shapes(head))
            self._head = self._compile(head)
            self._encoder_request(bundle.spec.video.frames)
        except RuntimeError as error:
            raise graph_error(bundle, "OpenVINO", error) from error
        self.name = f"openvino {openvino.__version__.split('-')[0]}"

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        request = self._encoder_request(len(faces))
        request.infer({FACES: faces})
        # A copy: the request's own memory holds the next answer soon.
        return np.array(request.get_output_tensor(0).data, np.float32)

    def classify(
        self, mfcc: NDArray[np.float32], features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        self._head.infer({MFCC: mfcc[None], FEATURES: features[None]})
        return np.array(self._head.get_output_tensor(0).data[0], np.float32)

    def _encoder_request(self, crops: int) -> Any:
        if crops not in self._requests:
            self._encoder.reshape({FACES: [crops, *self._crop]})
            self._requests[crops] = self._compile(self._encoder)
        return self._requests[crops]

    def _compile(self, model: Any) -> Any:
        return self._core.compile_model(model, "CPU", self._options).create_infer_request()


def _shapes(model: Any) -> dict[str, Shape]:
    """Every input and output; a dynamic dimension is free."""
    return {
        port.any_name: tuple(
            size.get_length() if size.is_static else None for size in port.partial_shape
        )
        for port in (*model.inputs, *model.outputs)
    }
