import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from mer.cli.prepare import main
from mer.data.cache import Cache
from mer.data.index import clip_path
from mer.data.preparation import prepare_cache
from mer.errors import CacheError
from mer_runtime.errors import OutputError
from mer_runtime.inputs.media import read_window
from mer_runtime.spec import AudioSpec, Spec, VideoSpec

IDS = [f"01-01-{emotion:02}-01-01-01-05" for emotion in range(1, 5)]


@pytest.fixture(autouse=True)
def _haar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MER_FACE_DETECTOR", raising=False)


@pytest.fixture
def root(tmp_path: Path, make_clip: Callable[..., Path], portrait: NDArray[np.uint8]) -> Path:
    """Four clips of a second, all the same, with a face and a tone."""
    folder = tmp_path / "corpus" / "Actor_05"
    folder.mkdir(parents=True)
    clip = make_clip("made.mp4", picture=portrait, size=(320, 320), seconds=1.0, fps=10)
    for clip_id in IDS:
        shutil.copy(clip, folder / f"{clip_id}.mp4")
    clip.unlink()
    return folder.parent


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def source(root: Path, number: int) -> Path:
    return root / "Actor_05" / f"{IDS[number]}.mp4"


def stamps(out: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (out / "clips").iterdir()}


def test_help_teaches() -> None:
    result = run("--help")

    assert result.exit_code == 0
    for part in ("Actor_NN/MM-VC-EM-IN-ST-RE-AC", "2.4 MB a clip", "mer-prepare RAVDESS --out"):
        assert part in " ".join(result.stdout.split())  # wrapped to the terminal's width


def test_prepares_a_corpus(root: Path, out: Path, yunet: Path) -> None:
    (root / "holiday.mp4").touch()
    result = run(root, "--out", out)

    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert f"4 clips in {out} (0 were there), 0 failed, 9 MB" in result.stdout
    assert "with a face: 4 (yunet; detected in 100.0 % of their frames); with a voice: 4" in (
        result.stdout
    )
    assert "passed over: 1 other names" in result.stdout
    cache = Cache.open(out)
    assert [row.id for row in cache.rows] == IDS
    assert cache.detector["file"] == yunet.name


def test_json_is_one_object(root: Path, out: Path) -> None:
    source(root, 1).write_bytes(b"")
    result = run(root, "--out", out, "--jobs", 1, "--json")

    data = json.loads(result.stdout)
    assert result.exit_code == 0
    assert data["cache"] == str(out)
    assert (data["clips"], data["reused"], data["with_face"], data["with_voice"]) == (3, 0, 3, 3)
    assert data["faces_found"] == 1.0
    assert data["detector"]["name"] == "yunet"
    assert data["failures"] == [
        {"id": IDS[1], "error": f"{source(root, 1)}: the file is empty"},
    ]
    assert data["size"] == sum(f.stat().st_size for f in out.rglob("*") if f.is_file())


def test_failures_are_listed_and_the_rest_goes_on(
    root: Path, out: Path, make_clip: Callable[..., Path]
) -> None:
    source(root, 0).write_text("not a film")
    faceless = make_clip("blank.mp4", audio=False)
    shutil.move(faceless, source(root, 2))
    result = run(root, "--out", out)

    assert result.exit_code == 0
    assert "2 clips" in result.stdout
    assert "2 failed" in result.stdout
    assert f"left out {IDS[0]}: {source(root, 0)}: not a media file" in result.stderr
    assert f"left out {IDS[2]}: {source(root, 2)}: no face was found and" in result.stderr
    cache = Cache.open(out)
    assert [row.id for row in cache.rows] == [IDS[1], IDS[3]]
    assert [failure["id"] for failure in cache.failures] == [IDS[0], IDS[2]]


def test_a_repaired_recording_is_tried_again(root: Path, out: Path) -> None:
    good = source(root, 0).read_bytes()
    source(root, 0).write_bytes(good[: len(good) // 10])
    assert "3 clips" in run(root, "--out", out, "--jobs", 1).stdout

    source(root, 0).write_bytes(good)

    assert "4 clips" in run(root, "--out", out, "--jobs", 1).stdout
    assert Cache.open(out).failures == []


def test_nothing_usable_exits_with_1(root: Path, out: Path) -> None:
    for number in range(4):
        source(root, number).write_bytes(b"")
    result = run(root, "--out", out)

    assert result.exit_code == 1
    assert "Error: none of the 4 recordings" in result.stderr
    assert result.stderr.count("left out") == 4
    with pytest.raises(CacheError, match="isn't finished"):
        Cache.open(out)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--out", "{out}"], 2, "Missing argument 'FOLDER|TABLE.csv'"),
        (["{root}"], 2, "Missing option '--out'"),
        (["{root}", "--out", "{out}", "--jobs", "0"], 2, "'--jobs'"),
        (["{root}/absent", "--out", "{out}"], 1, "is not a folder"),
        (["{empty}", "--out", "{out}"], 1, "holds no spoken recording"),
        (["{root}", "--out", "{out}", "--face-detector", "{root}/x"], 1, "no such face detector"),
        (["{root}", "--out", "{out}", "--sample-rate", "1"], 1, "8000 to 192000"),
        (["{root}", "--out", "{file}"], 1, "it is a file"),
        (["{root}", "--out", "{file}/cache"], 1, "can't write"),
        (["{root}", "--out", "{root}"], 1, "holds other files and no cache.json"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    root: Path, out: Path, tmp_path: Path, args: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    names = {"root": root, "out": out, "empty": tmp_path / "empty", "file": tmp_path / "file"}
    result = run(*(arg.format(**names) for arg in args))

    assert result.exit_code == code
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    assert message in error
    assert "Traceback" not in result.output
    assert not out.exists()
    assert sorted(path.name for path in root.iterdir()) == ["Actor_05"]


@pytest.mark.slow
def test_two_processes_make_what_one_makes(root: Path, tmp_path: Path) -> None:
    seen = []
    prepare_cache(root, tmp_path / "one", jobs=1)
    prepare_cache(
        root, tmp_path / "two", jobs=2, progress=lambda done, total: seen.append((done, total))
    )

    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    one, two = Cache.open(tmp_path / "one"), Cache.open(tmp_path / "two")
    assert one.rows == two.rows
    for i in range(4):
        np.testing.assert_array_equal(one.crops(i), two.crops(i))
        np.testing.assert_array_equal(one.waveform(i), two.waveform(i))


@pytest.mark.slow
def test_a_script_without_a_main_guard(root: Path, tmp_path: Path) -> None:
    """Processes don't run their starter's script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import mer\nfrom pathlib import Path\nprint('begun')\n"
        f"root, out = Path({str(root)!r}), Path({str(tmp_path / 'cache')!r})\n"
        "print(mer.prepare_cache(root, out, jobs=2).clips)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.stdout == "begun\n4\n", done.stderr


def test_a_finished_clip_is_not_decoded_again(root: Path, out: Path) -> None:
    prepare_cache(root, out, jobs=1)
    before = stamps(out)
    for number in range(4):  # of the same size, but there is nothing in it to decode
        source(root, number).write_bytes(bytes(source(root, number).stat().st_size))

    summary = prepare_cache(root, out, jobs=1)

    assert (summary.clips, summary.reused, summary.failures) == (4, 4, ())
    assert stamps(out) == before


def test_half_written_and_outdated_clips_are_made_again(
    root: Path, out: Path, make_clip: Callable[..., Path]
) -> None:
    prepare_cache(root, out, jobs=1)
    before = stamps(out)
    crops = Cache.open(out).crops(0).copy()
    damaged = clip_path(out, IDS[0])
    damaged.write_bytes(damaged.read_bytes()[:100_000])
    (out / "clips" / f".{IDS[1]}.1.part.npy").write_bytes(b"half")
    shutil.move(make_clip("changed.mp4"), source(root, 2))  # a blank clip now

    summary = prepare_cache(root, out, jobs=1)

    assert summary.reused == 2
    after = stamps(out)
    assert set(after) == set(IDS)
    assert [after[i] != before[i] for i in IDS] == [True, False, True, False]
    cache = Cache.open(out)
    np.testing.assert_array_equal(cache.crops(0), crops)
    assert not cache.rows[2].has_face


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_preparation_goes_on(root: Path, out: Path, jobs: int) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_cache(root, out, jobs=jobs, progress=interrupt)

    with pytest.raises(CacheError, match="isn't finished"):
        Cache.open(out)
    assert not list(out.rglob("*.part*"))
    before = stamps(out)
    assert before
    summary = prepare_cache(root, out, jobs=jobs)
    assert summary.reused == len(before)
    assert len(Cache.open(out)) == 4
    assert before.items() <= stamps(out).items()


@pytest.mark.slow
def test_ctrl_c_leaves_a_cache_that_resumes(sample_clip: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "corpus", tmp_path / "cache"
    root.mkdir()
    for actor in range(1, 61):
        (root / f"01-01-03-01-01-01-{actor:02}.mp4").symlink_to(sample_clip)
    command = [sys.executable, "-m", "mer.cli.prepare", str(root), "--out", str(out)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and len(list(out.glob("clips/*.npy"))) < 2:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and workers
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "Error: interrupted; the same command goes on from here" in errors
    assert "Traceback" not in errors
    made = stamps(out)
    assert 2 <= len(made) < 60
    with pytest.raises(CacheError, match="isn't finished"):
        Cache.open(out)
    for path in sorted(root.iterdir())[len(made) + 10 :]:  # spare the test their decoding
        if path.stem not in made:
            path.unlink()
    summary = prepare_cache(root, out, jobs=1)
    assert summary.reused == len(made)
    assert len(Cache.open(out)) == summary.clips > len(made)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (Spec(audio=AudioSpec(sample_rate=22_050)), "audio.sample_rate is 16000, not 22050"),
        (Spec(video=VideoSpec(margin=0.3)), "video.margin is 0.0, not 0.3"),
    ],
)
def test_another_spec_needs_another_folder(root: Path, out: Path, spec: Spec, named: str) -> None:
    prepare_cache(root, out, jobs=1)
    index = (out / "cache.json").read_bytes()

    with pytest.raises(CacheError, match=named):
        prepare_cache(root, out, spec=spec, jobs=1)

    assert (out / "cache.json").read_bytes() == index
    # What only matters on reading is no other preparation.
    same = Spec(audio=AudioSpec(n_mfcc=40), video=VideoSpec(colour="bgr"))
    assert prepare_cache(root, out, spec=same, jobs=1).reused == 4


def test_another_corpus_needs_another_folder(root: Path, out: Path) -> None:
    prepare_cache(root, out, jobs=1)
    source(root, 3).rename(source(root, 3).with_name("01-01-08-01-01-01-06.mp4"))

    with pytest.raises(CacheError, match=f"holds 1 clips of another corpus, such as {IDS[3]}"):
        prepare_cache(root, out, jobs=1)


def test_a_full_disk_is_noticed_before_the_work(
    root: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))

    with pytest.raises(OutputError, match=r"0\.0 GB are needed, 0\.0 GB are free"):
        prepare_cache(root, out, jobs=1)

    assert not list(out.rglob("*.npy"))


@pytest.mark.slow
@pytest.mark.corpus
def test_prepares_real_ravdess_files_with_yunet(
    shared: Path, yunet: Path, out: Path, tmp_path: Path
) -> None:
    """Two real videos (one silent, its voice in a wav) and two voices alone."""
    result = run(shared / "data" / "ravdess-real", "--out", out, "--face-detector", yunet, "--json")

    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["clips"], data["with_face"], data["with_voice"]) == (4, 2, 4)
    assert data["faces_found"] == 1.0
    assert data["detector"]["sha256"].startswith("8f2383e4")
    with pytest.raises(CacheError, match=r"video\.detector is yunet, not haar"):
        prepare_cache(shared / "data" / "ravdess-real", out, face_detector=Path("haar"), jobs=1)
    cache = Cache.open(out)
    voice = shared / "data" / "ravdess-real" / "03-01-08-02-01-01-19.wav"
    expected = read_window(voice, Spec()).waveform
    assert expected is not None
    row = [row.id for row in cache.rows].index("02-01-08-02-01-01-19")
    stored = cache.waveform(row) / 32_767 * np.abs(expected).max()
    np.testing.assert_allclose(stored, expected, atol=2e-5)  # half of int16's step


def test_an_edited_detector_is_another_detector(root: Path, out: Path, yunet: Path) -> None:
    prepare_cache(root, out, face_detector=yunet, jobs=1)
    edited = yunet.read_bytes() + b"\x10\x07"  # field 2 of ONNX's protobuf: still loads
    other = out.parent / "other.onnx"
    other.write_bytes(edited)

    with pytest.raises(CacheError, match=r"the face detector is face_detection_yunet.*other\.onnx"):
        prepare_cache(root, out, face_detector=other, jobs=1)
