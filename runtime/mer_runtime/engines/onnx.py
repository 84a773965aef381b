"""ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mer_runtime.bundle import FACES, FEATURES, LOGITS, MFCC, Bundle
from mer_runtime.engines import Shape, check_shapes, graph_error, read_onnx
from mer_runtime.engines.cache import find_prepared
from mer_runtime.errors import MerError
from mer_runtime.files import read_graph

#: ONNX Runtime's own warnings are for its developers; errors reach us as exceptions.
LOG_ERRORS_ONLY = 3
#: It puts a float layer that stands between int8 ones back into int8, with one scale for all
#: channels: what an export left in float for the accuracy's sake shall stay so.
UNWANTED_OPTIMIZERS = ["WeightBiasQuantization"]
#: Crops that go through the encoder at once. Few make better use of the processor's cache than a
#: whole window (fp32 about a tenth faster, int8 the same) and need 55 MB less for activations.
CROPS_AT_ONCE = 5
#: The head takes about a millisecond; threads of its own would only compete with the encoder's.
HEAD_THREADS = 1
#: The first piece of a layer is a fourth of a thread's share, the next ones are smaller.
DYNAMIC_BLOCK_BASE = "4"


class OnnxBackend:
    """Two sessions with a fixed number of threads each.

    The graphs as ONNX Runtime optimised them for this processor are kept: opening those takes a
    quarter of the time.

    Args:
        threads: for the encoder.

    Raises:
        BundleError: ONNX Runtime can't load a graph, or its inputs aren't the spec's.
    """

    gpu = None

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.name = f"onnxruntime {onnxruntime.__version__}"
        try:
            self._encoder = self._open(bundle, bundle.encoder, threads)
            self._head = self._open(bundle, bundle.head, HEAD_THREADS)
        except MerError:
            raise
        except Exception as error:  # its exceptions share no base class of its own
            raise graph_error(bundle, "ONNX Runtime", error) from error
        self.feature_width = check_shapes(
            bundle, read_shapes(self._encoder), read_shapes(self._head)
        )

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        pieces = [
            self._encoder.run([FEATURES], {FACES: faces[i : i + CROPS_AT_ONCE]})[0]
            for i in range(0, len(faces), CROPS_AT_ONCE)
        ]
        return np.concatenate(pieces)

    def classify(
        self, mfcc: NDArray[np.float32], features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        logits = self._head.run([LOGITS], {MFCC: mfcc[None], FEATURES: features[None]})[0]
        return np.asarray(logits[0], np.float32)

    def _open(self, bundle: Bundle, graph: Path, threads: int) -> Any:
        unwanted = ", ".join(UNWANTED_OPTIMIZERS)
        place = find_prepared(bundle, graph, f"{self.name} without {unwanted}")
        prepared = place.read()
        if prepared is not None:
            options = _options(threads)
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            try:
                return open_session(prepared, options)
            except Exception:  # noqa: BLE001 # whatever it is, the graph itself tells more
                place.drop()
        content = read_onnx(bundle, graph)
        # A device without a place for files, or with too small a one, still answers.
        with suppress(Exception), tempfile.TemporaryDirectory(prefix="mer-edge-") as folder:
            optimised = Path(folder) / "optimised.onnx"
            options = _options(threads)
            options.optimized_model_filepath = str(optimised)
            session = open_session(content, options)
            place.keep(optimised.read_bytes())
            return session
        return open_session(content, _options(threads))


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Threads that wait for work sleep: waiting busily, they take a core from those that have some.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A layer is shared out in smaller and smaller pieces: a thread that was held up gets fewer.
    options.add_session_config_entry("session.dynamic_block_base", DYNAMIC_BLOCK_BASE)
    # Planning by the first run's sizes takes its memory a second time and gains nothing.
    options.enable_mem_pattern = False
    return options


def open_session(graph: Path | bytes, options: Any) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        graph: a file, packed or not, or its content; a bundle's is checked first (``read_onnx``).

    Raises:
        Exception: ONNX Runtime can't load it; its exceptions share no base class of their own.
    """
    options.log_severity_level = LOG_ERRORS_ONLY
    # By its content ONNX Runtime would know a format of its own.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(
        # From a path it would open what the graph names.
        graph if isinstance(graph, bytes) else read_graph(graph),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=UNWANTED_OPTIMIZERS,
    )


def read_shapes(session: Any) -> dict[str, Shape]:
    """Every input and output of a session; a dimension with a symbol is free."""
    return {
        node.name: tuple(size if isinstance(size, int) else None for size in node.shape)
        for node in (*session.get_inputs(), *session.get_outputs())
    }
