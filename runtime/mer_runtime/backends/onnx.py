"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mer_runtime.backends import check_inputs
from mer_runtime.bundle import Bundle
from mer_runtime.errors import BundleError

#: ONNX Runtime's own warnings are for its developers; errors reach us as exceptions.
LOG_ERRORS_ONLY = 3


class OnnxBackend:
    """A session with a fixed number of threads.

    Raises:
        BundleError: ONNX Runtime can't load the graph, or its inputs aren't the spec's.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = LOG_ERRORS_ONLY
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(bundle.graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class of its own
            raise BundleError(bundle.path, f"ONNX Runtime can't load the graph: {error}") from error
        inputs = self._session.get_inputs()
        check_inputs(bundle, {node.name: tuple(node.shape) for node in inputs})

    @property
    def name(self) -> str:
        return f"onnxruntime {onnxruntime.__version__}"

    def run(self, mfcc: NDArray[np.float32], faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = self._session.run(["logits"], {"mfcc": mfcc[None], "faces": faces[None]})[0]
        return np.asarray(logits[0], np.float32)
