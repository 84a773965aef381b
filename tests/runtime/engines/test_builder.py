"""Engines that TensorRT-RTX really builds, and what it refuses."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tensorrt_graphs import FLOAT, HALF, SPEC, node, save, write_encoder, write_head

from mer_runtime.engines.builder import (
    EngineError,
    build_engine,
    clean_message,
    encoder_profile,
    import_tensorrt,
    message_log,
)
from mer_runtime.errors import MissingExtraError
from mer_runtime.files import pack_graph
from mer_runtime.spec import Spec, VideoSpec


def write_small(path: Path, nodes: list[Any], kind: int = FLOAT, **constants: Any) -> Path:
    return save(path, nodes, constants, [("x", kind, [1, 4])], [("y", FLOAT, [1, 4])])


def write_slow(path: Path) -> Path:
    """A graph that takes TensorRT-RTX many steps to build."""
    names = ["x", *(f"t{i}" for i in range(400)), "y"]
    return write_small(path, [node("Tanh", *step) for step in itertools.pairwise(names)])


def building() -> bool:
    return any(thread.name == "tensorrt-build" for thread in threading.enumerate())


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_builds_every_precision(rtx: Any, tmp_path: Path, half: bool, quantised: bool) -> None:
    path = write_encoder(tmp_path / "encoder.onnx", half=half, quantised=quantised)
    # Strict types: what TensorRT takes here is valid ONNX too.
    onnx.checker.check_model(onnx.load(path), full_check=True)
    phases: list[tuple[float, str]] = []
    engine = build_engine(
        rtx,
        path,
        profile=encoder_profile(SPEC),
        progress=lambda seconds, phase: phases.append((seconds, phase)),
    )
    assert len(engine) > 10_000
    assert phases
    assert all(seconds >= 0 and phase for seconds, phase in phases)
    assert not building()


def test_builds_from_a_packed_graph(rtx: Any, tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "encoder.onnx", half=True, quantised=True)
    plain = build_engine(rtx, path, profile=encoder_profile(SPEC))
    packed = build_engine(rtx, pack_graph(path), profile=encoder_profile(SPEC))
    # Not the same bytes: two builds never are, and now and then one is a few bytes longer. A layer
    # that is missing or of another precision would make a difference of kilobytes.
    assert len(packed) == pytest.approx(len(plain), abs=64)


def test_builds_where_every_network_is_strongly_typed(rtx: Any, tmp_path: Path) -> None:
    """As TensorRT 11 may be: the creation flag is gone."""
    later = ModuleType("tensorrt")
    later.__dict__.update(vars(rtx), NetworkDefinitionCreationFlag=ModuleType("without flags"))
    assert build_engine(later, write_head(tmp_path / "head.onnx"))


def test_needs_the_strongly_typed_flag_where_there_is_one(rtx: Any) -> None:
    assert hasattr(rtx.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def test_names_an_older_gpu(rtx: Any, tmp_path: Path) -> None:
    """TensorRT-RTX builds for Turing only when told to, and has no float32 products there."""
    head, half = write_head(tmp_path / "head.onnx"), write_encoder(tmp_path / "e.onnx", half=True)
    sizes = {
        capability: len(
            build_engine(rtx, half, profile=encoder_profile(SPEC), capability=capability)
        )
        for capability in (None, (8, 7), (7, 5))
    }
    assert sizes[None] == sizes[8, 7] != sizes[7, 5]
    assert build_engine(rtx, head, capability=(8, 0))
    with pytest.raises(EngineError, match=r"Turing \(SM75\): FP32 .*another precision"):
        build_engine(rtx, head, capability=(7, 5))
    with pytest.raises(EngineError, match="doesn't know SM70"):
        build_engine(rtx, head, capability=(7, 0))


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "unknown operator": (
        lambda path: write_small(path, [node("Frobnicate", "x", "y")]),
        r"can't take node node_y \(Frobnicate\)",
    ),
    "mixed types": (
        lambda path: write_small(path, [node("Cast", "x", "h", to=HALF), node("Add", "x h", "y")]),
        r"node node_y \(Add\).*types Float and Half",
    ),
    "int32 bias": (
        lambda path: write_small(
            path,
            [node("DequantizeLinear", "b s", "d"), node("Add", "x d", "y")],
            b=np.ones(4, np.int32),
            s=np.array(0.1, np.float32),
        ),
        r"node node_d \(DequantizeLinear\).*Int32",
    ),
    "zero-point": (
        lambda path: write_small(
            path,
            [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")],
            s=np.array(0.1, np.float32),
            z=np.array(3, np.int8),
        ),
        r"node node_q \(QuantizeLinear\).*[Zz]ero point",
    ),
    "uint8 transposed": (
        lambda path: write_small(
            path,
            [node("Transpose", "x", "t", perm=[0, 1]), node("Cast", "t", "y", to=FLOAT)],
            TensorProto.UINT8,
        ),
        r"node node_t \(Transpose\).*UInt8",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_says_which_node_it_refuses(rtx: Any, tmp_path: Path, case: str) -> None:
    write, message = REFUSED[case]
    with pytest.raises(EngineError, match=message) as caught:
        build_engine(rtx, write(tmp_path / "graph.onnx"))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'graph.onnx'}: tensorrt_rtx {rtx.__version__} ")
    assert text.endswith("export the bundle again, with another precision if that doesn't help")
    assert "\n" not in text
    assert "/_src/" not in text  # places in TensorRT's own source
    assert "cudaError" not in text


def test_refuses_what_is_no_graph(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    with pytest.raises(EngineError, match=r"graph\.onnx: No such file"):
        build_engine(rtx, path)
    path.write_bytes(b"something else")
    with pytest.raises(EngineError, match=r"can't read it.*parse"):
        build_engine(rtx, path)
    packed = path.rename(tmp_path / "graph.onnx.gz")
    with pytest.raises(EngineError, match=r"graph\.onnx\.gz can't be unpacked: \w"):
        build_engine(rtx, packed)


def test_refuses_shapes_that_do_not_fit(rtx: Any, tmp_path: Path) -> None:
    encoder, head = write_encoder(tmp_path / "e.onnx"), write_head(tmp_path / "h.onnx")
    with pytest.raises(EngineError, match=r"\['faces'\], shapes were given for \[\]"):
        build_engine(rtx, encoder)
    with pytest.raises(EngineError, match=r"are \[\], shapes were given for \['faces'\]"):
        build_engine(rtx, head, profile=encoder_profile(SPEC))
    other = encoder_profile(Spec(video=VideoSpec(frames=5, size=64)))
    with pytest.raises(EngineError, match=r"can't (take the input shapes|build an engine): \w"):
        build_engine(rtx, encoder, profile=other)
    smallest, likeliest, _ = encoder_profile(SPEC)["faces"]
    with pytest.raises(EngineError, match=r"can't (take the input shapes|build an engine): \w"):
        build_engine(rtx, encoder, profile={"faces": (likeliest, likeliest, smallest)})


@pytest.mark.parametrize("exception", [KeyboardInterrupt, ValueError])
def test_stops_when_asked(rtx: Any, tmp_path: Path, exception: type[BaseException]) -> None:
    path = write_slow(tmp_path / "graph.onnx")

    def stop(seconds: float, phase: str) -> None:
        raise exception

    with pytest.raises(exception):
        build_engine(rtx, path, progress=stop)
    assert "BuildCanceled" in message_log(rtx).last()
    assert not building()


def test_messages_lose_their_places() -> None:
    text = (
        "Invalid Node - add\nAPI Usage Error (add: no such sum. In validate at /_src/a/b.cpp:40)\n"
        "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: too old)"
    )
    assert clean_message(text) == "Invalid Node - add API Usage Error (add: no such sum.)"


def test_names_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match=r"tensorrt-rtx: .*'mer-edge\[tensorrt-rtx\]'"):
        import_tensorrt("tensorrt-rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(MissingExtraError, match=r"tensorrt: .*'mer-edge\[tensorrt\]'"):
        import_tensorrt("tensorrt")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(EngineError, match="comes with JetPack: sudo apt install"):
        import_tensorrt("tensorrt")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("__version__ = '8.6.1'", r"TensorRT 8\.6\.1 is too old: it takes 10\.3"),
        ("__version__ = '10.0.1'", r"too old"),
        ("raise OSError('libnvinfer.so.10: cannot open')", "can't be loaded: libnvinfer"),
        ("raise ImportError('no symbol')", "can't be loaded: no symbol"),
        ("import tensorrt_part_that_is_missing", "needs the package tensorrt-part-that-is-missing"),
        ("__version__ = '10.3.0'", None),
        ("__version__ = '11.4.1.6'", None),
    ],
)
def test_checks_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, message: str | None
) -> None:
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    try:
        if message is None:
            assert import_tensorrt("tensorrt").__version__ in source
        else:
            with pytest.raises((EngineError, MissingExtraError), match=message):
                import_tensorrt("tensorrt")
    finally:
        sys.modules.pop("tensorrt", None)
