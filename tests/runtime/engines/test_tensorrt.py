"""The TensorRT backend: real engines, and a stand-in for the GPU, as there is none here."""

from __future__ import annotations

import ctypes
import gc
import gzip
import hashlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_gpu import DRIVER, HostEngine, open_session
from tensorrt_graphs import SPEC, WIDTH, write_encoder, write_head

from mer_runtime.bundle import Bundle, load_bundle, write_manifest, write_no_face
from mer_runtime.engines import cuda, open_backend
from mer_runtime.engines.builder import (
    EngineError,
    build_engine,
    encoder_profile,
    import_tensorrt,
)
from mer_runtime.engines.cache import EngineKey, write_engine
from mer_runtime.errors import BundleError
from mer_runtime.feeds import Temperatures
from mer_runtime.files import pack_graph, read_graph
from mer_runtime.golden import Golden, write_golden
from mer_runtime.store import find_folder


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
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, DRIVER], check=True)
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
    folder = find_folder()
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def key_of(graph: Path) -> EngineKey:
    """What an engine of a graph is kept under, here."""
    version = import_tensorrt("tensorrt-rtx").__version__
    digest = hashlib.sha256(read_graph(graph)).hexdigest()
    return EngineKey(digest, f"tensorrt-rtx {version}", "Host GPU sm87", {})


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
    bundle = write_bundle()
    key = key_of(bundle.head)
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
    bundle = write_bundle()
    key = key_of(bundle.head)
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
