"""Fixtures of all tests: the shared corpus, real media files made on the spot, a seeded model.

Nothing here imports torch at the top: the runtime's tests must not need it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

#: Frame number as black and white blocks along the lower edge, most significant bit first:
#: survives lossy codecs and tells a test *which* frame it was given.
CODE_BITS = 10

#: What each container is written with. Sizes that are odd need 4:4:4.
CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "pcm_s16le"),
    ".avi": ("mpeg4", "pcm_s16le"),  # MP3 would begin before 0 and shift the pictures
    ".webm": ("libvpx", "libopus"),
    ".wav": (None, "pcm_s16le"),
    ".flac": (None, "flac"),
    ".mp3": (None, "libmp3lame"),
    # What phones and older cameras write; told apart by what they hold (``list_media``).
    ".m4v": ("libx264", "aac"),
    ".3gp": ("libx264", "aac"),
    ".ts": ("libx264", "aac"),
    ".mts": ("libx264", "ac3"),
    ".mpg": ("mpeg2video", "mp2"),
    ".wmv": ("wmv2", "wmav2"),
    ".flv": ("flv1", "libmp3lame"),
    ".m4a": (None, "aac"),
    ".aac": (None, "aac"),
    ".ogg": (None, "libopus"),
    ".opus": (None, "libopus"),
    ".wma": (None, "wmav2"),
    ".aiff": (None, "pcm_s16be"),
}


#: What takes long: folders and files whose tests train, calibrate, export or install, and fixtures
#: that do. ``make test-fast`` is what is left.
SLOW_PLACES = (
    "tests/bench",  # and tests/benchmarks
    "tests/calibration",
    "tests/contributing",
    "tests/examples",
    "tests/export",
    "tests/fuzz",
    "tests/mer/train",
    "tests/runtime/live",
    "tests/scripts",
    "tests/cli/test_export.py",
    "tests/cli/test_pretrain.py",
    "tests/cli/test_train.py",
    "tests/journeys/test_points.py",
    "tests/test_contracts.py",
    "tests/test_sample_clip.py",
)
SLOW_FIXTURES = {"bundle", "calibration", "corpus", "fitted", "lean_python", "proved", "wheel"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    for item in items:
        place = item.path.relative_to(ROOT).as_posix()
        fixtures = set(getattr(item, "fixturenames", ()))
        if place.startswith(SLOW_PLACES) or fixtures & SLOW_FIXTURES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the checkout: stand-in corpus, oracle, YuNet."""
    folder = ROOT.parent / "shared"
    if not (folder / "data" / "ravdess-proxy").is_dir():
        pytest.skip("needs ../shared (stand-in corpus, oracle, YuNet) beside the checkout")
    return folder


@pytest.fixture(scope="session")
def yunet() -> Path:
    """YuNet's ONNX file."""
    from mer_runtime.inputs.face import SHIPPED_YUNET

    return SHIPPED_YUNET


@pytest.fixture(scope="session")
def corpus(shared: Path) -> Path:
    """The stand-in for RAVDESS, in RAVDESS's layout."""
    return shared / "data" / "ravdess-proxy"


@pytest.fixture(scope="session")
def sample_clip() -> Path:
    """The committed sample: about 4.2 s of a face that moves and a voice."""
    return ROOT / "samples" / "portrait.mp4"


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """A photo with one face, (512, 512, 3) RGB uint8: NASA's, from scikit-image's wheel."""
    from skimage import data

    return np.asarray(data.astronaut(), np.uint8)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines and prepared graphs of the tests' bundles stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MER_CACHE", str(tmp_path_factory.mktemp("engines")))
        yield


MakeClip = Callable[..., Path]


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """A function that writes a real media file under ``tmp_path``; see ``write_clip``."""

    def make(name: str = "clip.mp4", **options: Any) -> Path:
        return write_clip(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def without_grammar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH, so that Ray's processes start in time on a busy machine.

    Each imports jsonschema, which compiles a grammar for seconds if it is there; it needn't be.
    """
    folder = tmp_path_factory.mktemp("without")
    (folder / "rfc3987_syntax.py").write_text("raise ImportError")
    return folder


@pytest.fixture(scope="session")
def write_media() -> MakeClip:
    """``write_clip``, for folders that several tests use."""
    return write_clip


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory, portrait: NDArray[np.uint8]) -> Path:
    """A face and a tone, 2 s of 160 x 160: little to decode and to search."""
    path = tmp_path_factory.mktemp("small") / "small.mp4"
    return write_clip(path, size=(160, 160), picture=portrait)


def write_clip(
    path: Path,
    *,
    size: tuple[int, int] = (160, 120),
    fps: int = 30,
    seconds: float = 2.0,
    video: bool = True,
    audio: bool = True,
    times: Sequence[float] | None = None,
    picture: NDArray[np.uint8] | None = None,
    flash_at: float | None = None,
    rotation: int = 0,
    sample_rate: int = 48_000,
    layout: str = "mono",
    waveform: NDArray[np.floating[Any]] | None = None,
    steady: bool = False,
    click_at: float | None = None,
    video_start: float = 0.0,
    audio_start: float = 0.0,
    video_codec: str | None = None,
    audio_codec: str | None = None,
) -> Path:
    """Encode a clip; the suffix of ``path`` chooses container and codecs.

    Every frame carries its number (``read_frame_number``) over grey or ``picture``.

    Args:
        size: width and height in pixels *as shown*, that is, after ``rotation``.
        times: seconds of each frame on the clip's clock (variable frame rate); otherwise
            ``fps`` frames a second from 0 to ``seconds``.
        picture: (H, W, 3) RGB uint8, resized to fill the frame behind the number.
        flash_at: frames shown from this second on are white, earlier ones black.
        rotation: 0, 90, 180 or 270 degrees clockwise that a player has to turn the stored
            picture by, written into the MP4's or MOV's track header.
        waveform: (samples,) or (channels, samples) in [-1, 1] at ``sample_rate``; otherwise a
            440 Hz tone of amplitude 0.5 in all channels, which rises and falls as a voice does.
        steady: that tone doesn't rise and fall, so it is no voice.
        click_at: silence but for a burst of 10 ms from this second on.
        video_start, audio_start: seconds by which a stream begins late.
    """
    default_video, default_audio = CODECS[path.suffix]
    video = video and default_video is not None
    with av.open(str(path), "w") as container:
        # Lists of (seconds, packet): interleaved by time, as players and muxers expect.
        packets: list[tuple[float, Any]] = []
        if video:
            packets += _encode_video(
                container,
                video_codec or default_video or "",
                _stored_frames(size, fps, seconds, times, picture, flash_at, rotation),
                fps,
                video_start,
            )
        if audio:
            if waveform is None:
                ticks = np.arange(round(seconds * sample_rate)) / sample_rate
                waveform = 0.5 * np.sin(2 * np.pi * 440 * ticks)
                if not steady:
                    waveform *= make_syllables(ticks)
                if click_at is not None:
                    burst = (ticks >= click_at) & (ticks < click_at + 0.01)
                    waveform = np.where(burst, np.sin(2 * np.pi * 2000 * ticks), 0.0)
            packets += _encode_audio(
                container,
                audio_codec or default_audio,
                np.atleast_2d(waveform),
                sample_rate,
                layout,
                audio_start,
            )
        for _, packet in sorted(packets, key=lambda item: item[0]):
            container.mux(packet)
    if rotation:
        _rotate_track(path, rotation)
    return path


def make_syllables(ticks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Four syllables a second, from 0 to 1, for times in seconds: what makes a voice of a tone."""
    return np.asarray(0.5 + 0.5 * np.cos(2 * np.pi * 4 * ticks))


@pytest.fixture(scope="session")
def syllables() -> Callable[[NDArray[np.floating[Any]]], NDArray[np.float64]]:
    """``make_syllables``."""
    return make_syllables


def _stored_frames(
    size: tuple[int, int],
    fps: int,
    seconds: float,
    times: Sequence[float] | None,
    picture: NDArray[np.uint8] | None,
    flash_at: float | None,
    rotation: int,
) -> list[tuple[float, NDArray[np.uint8]]]:
    width, height = size
    frames = []
    for number, time in enumerate(
        times if times is not None else np.arange(round(seconds * fps)) / fps
    ):
        if flash_at is not None:
            shown: NDArray[np.uint8] = np.full(
                (height, width, 3), 255 if time >= flash_at else 0, np.uint8
            )
        elif picture is not None:
            shown = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        else:
            shown = np.full((height, width, 3), 128, np.uint8)
        if flash_at is None:
            _write_frame_number(shown, number)
        # Stored so that turning it clockwise by ``rotation`` shows it upright.
        frames.append((float(time), np.ascontiguousarray(np.rot90(shown, rotation // 90))))
    return frames


def _write_frame_number(frame: NDArray[np.uint8], number: int) -> None:
    height, width = frame.shape[:2]
    for bit in range(CODE_BITS):
        left, right = bit * width // CODE_BITS, (bit + 1) * width // CODE_BITS
        on = number >> (CODE_BITS - 1 - bit) & 1
        frame[height * 3 // 4 :, left:right] = 255 if on else 0


@pytest.fixture(scope="session")
def read_frame_number() -> Callable[[NDArray[np.uint8]], int]:
    """Which frame of a clip by ``make_clip`` this (H, W, 3) picture is."""

    def read(frame: NDArray[np.uint8]) -> int:
        height, width = frame.shape[:2]
        strip = frame[height * 7 // 8].mean(axis=-1)
        number = 0
        for bit in range(CODE_BITS):
            number = number << 1 | int(strip[(2 * bit + 1) * width // (2 * CODE_BITS)] > 127)
        return number

    return read


def _encode_video(
    container: Any,
    codec: str,
    frames: list[tuple[float, NDArray[np.uint8]]],
    fps: int,
    start: float,
) -> list[tuple[float, Any]]:
    height, width = frames[0][1].shape[:2]
    stream = container.add_stream(codec, rate=fps)
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv444p" if codec == "libx264" and (width % 2 or height % 2) else "yuv420p"
    # Milliseconds: fine enough for any frame rate here, and what Matroska stores. MPEG-4 in
    # AVI has no clock but its frame rate.
    base = Fraction(1, 1000 if codec not in ("mpeg4", "mpeg2video") else fps)
    stream.codec_context.time_base = base
    if codec == "libx264":
        stream.options = {"crf": "18", "preset": "ultrafast"}
    else:
        stream.bit_rate = 2_000_000
    packets = []
    for time, pixels in frames:
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = round((time + start) / base)
        frame.time_base = base
        packets += stream.encode(frame)
    packets += stream.encode(None)
    return [(float(p.dts * p.time_base), p) for p in packets if p.dts is not None]


def _encode_audio(
    container: Any,
    codec: str,
    waveform: NDArray[np.floating[Any]],
    sample_rate: int,
    layout: str,
    start: float,
) -> list[tuple[float, Any]]:
    stream = container.add_stream(codec, rate=sample_rate, layout=layout)
    if codec == "wmav2":
        stream.bit_rate = 128_000  # it has no default
    channels = stream.codec_context.layout.nb_channels
    samples = np.broadcast_to(waveform, (channels, waveform.shape[1]))
    packets = []
    step = sample_rate  # a second at a time: long arrays overflow some codecs' buffers
    for first in range(0, samples.shape[1], step):
        chunk = np.ascontiguousarray(samples[:, first : first + step], np.float32)
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout=layout)
        frame.sample_rate = sample_rate
        frame.pts = first + round(start * sample_rate)
        frame.time_base = Fraction(1, sample_rate)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    return [(float(p.dts * p.time_base), p) for p in packets if p.dts is not None]


def _rotate_track(path: Path, rotation: int) -> None:
    """Write a clockwise rotation into the first track header (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # past version, times, id, duration, layer, volume
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[rotation]
    for cell, value in ((0, cos), (1, sin), (3, -sin), (4, cos)):
        at = matrix + 4 * cell
        data[at : at + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


@pytest.fixture(scope="session")
def small_model() -> tuple[Any, Any]:
    """(MultimodalNet in eval mode, its Spec): ``ia``, weights from a fixed seed.

    Its batch normalisations hold a random batch's statistics, and its classifier is
    scaled up: logits spread over several units and differ clearly from input to input, so that
    a wrong fold, a lost constant or a swapped channel shows. Standardisation isn't trivial.
    """
    torch = pytest.importorskip("torch")  # scripts/prove_versions.py has Pythons without

    from mer.models import build_model
    from mer_runtime.spec import AudioSpec, Spec, VideoSpec

    spec = Spec(
        audio=AudioSpec(
            mean=tuple(-200.0 if i == 0 else 3.0 * i for i in range(10)),
            std=tuple(120.0 if i == 0 else 25.0 - i for i in range(10)),
        ),
        video=VideoSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        model = build_model(spec)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0  # keep the last batch's statistics
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
        # One clip each of coarse, middling and fine texture, and of plain colour.
        grains = [torch.randn(15, 3, side, side) for side in (4, 16, 96, 1)]
        video = torch.stack([torch.nn.functional.interpolate(g, size=96) for g in grains])
        video += torch.randn(4, 1, 3, 1, 1)
        audio = torch.randn(4, 10, 113) + torch.randn(4, 10, 1)
        model(audio, video)
        model.eval()
        model.classifier_1[0].weight.mul_(2 / model(audio, video).std())
    return model, spec


@pytest.fixture
def write_checkpoint(tmp_path: Path, small_model: tuple[Any, Any]) -> Callable[..., Path]:
    """A function that saves a model and spec (``small_model`` by default) under ``tmp_path``."""
    from mer import save_checkpoint

    def write(
        name: str = "model.safetensors",
        model: Any = None,
        spec: Any = None,
        *,
        half: bool = False,
    ) -> Path:
        path = tmp_path / name
        save_checkpoint(path, model or small_model[0], spec or small_model[1], half=half)
        return path

    return write


@pytest.fixture(scope="session")
def write_cache() -> Callable[..., Path]:
    """A function that writes a small prepared cache; see ``write_learnable_cache``."""
    return write_learnable_cache


def write_learnable_cache(
    path: Path,
    *,
    actors: Sequence[int] = (1, 2, 5, 11),
    without_face: Sequence[str] = (),
    without_voice: Sequence[str] = (),
    faces: NDArray[np.uint8] | None = None,
    voices: Sequence[NDArray[np.floating[Any]]] = (),
) -> Path:
    """Write a cache of clips that were never recorded: one of each emotion for each actor.

    Crops are 3 noisy pictures of 32 x 32 in a colour of the emotion, the voice is a tone of its own
    pitch in noise. Ids are RAVDESS's, repetition 1, statement 1. Of the default actors 1 and 2
    train, 5 tests, 11 validates.

    Args:
        faces: (k, 32, 32, 3), shown in turns instead, whatever the emotion.
        voices: waveforms of a window; one is drawn and heard beside the tone, which ends early.
    """
    from mer.data.index import CLIPS_FOLDER, CacheRow, clip_dtype, clip_path, write_index
    from mer_runtime.spec import RAVDESS_LABELS, Spec, VideoSpec

    spec = Spec(video=VideoSpec(frames=3, size=32))
    colours = [(e & 4, e & 2, e & 1) for e in range(len(RAVDESS_LABELS))]
    (path / CLIPS_FOLDER).mkdir(parents=True)
    rows = []
    for actor in actors:
        for emotion in range(len(RAVDESS_LABELS)):
            name = f"01-01-{emotion + 1:02d}-01-01-01-{actor:02d}"
            generator = np.random.default_rng((actor, emotion))
            record = np.zeros(1, clip_dtype(spec))
            face, voice = name not in without_face, name not in without_voice
            if face:
                plain = np.where(colours[emotion], 200.0, 60.0)
                noise = generator.normal(0, 25, spec.video.shape)
                record["crops"][0] = np.clip(plain + noise, 0, 255)
                if faces is not None:
                    shown = spec.video.frames * len(rows) + np.arange(spec.video.frames)
                    record["crops"][0] = faces[shown % len(faces)]
            if voice:
                ticks = np.arange(spec.audio.samples) / spec.audio.sample_rate
                tone = np.sin(2 * np.pi * 250 * (emotion + 1) * (ticks + generator.random()))
                noise = generator.normal(0, 0.1, len(tone))
                wave = np.clip(tone + noise, -1.5, 1.5)
                if voices:
                    heard = np.roll(
                        voices[generator.integers(len(voices))], generator.integers(999)
                    )
                    wave = np.where(
                        heard, heard / np.abs(heard).max() + 0.3 * tone * (ticks < 2), 0.0
                    )
                record["waveform"][0] = 20_000 * wave
            record["level"] = 1.0
            record["found"] = face
            record["has_face"], record["has_voice"] = face, voice
            np.save(clip_path(path, name), record)
            found = spec.video.frames if face else 0
            rows.append(CacheRow(name, emotion, actor, 1, face, voice, found))
    rows.sort(key=lambda row: row.id)
    detector = {"name": "yunet", "file": "none", "sha256": "0" * 64}
    write_index(path, spec, detector, rows, [])
    return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree, built without isolation and without network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    (built,) = folder.glob("*.whl")
    return built


LeanPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def lean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> LeanPython:
    """A device's Python: our wheel and its base requirements, and nothing else installed.

    ``lean_python(code, *args)`` runs ``code`` with ``sys.argv[1:] == args`` and gives the
    finished process (text, not checked). For a command: ``lean_python("from mer_runtime.cli
    import main; main()", bundle, clip, "--json")``.
    """
    unpacked = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    linked = tmp_path_factory.mktemp("site")
    (info,) = unpacked.glob("*.dist-info")
    wanted = _base_requirements(metadata.PathDistribution(info).requires or [])
    done: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in done:
            continue
        done.add(name)
        distribution = metadata.distribution(name)
        wanted += _base_requirements(distribution.requires or [])
        for entry in {file.parts[0] for file in distribution.files or ()}:
            target = Path(str(distribution.locate_file(entry)))
            if entry not in ("..", "__pycache__") and not (linked / entry).exists():
                (linked / entry).symlink_to(target)
    paths = [str(unpacked), str(linked)]
    cwd = tmp_path_factory.mktemp("lean-cwd")

    def run(code: str, *args: object) -> subprocess.CompletedProcess[str]:
        start = f"import sys; sys.path[:0] = {paths!r}\n"
        # -I -S: neither PYTHONPATH nor any site-packages, the virtual environment's included.
        command = [sys.executable, "-I", "-S", "-c", start + code, *map(str, args)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)

    return run


def _base_requirements(lines: list[str]) -> list[str]:
    """Names required here without any extra."""
    requirements = map(Requirement, lines)
    return [r.name for r in requirements if not r.marker or r.marker.evaluate({"extra": ""})]


@pytest.fixture(scope="session")
def graphs_once() -> Iterator[None]:
    """Exports trace each network once a session: PyTorch takes ten seconds for one.

    What they get is the real graph. Equal weights and sizes share it.
    """
    from onnx import ModelProto

    from mer_export.network import deploy, graphs

    made: dict[str, ModelProto] = {}

    def remember(trace: Callable[[Any], ModelProto]) -> Callable[[Any], ModelProto]:
        def give(checkpoint: Any) -> ModelProto:
            weights = checkpoint.model.state_dict()
            spec: Any = checkpoint.spec
            if trace is deploy.export_encoder:
                own = ("visual_model.conv1d_", "visual_model.classifier_1")
                weights = {
                    name: value
                    for name, value in weights.items()
                    if name.startswith("visual_model.") and not name.startswith(own)
                }
                spec = spec.video
            digest = hashlib.sha256(f"{trace.__name__} {spec}".encode())
            for name in sorted(weights):
                digest.update(name.encode() + weights[name].numpy().tobytes())
            key = digest.hexdigest()
            if key not in made:
                made[key] = trace(checkpoint)
            copy = ModelProto()
            copy.CopyFrom(made[key])
            return copy

        return give

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "export_encoder", remember(deploy.export_encoder))
        patch.setattr(graphs, "export_head", remember(deploy.export_head))
        yield


@pytest.fixture(scope="session")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, small_model: tuple[Any, Any], graphs_once: None
) -> Path:
    """An fp32 ONNX bundle of ``small_model``, without a face detector. Read it, don't edit it."""
    from mer import save_checkpoint
    from mer_export import ExportOptions, export_bundle

    folder = tmp_path_factory.mktemp("bundle")
    save_checkpoint(folder / "model.safetensors", *small_model)
    report = export_bundle(
        folder / "model.safetensors",
        folder / "ia-onnx-fp32",
        ExportOptions(precision="fp32", timing=False),
    )
    return report.bundle


Resign = Callable[..., None]
EditGolden = Callable[..., None]


@pytest.fixture(scope="session")
def resign() -> Resign:
    """A function that changes a bundle's manifest, where asked to, and signs the bundle anew."""
    from mer_runtime.bundle import write_manifest

    def sign(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda manifest: None) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        write_manifest(folder, manifest)

    return sign


@pytest.fixture(scope="session")
def edit_golden(resign: Resign) -> EditGolden:
    """A function that sets arrays of a bundle's ``golden.npz`` and signs the bundle anew."""

    def edit(folder: Path, **arrays: Any) -> None:
        with np.load(folder / "golden.npz") as data:
            np.savez_compressed(folder / "golden.npz", **(dict(data) | arrays))
        resign(folder)

    return edit


@pytest.fixture(scope="session")
def wrong_bundle(
    tmp_path_factory: pytest.TempPathFactory, bundle: Path, edit_golden: EditGolden
) -> Path:
    """``bundle`` with golden answers that are off by 1. Read it, don't edit it."""
    folder = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("wrong") / bundle.name))
    with np.load(folder / "golden.npz") as data:
        answers = data["answers"] + 1
    edit_golden(folder, answers=answers)
    return folder


@pytest.fixture(scope="session")
def fitted(
    tmp_path_factory: pytest.TempPathFactory, write_cache: Callable[..., Path]
) -> tuple[Path, Path]:
    """(checkpoint, cache): the shipped network on 3 crops of 32 x 32, and clips to prove it on.

    The cache's crops and voices are like the golden inputs: the noise that a calibration predicts
    on plain colours and tones isn't theirs.

    Its classifier is fitted (ridge regression) to the cache's validation clips and the golden
    inputs, so that answers are clear, as a trained model's are: what quantisation adds to a
    logit, some hundredths, changes none of them. It goes by the voice, and answers a face alone
    with the first label: so small, the cache's pictures look too alike to this encoder.
    """
    import torch

    from mer import load_checkpoint, save_checkpoint
    from mer.data.cache import Cache
    from mer.models import Standardiser, build_model
    from mer.weights import shipped_checkpoint
    from mer_export.proof.golden import golden_inputs, sample_clip
    from mer_export.proof.validation import ValidationSet
    from mer_runtime.inputs.media import read_window

    folder = tmp_path_factory.mktemp("fitted")
    shipped = load_checkpoint(shipped_checkpoint())
    video = dataclasses.replace(shipped.spec.video, frames=3, size=32)
    spec = dataclasses.replace(shipped.spec, video=video)
    model: Any = build_model(spec)
    model.load_state_dict(shipped.model.state_dict())
    model.eval()
    golden = golden_inputs(spec)
    spoken = read_window(sample_clip(), spec).waveform
    assert spoken is not None
    fast = np.interp(1.25 * np.arange(len(spoken)), np.arange(len(spoken)), spoken, right=0.0)
    noise = np.random.default_rng(0).normal(0, 0.02, len(spoken))
    voices = [spoken, spoken + noise, (8 * spoken).clip(-1, 1), fast]
    cache = write_cache(folder / "cache", faces=golden.crops, voices=voices)
    clips = ValidationSet(Cache.open(cache), spec)
    silence, black = np.zeros(spec.audio.shape, np.float32), np.zeros(video.shape, np.uint8)
    windows = [
        (voice, black if crops is None else crops)
        for clip in clips
        for voice, crops in ((clip.mfcc, clip.crops), (silence, clip.crops), (clip.mfcc, None))
    ]
    for i in range(len(golden.cases)):
        mfcc, crops = golden.case(i)
        windows.append((silence if mfcc is None else mfcc, black if crops is None else crops))
    labels = [label for t in clips.targets for label in (t, 0, t)] + [0] * len(golden.cases)
    inputs = Standardiser(spec)(
        torch.from_numpy(np.stack([mfcc for mfcc, _ in windows])),
        torch.from_numpy(np.stack([crops for _, crops in windows])),
    )
    read: list[torch.Tensor] = []
    hook = model.classifier_1.register_forward_hook(lambda module, x, y: read.append(x[0]))
    with torch.no_grad():
        model(*inputs)
        hook.remove()
        x = torch.cat((read[0], torch.ones(len(windows), 1)), dim=1).double()
        wanted = 4 * torch.nn.functional.one_hot(torch.tensor(labels), len(spec.labels)).double()
        wanted[-len(golden.cases) :] /= 4  # speech without a tone, which is none of the classes
        ridge = 1.0 * torch.eye(x.shape[1]).double()
        weights = torch.linalg.solve(x.T @ x + ridge, x.T @ wanted).float()
        model.classifier_1[0].weight.copy_(weights[:-1].T)
        model.classifier_1[0].bias.copy_(weights[-1])
    save_checkpoint(folder / "fitted.safetensors", model, spec)
    return folder / "fitted.safetensors", folder / "cache"


@pytest.fixture(scope="session")
def proved(fitted: tuple[Path, Path], graphs_once: None) -> Any:
    """Report of ``fitted``'s int8 ONNX bundle, calibrated and proved on its cache. Read it only."""
    from mer_export import ExportOptions, export_bundle

    checkpoint, cache = fitted
    return export_bundle(
        checkpoint, checkpoint.parent / "int8", ExportOptions(cpu="x86"), calibration=cache
    )


@pytest.fixture(scope="session")
def calibration(fitted: tuple[Path, Path], proved: Any) -> Any:
    """The calibration that ``proved`` comes from."""
    from mer import load_checkpoint
    from mer.data.cache import Cache
    from mer_calibration import Ranges
    from mer_export.calibration import Calibration
    from mer_export.feeds import choose_samples

    checkpoint, cache = fitted
    samples = choose_samples(Cache.open(cache), load_checkpoint(checkpoint).spec)
    return Calibration(Ranges.read(proved.bundle / "ranges.json"), proved.layers, samples)


class Browser:
    """A session of ChromeDriver's."""

    def __init__(self, port: int) -> None:
        self._root = f"http://127.0.0.1:{port}/session"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        wanted = {
            "goog:chromeOptions": {
                "binary": shutil.which("chromium"),
                "args": [*flags, "--window-size=1200,1000"],
            },
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self._id = self._ask("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def open(self, url: str) -> None:
        self._ask(f"/{self._id}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What a function's body returns."""
        return self._ask(f"/{self._id}/execute/sync", {"script": script, "args": []})

    def show(self, width: int, scheme: str) -> None:
        """The window's width and the colours that its user prefers."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 760}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def command(self, name: str, **parameters: Any) -> None:
        """One of Chromium's own (DevTools protocol)."""
        content = {"cmd": name, "params": parameters}
        self._ask(f"/{self._id}/goog/cdp/execute", content)

    def problems(self) -> list[str]:
        """What it wrote on its console."""
        found = self._ask(f"/{self._id}/se/log", {"type": "browser"})
        return [entry["message"] for entry in found]

    def wait_for(self, script: str, wanted: Any, seconds: float = 30.0) -> None:
        deadline = monotonic() + seconds
        while (found := self.run(script)) != wanted:
            assert monotonic() < deadline, f"{script}: {found!r}, not {wanted!r}"
            sleep(0.1)

    @staticmethod
    def luminance(colour: str) -> float:
        """Of ``rgb(r, g, b)``, relative, as WCAG 2 defines it."""
        parts = np.array([int(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(self, one: str, other: str) -> float:
        dark, light = sorted((self.luminance(one), self.luminance(other)))
        return (light + 0.05) / (dark + 0.05)

    def close(self) -> None:
        request = urllib.request.Request(f"{self._root}/{self._id}", method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()

    def _ask(self, path: str, content: dict[str, Any]) -> Any:
        data = json.dumps(content).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._root + path, data, kind)
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)["value"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("needs chromium and chromedriver")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "successfully on port" in line)
        opened = Browser(int(line.rstrip().rstrip(".").rpartition(" ")[2]))
        yield opened
        opened.close()
    finally:
        process.terminate()
        process.wait(20)
