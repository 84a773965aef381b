"""Runs a float graph on calibration samples and counts the values of its activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from mer_calibration.errors import CalibrationError
from mer_calibration.measure.histogram import Histogram
from mer_runtime.engines import onnx as engine

Feed = Mapping[str, NDArray[Any]]


class Probe:
    """A graph whose named tensors can be read; ``model`` itself stays as it is.

    Graph optimisations are off: they would fuse some of the tensors away, and with every tensor
    read they gain nothing (EfficientFace: 131 ms without, 153 ms or more with them).

    Raises:
        CalibrationError: a name is no activation of the graph, or ONNX Runtime can't load it.
    """

    def __init__(
        self, model: onnx.ModelProto, tensors: Sequence[str], *, threads: int | None = None
    ) -> None:
        graph = model.graph
        made = {name for node in graph.node for name in node.output if name}
        given = {value.name for value in graph.input} - {value.name for value in graph.initializer}
        for name in tensors:
            if name not in made | given:
                raise CalibrationError(f"the graph has no activation '{name}'")
        self._given = [name for name in dict.fromkeys(tensors) if name in given]
        self._made = [name for name in dict.fromkeys(tensors) if name in made]
        self._samples = 0
        wider = onnx.ModelProto()
        wider.CopyFrom(model)
        outputs = {value.name for value in graph.output}
        wider.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in self._made if name not in outputs
        )
        self._session = open_session(wider, threads, optimise=False)

    def read(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """Run the graph on its inputs, by name; give the tensors, all held at once.

        Raises:
            CalibrationError: the inputs don't fit the graph; the message counts the samples.
        """
        self._samples += 1
        try:
            values = self._session.run(self._made, dict(feed)) if self._made else []
            return {
                **{name: np.asarray(feed[name]) for name in self._given},
                **dict(zip(self._made, values, strict=True)),
            }
        except Exception as error:  # its exceptions share no base class of its own
            raise CalibrationError(
                f"the graph can't be run on sample {self._samples}: {error}"
            ) from error


def open_session(
    model: onnx.ModelProto, threads: int | None = None, *, optimise: bool = True
) -> Any:
    """An ONNX Runtime session on the CPU.

    Raises:
        CalibrationError: it can't load the graph.
    """
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads:
        options.intra_op_num_threads = threads
    try:
        return engine.open_session(model.SerializeToString(), options)
    except Exception as error:  # its exceptions share no base class of its own
        reason = " ".join(str(error).split())
        raise CalibrationError(f"ONNX Runtime can't load the graph: {reason}") from error


def observe(
    model: onnx.ModelProto,
    feeds: Iterable[Feed],
    tensors: Sequence[str],
    *,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Histogram]:
    """Histograms of activations over all samples.

    Args:
        model: a float graph.
        feeds: the samples: each gives the graph's inputs by name. All tensors of one sample are
            in memory at once, 22 MB a crop for the encoder's.
        tensors: names of the activations, inputs and outputs of the graph among them if wanted.
        threads: of ONNX Runtime; its own choice where None.
        progress: called with (samples done).

    Returns:
        A histogram for each name.

    Raises:
        CalibrationError: there is no sample, a name is no activation of the graph, a sample
            doesn't fit it, or a value isn't finite.
    """
    probe = Probe(model, tensors, threads=threads)
    histograms = {name: Histogram() for name in tensors}
    number = 0
    for number, feed in enumerate(feeds, start=1):
        for name, values in probe.read(feed).items():
            try:
                histograms[name].update(values)
            except CalibrationError as error:
                raise CalibrationError(f"sample {number}, tensor '{name}': {error}") from error
        if progress:
            progress(number)
    if not number:
        raise CalibrationError("the calibration set is empty: give at least one sample")
    return histograms
