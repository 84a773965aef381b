"""OpenVINO on the CPU (extra ``openvino``)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.backends import check_inputs
from mer_runtime.bundle import Bundle
from mer_runtime.errors import BundleError, MissingExtraError

#: Without a hint OpenVINO computes in bfloat16 where the CPU can, which isn't what was proved.
PRECISION_HINTS = {"fp32": "f32"}


class OpenvinoBackend:
    """A compiled model for one request at a time: lowest latency.

    Raises:
        MissingExtraError: OpenVINO isn't installed.
        BundleError: OpenVINO can't compile the graph, or its inputs aren't the spec's.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", "a bundle for OpenVINO") from error
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[bundle.precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        try:
            compiled = openvino.Core().compile_model(str(bundle.graph), "CPU", options)
        except RuntimeError as error:
            raise BundleError(bundle.path, f"OpenVINO can't compile the graph: {error}") from error
        check_inputs(bundle, {port.any_name: tuple(port.shape) for port in compiled.inputs})
        self._request: Any = compiled.create_infer_request()
        self.name = f"openvino {openvino.__version__.split('-')[0]}"

    def run(self, mfcc: NDArray[np.float32], faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._request.infer({"mfcc": mfcc[None], "faces": faces[None]})
        return np.array(self._request.get_output_tensor(0).data[0], np.float32)
