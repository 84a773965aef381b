"""TensorRT: engines really built by TensorRT-RTX, and the backend on a stand-in for the GPU.

There is no GPU where these run. ``host_cuda.c`` takes the driver's place, ONNX Runtime computes
what an engine would; everything between them is the real thing.
"""

from __future__ import annotations

import ctypes
import gc
import gzip
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mer_runtime.bundle import Bundle, load_bundle, write_manifest, write_no_face
from mer_runtime.engines import cuda, open_backend
from mer_runtime.engines.builder import (
    EngineError,
    build_engine,
    clean_message,
    encoder_profile,
    import_tensorrt,
    message_log,
)
from mer_runtime.errors import BundleError, MissingExtraError
from mer_runtime.feeds import Temperatures
from mer_runtime.files import pack_graph, read_graph
from mer_runtime.golden import Golden, write_golden
from mer_runtime.spec import Spec, VideoSpec

SPEC = Spec(video=VideoSpec(frames=5, size=32))
WIDTH = 24
#: ONNX's float16 QuantizeLinear is of opset 19, and TensorRT 10.3 reads up to 20.
OPSET = 19
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


def save(
    path: Path, nodes: list[Any], constants: dict[str, Any], inputs: Any, outputs: Any
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *rest) for name, *rest in inputs],
        [helper.make_tensor_value_info(name, *rest) for name, *rest in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], name=f"node_{output}", **attributes)


def write_encoder(path: Path, *, half: bool = False, quantised: bool = False) -> Path:
    """uint8 crops to features: scaled, one convolution, mean, one matrix."""
    rng = np.random.default_rng(3)
    kind, type_ = (HALF, np.float16) if half else (FLOAT, np.float32)
    weights = rng.normal(0, 0.3, (8, 3, 3, 3))
    scales = np.abs(weights).max(axis=(1, 2, 3)) / 127
    constants: dict[str, Any] = {
        "per": np.array(1 / 255, type_),
        "bias": rng.normal(0, 0.1, 8).astype(type_),
        "matrix": rng.normal(0, 1, (8, WIDTH)).astype(type_),
    }
    # TensorRT has no transpose of uint8: the cast comes first.
    nodes = [
        node("Cast", "faces", "cast", to=kind),
        node("Transpose", "cast", "planes", perm=[0, 3, 1, 2]),
        node("Mul", "planes per", "x"),
    ]
    if quantised:
        rounded = np.round(weights / scales[:, None, None, None]).astype(np.int8)
        constants |= {
            "scale": np.array(1 / 127, type_),
            "zero": np.array(0, np.int8),
            "w_int8": rounded,
            "w_scale": scales.astype(type_),
            "w_zero": np.zeros(8, np.int8),
        }
        nodes += [
            node("QuantizeLinear", "x scale zero", "q"),
            node("DequantizeLinear", "q scale zero", "dq"),
            node("DequantizeLinear", "w_int8 w_scale w_zero", "w", axis=0),
        ]
    else:
        constants["w"] = weights.astype(type_)
    nodes += [
        node("Conv", f"{'dq' if quantised else 'x'} w bias", "conv", strides=[2, 2]),
        node("Relu", "conv", "relu"),
        node("GlobalAveragePool", "relu", "mean"),
        node("Flatten", "mean", "flat"),
        node("MatMul", "flat matrix", "wide"),
        node("Cast", "wide", "features", to=FLOAT),
    ]
    size = SPEC.video.size
    inputs = [("faces", TensorProto.UINT8, ["N", size, size, 3])]
    return save(path, nodes, constants, inputs, [("features", FLOAT, ["N", WIDTH])])


def write_head(path: Path, classes: int = len(SPEC.labels)) -> Path:
    rng = np.random.default_rng(4)
    n_mfcc, ticks = SPEC.audio.shape
    constants = {
        "voice": rng.normal(0, 1, (n_mfcc * ticks, classes)).astype(np.float32),
        "face": rng.normal(0, 1, (SPEC.video.frames * WIDTH, classes)).astype(np.float32),
    }
    nodes = [
        node("Flatten", "mfcc", "m"),
        node("Flatten", "features", "f"),
        node("MatMul", "m voice", "a"),
        node("MatMul", "f face", "b"),
        node("Add", "a b", "logits"),
    ]
    inputs = [
        ("mfcc", FLOAT, [1, n_mfcc, ticks]),
        ("features", FLOAT, [1, SPEC.video.frames, WIDTH]),
    ]
    return save(path, nodes, constants, inputs, [("logits", FLOAT, [1, classes])])


def write_small(path: Path, nodes: list[Any], kind: int = FLOAT, **constants: Any) -> Path:
    return save(path, nodes, constants, [("x", kind, [1, 4])], [("y", FLOAT, [1, 4])])


def write_slow(path: Path) -> Path:
    """A graph that takes TensorRT-RTX many steps to build."""
    names = ["x", *(f"t{i}" for i in range(400)), "y"]
    return write_small(path, [node("Tanh", *step) for step in itertools.pairwise(names)])


def building() -> bool:
    return any(thread.name == "tensorrt-build" for thread in threading.enumerate())


# --- building -------------------------------------------------------------------------------


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


# --- the module -----------------------------------------------------------------------------


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


# --- the backend ----------------------------------------------------------------------------


@pytest.fixture
def write_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    def write(
        target: str = "tensorrt-rtx", engine: Any = None, classes: int = 8, packed: bool = True
    ) -> Bundle:
        folder = tmp_path / "bundle"
        folder.mkdir(exist_ok=True)
        graphs = {
            "encoder": write_encoder(folder / "encoder.onnx"),
            "head": write_head(folder / "head.onnx", classes),
        }
        if packed:
            graphs = {name: pack_graph(file) for name, file in graphs.items()}
        none = np.zeros((1, 1), np.float32)
        crops = np.zeros((1, 32, 32, 3), np.uint8)
        shown = np.zeros((1, 5), np.int64)
        proved = Temperatures()
        golden = Golden(("a",), none, crops, shown, none, none, none, 1e-3, proved, none, crops[0])
        write_golden(folder, golden)
        write_no_face(folder, np.zeros(WIDTH, np.float32))
        content = {
            "target": target,
            "precision": "fp32",
            "graphs": {name: file.name for name, file in graphs.items()},
            "spec": SPEC.to_dict(),
            "face_detector": None,
            "temperatures": 1.0,
            "doubtful_margins": {},
            "engine": engine or {},
        }
        write_manifest(folder, content)
        return load_bundle(folder)

    return write


def test_without_a_driver_it_says_so(
    rtx: Any, write_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-that-is-nowhere.so.1")
    with pytest.raises(EngineError, match=r"no NVIDIA driver here .*install the driver, or use"):
        open_backend(write_bundle())


def test_refuses_a_bundle_for_another_target(write_bundle: Callable[..., Bundle]) -> None:
    from mer_runtime.engines.tensorrt import TensorrtBackend

    with pytest.raises(BundleError, match="TensorRT can't run a bundle for onnx"):
        TensorrtBackend(write_bundle("onnx"), 1)


@pytest.fixture(scope="module")
def driver_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc)")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    source = Path(__file__).with_name("host_cuda.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture
def driver(driver_file: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    monkeypatch.setattr(cuda, "LIBRARY", str(driver_file))
    library = ctypes.CDLL(str(driver_file))
    library.stub_memory.argtypes, library.stub_memory.restype = (
        [ctypes.c_ulonglong],
        ctypes.c_void_p,
    )
    library.stub_enqueue.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return library


def open_session(graph: Path) -> Any:
    content = graph.read_bytes()
    if graph.suffix == ".gz":
        content = gzip.decompress(content)
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


class HostContext:
    """An execution context whose engine is ONNX Runtime on the "GPU's" memory."""

    def __init__(self, engine: HostEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        callback = ctypes.CFUNCTYPE(ctypes.c_int)
        self.work = callback(self.compute)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= SPEC.video.frames

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = next(iter(self.shapes.values()))[0]
        return tuple(batch if size == -1 else size for size in self.engine.get_tensor_shape(name))

    def is_stream_capturable(self, stream: int) -> bool:
        return "STUB_NO_CAPTURE" not in os.environ

    def execute_async_v3(self, stream: int) -> bool:
        return bool(self.engine.driver.stub_enqueue(stream, self.work) == 0)

    def memory(self, name: str, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        address = self.engine.driver.stub_memory(self.addresses[name])
        buffer = (ctypes.c_uint8 * size).from_address(address)
        return np.ctypeslib.as_array(buffer).view(kind).reshape(shape)

    def compute(self) -> int:
        kinds = {name: np.uint8 if name == "faces" else np.float32 for name in self.shapes}
        values = {
            name: self.memory(name, shape, kinds[name]) for name, shape in self.shapes.items()
        }
        output = self.engine.session.get_outputs()[0].name
        answer = self.engine.session.run([output], values)[0]
        self.memory(output, answer.shape, np.float32)[...] = answer
        return 0


class HostEngine:
    def __init__(self, rtx: Any, driver: Any, graph: Path) -> None:
        self.driver, self.trt = driver, rtx
        self.session = open_session(graph)
        self.tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return str(self.tensors[index].name)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        tensor = next(tensor for tensor in self.tensors if tensor.name == name)
        return tuple(-1 if isinstance(size, str) else size for size in tensor.shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return self.trt.DataType.UINT8 if name == "faces" else self.trt.DataType.FLOAT

    def create_execution_context(self) -> HostContext:
        return HostContext(self)


@pytest.fixture
def machine(
    rtx: Any, driver: ctypes.CDLL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[bytes]]:
    """A machine whose TensorRT really builds and whose GPU is the host; yields what it loaded."""
    loaded: list[bytes] = []

    class HostRuntime:
        def __init__(self, log: Any) -> None:
            pass

        def deserialize_cuda_engine(self, engine: bytes) -> HostEngine | None:
            loaded.append(engine)
            if engine.startswith(b"refused"):
                return None
            # Encoder first, unless that was refused before.
            stem = "encoder" if b"faces" in engine else "head"
            (graph,) = (tmp_path / "bundle").glob(f"{stem}.onnx*")
            return HostEngine(rtx, driver, graph)

    monkeypatch.setattr(rtx, "Runtime", HostRuntime)
    monkeypatch.setenv("MER_CACHE", str(tmp_path / "own"))
    before = driver.stub_allocated()
    yield loaded
    gc.collect()
    assert driver.stub_allocated() == before, "GPU memory was not given back"


def reference(bundle: Bundle, mfcc: Any, faces: Any) -> tuple[Any, Any]:
    """Features and logits by ONNX Runtime alone."""
    encoder, head = open_session(bundle.encoder), open_session(bundle.head)
    features = encoder.run(None, {"faces": faces})[0]
    return features, head.run(None, {"mfcc": mfcc[None], "features": features[None]})[0][0]


@pytest.mark.parametrize("refused_by", [None, "STUB_NO_GRAPHS", "STUB_NO_CAPTURE"])
def test_runs_on_a_gpu(
    machine: list[bytes],
    driver: ctypes.CDLL,
    write_bundle: Callable[..., Bundle],
    monkeypatch: pytest.MonkeyPatch,
    refused_by: str | None,
) -> None:
    """As CUDA graph and, where the driver or the engine can't record one, call by call."""
    if refused_by:
        monkeypatch.setenv(refused_by, "1")
    bundle = write_bundle()
    backend = open_backend(bundle)
    assert backend.name == f"tensorrt-rtx {import_tensorrt('tensorrt-rtx').__version__}"
    assert backend.feature_width == WIDTH
    rng = np.random.default_rng(5)
    launches = driver.stub_launches()
    for _ in range(3):  # buffers are used again
        mfcc = rng.normal(0, 1, SPEC.audio.shape).astype(np.float32)
        faces = rng.integers(0, 256, SPEC.video.shape, np.uint8)
        features, logits = reference(bundle, mfcc, faces)
        # The same ONNX Runtime on the same bytes; batch sizes may change the order of sums.
        encoded = backend.encode(faces)
        np.testing.assert_allclose(encoded, features, atol=1e-5)
        for n in (1, 3):
            np.testing.assert_allclose(backend.encode(faces[:n]), features[:n], atol=1e-5)
        np.testing.assert_allclose(backend.classify(mfcc, encoded), logits, atol=1e-4)
        np.testing.assert_allclose(encoded, features, atol=1e-5)  # the caller's own copy
    assert driver.stub_launches() - launches == (0 if refused_by else 3)
    with pytest.raises(EngineError, match="doesn't take faces of shape"):
        backend.encode(np.zeros((6, *SPEC.video.shape[1:]), np.uint8))


def test_answers_in_another_thread(
    machine: list[bytes], write_bundle: Callable[..., Bundle]
) -> None:
    backend = open_backend(write_bundle())
    answers: list[Any] = []
    faces = np.full(SPEC.video.shape, 9, np.uint8)
    thread = threading.Thread(target=lambda: answers.append(backend.encode(faces)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(answers[0], backend.encode(faces))


def kept() -> list[str]:
    """Files of the user's own cache."""
    from mer_runtime.store import find_folder

    folder = find_folder()
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def test_caches_for_the_user_alone(
    machine: list[bytes], write_bundle: Callable[..., Bundle]
) -> None:
    bundle = write_bundle()
    open_backend(bundle)
    engines = kept()
    assert [name.split("-")[0] for name in engines] == ["encoder", "head"]
    assert not (bundle.path / "engines").exists()
    built = list(machine)
    machine.clear()
    open_backend(bundle)
    assert machine == built
    assert kept() == engines


def test_loads_nothing_that_lies_in_the_bundle(
    machine: list[bytes], write_bundle: Callable[..., Bundle]
) -> None:
    """An engine under the right name, key and hash, planted where they once were kept."""
    from mer_runtime.engines.cache import EngineKey, write_engine
    from mer_runtime.store import find_folder

    bundle = write_bundle()
    trt = import_tensorrt("tensorrt-rtx")
    digest = hashlib.sha256(read_graph(bundle.head)).hexdigest()
    key = EngineKey(digest, f"tensorrt-rtx {trt.__version__}", "Host GPU sm87", {})
    for folder in (bundle.path / "engines", bundle.path):
        folder.mkdir(exist_ok=True)
        write_engine(folder / key.file_name("head"), key, b"planted")
    open_backend(load_bundle(bundle.path))
    assert (find_folder() / key.file_name("head")).is_file(), "its key is another"
    assert b"planted" not in machine


def test_packed_and_plain_share_an_engine(
    machine: list[bytes], write_bundle: Callable[..., Bundle], resign: Callable[..., None]
) -> None:
    """What was built for a bundle stays right when its files are packed, by whatever gzip."""
    bundle = write_bundle(packed=False)
    open_backend(bundle)
    built = list(machine)
    for file in (bundle.encoder, bundle.head):
        file.unlink()
    bundle = write_bundle()
    for file in (bundle.encoder, bundle.head):
        file.write_bytes(gzip.compress(read_graph(file), 1, mtime=12345))
    resign(bundle.path)
    machine.clear()
    open_backend(load_bundle(bundle.path))
    assert machine == built


def test_a_graph_that_can_not_be_unpacked(
    machine: list[bytes], write_bundle: Callable[..., Bundle], resign: Callable[..., None]
) -> None:
    bundle = write_bundle()
    bundle.head.write_bytes(bundle.head.read_bytes()[:-9])
    resign(bundle.path)
    bundle = load_bundle(bundle.path)
    with pytest.raises(BundleError, match=r"can't load its graphs: head\.onnx\.gz can't be unpac"):
        open_backend(bundle)


def test_builds_again_what_the_runtime_refuses(
    machine: list[bytes], write_bundle: Callable[..., Bundle]
) -> None:
    from mer_runtime.engines.cache import EngineKey, write_engine
    from mer_runtime.store import find_folder

    bundle = write_bundle()
    trt = import_tensorrt("tensorrt-rtx")
    name = f"tensorrt-rtx {trt.__version__}"
    digest = hashlib.sha256(read_graph(bundle.head)).hexdigest()
    key = EngineKey(digest, name, "Host GPU sm87", {})
    folder = find_folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_engine(folder / key.file_name("head"), key, b"refused")
    open_backend(bundle)
    assert machine[1] == b"refused"
    assert len(machine) == 3


def prebuild(rtx: Any, folder: Path) -> None:
    folder.mkdir()
    profile = encoder_profile(SPEC)
    encoder = write_encoder(folder / "encoder.onnx")
    (folder / "encoder.engine").write_bytes(build_engine(rtx, encoder, profile=profile))
    head = write_head(folder / "head.onnx")
    (folder / "head.engine").write_bytes(build_engine(rtx, head))


FILES = {"encoder": "encoder.engine", "head": "head.engine"}


def test_takes_engines_built_ahead(
    rtx: Any, machine: list[bytes], write_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    prebuild(rtx, folder)
    bundle = write_bundle(engine={"version": rtx.__version__, "files": FILES})
    open_backend(bundle)
    assert machine == [(folder / name).read_bytes() for name in FILES.values()]
    assert kept() == []


def test_builds_where_those_are_another_versions(
    rtx: Any, machine: list[bytes], write_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    prebuild(rtx, folder)
    (folder / "head.engine").write_bytes(b"never loaded")
    open_backend(write_bundle(engine={"version": "1.0.0.1", "files": FILES}))
    assert b"never loaded" not in machine
    assert len(kept()) == 2


def test_builds_where_those_are_for_other_gpus(
    rtx: Any, machine: list[bytes], write_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    prebuild(rtx, folder)
    (folder / "head.engine").write_bytes(b"refused")
    open_backend(write_bundle(engine={"version": rtx.__version__, "files": FILES}))
    assert [name.split("-")[0] for name in kept()] == ["head"]


@pytest.mark.parametrize("files", [{"encoder": "../encoder.engine"}, {}, None])
def test_loads_no_engine_that_was_not_checked(
    rtx: Any, machine: list[bytes], write_bundle: Callable[..., Bundle], files: Any
) -> None:
    bundle = write_bundle(engine={"version": rtx.__version__, "files": files})
    with pytest.raises(BundleError, match=r"lists no hash of|encoder engine can't be read"):
        open_backend(bundle)
    assert not machine


def test_refuses_graphs_that_contradict_the_spec(
    machine: list[bytes], write_bundle: Callable[..., Bundle]
) -> None:
    with pytest.raises(BundleError, match=r"its head has .*logits \(1 x 3\)"):
        open_backend(write_bundle(classes=3))


def test_says_that_no_gpu_works(
    rtx: Any,
    driver: ctypes.CDLL,
    write_bundle: Callable[..., Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STUB_NO_GPU", "1")
    with pytest.raises(EngineError, match=r"finds no GPU .*no CUDA-capable device is detected"):
        open_backend(write_bundle())


def test_the_gpus_memory_may_be_full(driver: ctypes.CDLL) -> None:
    gpu = cuda.Gpu()
    assert (gpu.name, gpu.capability) == ("Host GPU", (8, 7))
    with pytest.raises(EngineError, match="cuMemAlloc_v2 failed with CUDA error 2"):
        gpu.allocate(1 << 31)


def test_an_old_driver_is_named(
    driver_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, library = tmp_path / "empty.c", tmp_path / "libempty.so"
    source.write_text("int cuInit(unsigned int flags) { return (int)flags; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(cuda, "LIBRARY", str(library))
    with pytest.raises(EngineError, match="driver is too old"):
        cuda.Gpu()
