import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mer.data.cache import Cache
from mer.data.index import INT16_SCALE, clip_path, read_clip
from mer.data.preparation import prepare_cache
from mer.errors import CacheError, CorpusError
from mer_runtime.inputs.face import HaarDetector, YuNetDetector
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.inputs.window_faces import crop_faces
from mer_runtime.spec import AudioSpec, Spec, VideoSpec

SPEC = Spec(video=VideoSpec(detector="haar"))


def prepare_with_haar(root: Path, out: Path) -> None:
    prepare_cache(root, out, face_detector=Path("haar"), jobs=1)


@pytest.fixture(scope="module")
def prepared(sample_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of actors 1, 5 and 11, two clips each, all of them the sample clip."""
    root = tmp_path_factory.mktemp("corpus")
    for actor in (1, 5, 11):
        for emotion in (3, 8):
            (root / f"01-01-{emotion:02}-02-01-01-{actor:02}.mp4").symlink_to(sample_clip)
    out = tmp_path_factory.mktemp("cache") / "c"
    prepare_with_haar(root, out)
    return out


@pytest.fixture
def cache(prepared: Path) -> Cache:
    return Cache.open(prepared)


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    """The same cache, to be broken."""
    return Path(shutil.copytree(prepared, tmp_path / "c"))


def test_rows_say_what_the_corpus_says(cache: Cache) -> None:
    ids = [f"01-01-{e}-02-01-01-{a}" for e in ("03", "08") for a in ("01", "05", "11")]
    assert [row.id for row in cache.rows] == ids
    assert [row.emotion for row in cache.rows] == [2, 2, 2, 7, 7, 7]
    assert [row.actor for row in cache.rows] == [1, 5, 11, 1, 5, 11]
    assert {row.intensity for row in cache.rows} == {2}
    assert len(cache) == 6
    # Older than splits and classes of one's own: what was logged stays what it was.
    assert cache.digest == hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()


def test_selects_rows_by_actor(cache: Cache) -> None:
    assert cache.select("train") == [0, 3]
    assert cache.select("test") == [1, 4]
    assert cache.select("validation") == [2, 5]
    assert cache.select("all") == [0, 1, 2, 3, 4, 5]
    assert cache.select("test", fold=5) == [0, 3]  # fold 5 tests on actors 1, 4, 9, 22
    with pytest.raises(CorpusError, match="no actor"):
        cache.select("test", fold=4)


def test_crops_are_the_device_s(cache: Cache, sample_clip: Path) -> None:
    frames = read_window(sample_clip, SPEC).frames
    assert frames is not None
    faces = crop_faces(frames, SPEC.video, HaarDetector())
    assert faces is not None

    crops = cache.crops(0)

    assert crops.shape == (15, 224, 224, 3)
    np.testing.assert_array_equal(crops, faces.crops)
    np.testing.assert_array_equal(cache.found(0), faces.found)
    assert cache.rows[0].faces_found == faces.found.sum() > 0
    np.testing.assert_array_equal(cache.crops(0, colour="bgr"), faces.crops[..., ::-1])


def test_crops_are_mapped_and_can_be_written_to_without_harm(cache: Cache) -> None:
    before = cache.crops(0).copy()
    crops = cache.crops(0)
    base: Any = crops
    while not isinstance(base, np.memmap):
        base = base.base  # None, and so an error, if the crops were read into memory

    crops[:] = 0

    np.testing.assert_array_equal(cache.crops(0), before)


@pytest.mark.parametrize("amplitude", ["peak", "none"])
def test_mfccs_are_the_device_s(cache: Cache, sample_clip: Path, amplitude: Any) -> None:
    spec = AudioSpec(n_mfcc=13, amplitude=amplitude)
    waveform = read_window(sample_clip, SPEC).waveform
    assert waveform is not None

    mfcc = cache.mfcc(0, spec)

    assert mfcc.shape == spec.shape
    # int16 rounding: 0.22 was the most in 25 clips of the stand-in, MFCCs reaching hundreds.
    np.testing.assert_allclose(mfcc, compute_mfcc(waveform, spec), atol=0.5)


@pytest.mark.parametrize("amplitude", [1.0, 0.003])
def test_a_quiet_voice_is_kept_as_well_as_a_loud_one(
    make_clip: Callable[..., Path],
    tmp_path: Path,
    amplitude: float,
    syllables: Callable[..., NDArray[np.float64]],
) -> None:
    generator = np.random.default_rng(3)
    breath = 0.02 * generator.standard_normal(16_000 * 4)
    breath[::128] += 1  # and the vocal cords: 125 Hz
    # Falls by 60 dB from the first octave to the last, as speech does.
    spectrum = np.fft.rfft(breath) / (1 + np.arange(32_001) / 500) ** 1.5
    voice = np.fft.irfft(spectrum) * syllables(np.arange(64_000) / 16_000)
    voice *= amplitude / np.abs(voice).max()
    make_clip(
        "03-01-03-01-01-01-05.wav", waveform=voice, sample_rate=16_000, audio_codec="pcm_f32le"
    )
    prepare_with_haar(tmp_path, tmp_path / "cache")
    cache = Cache.open(tmp_path / "cache")

    waveform = cache.waveform(0)
    spec = AudioSpec(amplitude="none")

    assert np.abs(waveform.astype(int)).max() == INT16_SCALE - 1
    heard = read_window(tmp_path / "03-01-03-01-01-01-05.wav", Spec()).waveform
    assert heard is not None
    np.testing.assert_allclose(cache.mfcc(0, spec), compute_mfcc(heard, spec), atol=0.5)


def test_waveforms_are_mapped_once_and_stay_as_they_are(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Cache.open(cache.path)
    first = again.mfcc(0, SPEC.audio)
    monkeypatch.setattr("mer.data.cache.read_clip", lambda *args: pytest.fail("opens it again"))
    assert np.array_equal(again.mfcc(0, SPEC.audio), first)
    with pytest.raises(ValueError, match="read-only"):
        again.waveform(0)[:] = 0


def test_mfccs_of_a_changed_waveform(cache: Cache) -> None:
    spec = cache.spec.audio
    waveform = cache.waveform(0)
    as_float = waveform.astype(np.float32) / INT16_SCALE

    same = cache.mfcc(0, spec, waveform=as_float)
    reversed_ = cache.mfcc(0, spec, waveform=waveform[::-1])

    np.testing.assert_allclose(same, cache.mfcc(0, spec), atol=1e-3)  # float32 rounding
    assert np.abs(reversed_ - same).max() > 10


def test_mfccs_at_another_rate_need_another_cache(cache: Cache) -> None:
    with pytest.raises(CacheError, match=r"at 16000 Hz, not .* at 22050 Hz"):
        cache.mfcc(0, AudioSpec(sample_rate=22_050))


def test_a_missing_modality_is_zeros(
    make_clip: Callable[..., Path], portrait: NDArray[np.uint8], tmp_path: Path
) -> None:
    # Without a face; without sound; sound alone.
    make_clip("01-01-01-01-01-01-01.mp4")
    make_clip("02-01-03-01-01-01-01.mp4", picture=portrait, size=(320, 320), audio=False)
    make_clip("03-01-05-01-01-01-01.wav")
    prepare_with_haar(tmp_path, tmp_path / "cache")
    cache = Cache.open(tmp_path / "cache")
    spec = AudioSpec(n_mfcc=20)

    assert [(row.has_face, row.has_voice) for row in cache.rows] == [
        (False, True),
        (True, False),
        (False, True),
    ]
    assert [row.faces_found > 0 for row in cache.rows] == [False, True, False]
    for i, row in enumerate(cache.rows):
        assert cache.crops(i).any() == row.has_face
        assert cache.waveform(i).any() == row.has_voice
        assert cache.mfcc(i, spec).any() == row.has_voice
        assert cache.crops(i).shape == (15, 224, 224, 3)
        assert cache.waveform(i).shape == (57_600,)
        assert cache.mfcc(i, spec).shape == spec.shape


def test_requires_what_the_crops_and_waveforms_depend_on(cache: Cache) -> None:
    fine = replace(
        SPEC,
        audio=AudioSpec(n_mfcc=40, n_fft=1024, amplitude="none"),
        video=replace(SPEC.video, colour="bgr", mean=(0.5, 0.5, 0.5)),
        fusion="lt",
    )
    cache.require(fine)


@pytest.mark.parametrize(
    ("audio", "video", "named"),
    [
        ({"sample_rate": 22_050}, {}, "audio.sample_rate is 16000, not 22050"),
        ({"window": 3.0}, {"window": 3.0}, "window is 3.6, not 3.0"),
        ({}, {"frames": 10}, "video.frames is 15, not 10"),
        ({}, {"size": 256}, "video.size is 224, not 256"),
        ({}, {"margin": 0.25}, "video.margin is 0.0, not 0.25"),
        ({}, {"detector": "yunet"}, "video.detector is haar, not yunet"),
    ],
)
def test_refuses_a_model_prepared_for_otherwise(
    cache: Cache, audio: dict[str, Any], video: dict[str, Any], named: str
) -> None:
    spec = replace(SPEC, audio=AudioSpec(**audio), video=replace(SPEC.video, **video))

    with pytest.raises(CacheError, match=named):
        cache.require(spec)


def edit_index(path: Path, **changes: Any) -> None:
    file = path / "cache.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_opening_says_what_is_wrong(copied: Path, tmp_path: Path) -> None:
    index = json.loads((copied / "cache.json").read_text())

    def expect(message: str, path: Path = copied) -> None:
        with pytest.raises(CacheError, match=message):
            Cache.open(path)
        edit_index(copied, **index)

    expect("no cache.json, so it is no cache: make one with mer-prepare", tmp_path / "absent")
    expect("no cache.json", tmp_path)
    edit_index(copied, complete=False)
    expect("isn't finished: run mer-prepare .* goes on where it stopped")
    edit_index(copied, format=2)
    expect("has format 2, this mer-edge reads 1")
    edit_index(copied, rows=index["rows"][1:])
    expect("its clips don't match its digest")
    edit_index(copied, rows=[{"id": "x"}])
    expect("is damaged")
    edit_index(copied, spec={"audio": {"sample_rate": 1}})
    expect("is damaged .*sample_rate")
    clip_path(copied, index["rows"][2]["id"]).unlink()
    expect("lacks 1 of its 6 clips, such as 01-01-03-02-01-01-11")
    (copied / "cache.json").write_text("{")
    with pytest.raises(CacheError, match="can't be read"):
        Cache.open(copied)
    (copied / "cache.json").write_text("[]")
    with pytest.raises(CacheError, match="is not the index of a cache"):
        Cache.open(copied)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None])
def test_reading_a_damaged_clip_is_an_error(copied: Path, content: bytes | None) -> None:
    cache = Cache.open(copied)
    path = clip_path(copied, cache.rows[0].id)
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)

    with pytest.raises(CacheError, match="is missing or damaged: run mer-prepare again"):
        cache.crops(0)


def test_reading_another_array_is_an_error(copied: Path) -> None:
    cache = Cache.open(copied)
    np.save(clip_path(copied, cache.rows[0].id), np.zeros(3))

    with pytest.raises(CacheError, match="is not a clip of this cache"):
        cache.waveform(0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "../../elsewhere"),
        ("id", "a" * 1000),
        ("id", "a\0b"),
        ("id", 7),
        ("emotion", 8),
        ("emotion", -1),
        ("emotion", 1.0),
        ("emotion", True),
        ("actor", "1"),
        ("has_face", 1),
        ("faces_found", 10**9),
    ],
)
def test_index_that_was_edited(copied: Path, name: str, value: Any) -> None:
    rows = json.loads((copied / "cache.json").read_text())["rows"]
    rows[0][name] = value
    digest = hashlib.sha256("".join(f"{row['id']}\n" for row in rows).encode())
    edit_index(copied, rows=rows, digest=digest.hexdigest())
    with pytest.raises(CacheError, match=r"cache\.json is damaged") as caught:
        Cache.open(copied)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ['"\\ud800"', "[" * 5000 + "]" * 5000, "9" * 5000])
def test_index_that_no_program_writes(copied: Path, text: str) -> None:
    (copied / "cache.json").write_text(f'{{"format": 1, "complete": {text}}}')
    with pytest.raises(CacheError, match="can't be read"):
        Cache.open(copied)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_cache_name_that_is_none(name: str) -> None:
    with pytest.raises(CacheError, match=r"so it is no cache|can't be read"):
        Cache.open(name)


def test_any_damage_to_a_clip_is_one_kind_of_error(copied: Path) -> None:
    cache = Cache.open(copied)
    path = clip_path(copied, cache.rows[0].id)
    whole = path.read_bytes()
    told = 0
    for i in range(150):  # the header's bytes
        flipped = whole[:i] + bytes([whole[i] ^ 0x29]) + whole[i + 1 :]
        for content in (whole[:i], flipped, b"PK\x03\x04" + whole[4:]):
            path.write_bytes(content)
            try:
                read_clip(path, cache.spec)
            except CacheError:
                told += 1
    assert told > 300


@pytest.mark.parametrize("level", [np.nan, np.inf, -1])
def test_level_that_is_none(copied: Path, level: float) -> None:
    cache = Cache.open(copied)
    row = next(i for i, one in enumerate(cache.rows) if one.has_voice)
    path = clip_path(copied, cache.rows[row].id)
    record = np.load(path)
    record["level"] = level
    np.save(path, record)
    with pytest.raises(CacheError, match="is damaged"):
        cache.mfcc(row, cache.spec.audio)


@pytest.mark.corpus
def test_the_stand_in_gives_the_device_s_inputs(corpus: Path, yunet: Path, tmp_path: Path) -> None:
    """Clips of the stand-in for RAVDESS, through the cache and directly."""
    root = tmp_path / "corpus"
    root.mkdir()
    for path in sorted(corpus.glob("Actor_0[1-3]/01-01-0[25]-01-01-01-*.mp4")):
        (root / path.name).symlink_to(path)
    prepare_cache(root, tmp_path / "cache", face_detector=yunet, jobs=1)
    cache = Cache.open(tmp_path / "cache")
    spec, detector = Spec(), YuNetDetector(yunet)
    cache.require(spec)

    assert len(cache) == 6
    for i, row in enumerate(cache.rows):
        clip = read_window(root / f"{row.id}.mp4", spec)
        assert clip.frames is not None
        assert clip.waveform is not None
        faces = crop_faces(clip.frames, spec.video, detector)
        assert faces is not None
        np.testing.assert_array_equal(cache.crops(i), faces.crops)
        expected = compute_mfcc(clip.waveform, spec.audio)
        np.testing.assert_allclose(cache.mfcc(i, spec.audio), expected, atol=0.5)
