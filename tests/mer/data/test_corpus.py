from collections import Counter
from pathlib import Path

import pytest

from mer.data.corpus import find_recordings, list_corpus
from mer.data.ravdess import parse_name
from mer.errors import CorpusError
from mer_runtime.spec import RAVDESS_LABELS


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_reads_every_field_of_a_file_name(tmp_path: Path) -> None:
    (recording,) = find_recordings(touch(tmp_path, "Actor_12/01-01-06-02-01-02-12.mp4"))

    assert recording.id == "01-01-06-02-01-02-12"
    assert recording.path == tmp_path / "Actor_12/01-01-06-02-01-02-12.mp4"
    assert recording.audio_path is None
    assert recording.actor == 12
    assert RAVDESS_LABELS[recording.emotion] == "fearful"
    assert recording.intensity == 2


@pytest.mark.parametrize(
    ("files", "expected", "voice"),
    [
        (["01", "02", "03"], "01", "03"),
        (["01", "02"], "01", None),
        (["02", "03"], "02", "03"),
        (["02"], "02", None),
        (["01"], "01", None),
        (["03"], "03", None),
    ],
)
def test_lists_an_utterance_once(
    tmp_path: Path, files: list[str], expected: str, voice: str | None
) -> None:
    rest = "-01-03-01-02-01-07"
    names = [f"{m}{rest}.{'wav' if m == '03' else 'mp4'}" for m in files]
    touch(tmp_path, *(f"Actor_07/{name}" for name in names))

    (recording,) = find_recordings(tmp_path)

    assert recording.id == expected + rest
    audio = recording.audio_path
    assert (audio and audio.name) == (f"{voice}{rest}.wav" if voice else None)


def test_joins_the_folders_that_the_archives_unpack_to(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Video_Speech_Actor_01/Actor_01/02-01-05-01-01-01-01.mp4",
        "Audio_Speech_Actors_01-24/Actor_01/03-01-05-01-01-01-01.wav",
        "Audio_Speech_Actors_01-24/Actor_02/03-01-05-01-01-01-02.wav",
    )

    first, second = find_recordings(tmp_path)

    assert first.path.suffix == ".mp4"
    assert first.audio_path is not None
    assert second.path.suffix == ".wav"


def test_the_same_name_in_two_folders_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/01-01-05-01-01-01-01.mp4", "b/01-01-05-01-01-01-01.mp4")

    (recording,) = find_recordings(tmp_path)

    assert recording.path.parent.name == "a"


def test_counts_what_it_passes_over(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Actor_01/01-01-05-01-01-01-01.mp4",
        "Actor_01/01-02-05-01-01-01-01.mp4",  # a song
        "Actor_01/holiday.mp4",
        "Actor_01/._01-01-05-01-01-01-01.mp4",  # what macOS leaves beside a file
        "Actor_01/01-01-05-01-01-01-01.txt",  # not media
        "README.md",
    )

    listing = list_corpus(tmp_path)

    assert [r.id for r in listing.recordings] == ["01-01-05-01-01-01-01"]
    assert listing.passed_over == {"songs": 1, "spoken": 0, "other names": 1}
    assert listing.left_out == {"hidden": 1, "not media": 2}


def test_follows_links_to_folders_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/Actor_03/01-01-05-01-01-01-03.MP4")
    root = tmp_path / "root"
    root.mkdir()
    (root / "Actor_03").symlink_to(tmp_path / "elsewhere/Actor_03")
    (tmp_path / "elsewhere/Actor_03/up").symlink_to(root)

    assert [r.actor for r in find_recordings(root)] == [3]


def test_sorts_by_id(tmp_path: Path) -> None:
    names = ["z/01-01-01-01-01-01-02.mp4", "y/01-01-08-01-01-01-01.mp4", "03-01-02-01-01-01-01.wav"]
    ids = [r.id for r in find_recordings(touch(tmp_path, *names))]

    assert ids == ["01-01-01-01-01-01-02", "01-01-08-01-01-01-01", "03-01-02-01-01-01-01"]


@pytest.mark.parametrize(
    "stem",
    [
        "01-01-09-01-01-01-01",  # no such emotion
        "01-01-00-01-01-01-01",
        "04-01-01-01-01-01-01",  # modality
        "01-03-01-01-01-01-01",  # vocal channel
        "01-01-01-03-01-01-01",  # intensity
        "01-01-01-01-01-01-00",  # actor
        "01-01-01-01-01-01",
        "01-01-01-01-01-01-01-02",
        "1-1-1-1-1-1-1",
        "01-01-01-01-01-01-01_crop",
    ],
)
def test_a_name_out_of_range_is_foreign(stem: str) -> None:
    assert parse_name(stem) is None


def test_an_empty_folder_says_what_is_expected(tmp_path: Path) -> None:
    touch(tmp_path, "holiday.mp4", "01-02-05-01-01-01-01.mp4")

    with pytest.raises(CorpusError, match=r"1 songs, 1 media files .* Actor_NN/MM-VC-EM"):
        find_recordings(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is not a folder"):
        find_recordings(tmp_path / "absent")


@pytest.mark.corpus
def test_lists_the_stand_in(corpus: Path) -> None:
    recordings = find_recordings(corpus)

    assert len(recordings) == 22 * 60
    assert {r.actor for r in recordings} == set(range(1, 23))
    # RAVDESS: 4 neutral utterances an actor, 8 of every other emotion.
    counts = Counter(RAVDESS_LABELS[r.emotion] for r in recordings)
    assert counts == {name: 22 * (4 if name == "neutral" else 8) for name in RAVDESS_LABELS}


@pytest.mark.corpus
def test_lists_real_ravdess_files(shared: Path) -> None:
    by_id = {r.id: r for r in find_recordings(shared / "data" / "ravdess-real")}

    assert sorted(by_id) == [
        "01-01-07-02-02-01-01",
        "02-01-08-02-01-01-19",
        "03-01-02-01-01-02-01",
        "03-01-03-01-02-01-20",
    ]
    silent = by_id["02-01-08-02-01-01-19"]
    assert silent.audio_path is not None
    assert silent.audio_path.name == "03-01-08-02-01-01-19.wav"


class TestSongs:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return touch(
            tmp_path,
            "01-01-03-01-01-01-01.mp4",
            "01-02-03-01-01-01-01.mp4",
            "03-02-05-01-01-01-01.wav",
            "01-02-07-01-01-01-01.mp4",  # nobody sings disgusted
        )

    @pytest.mark.parametrize(
        ("vocal", "ids", "classes"),
        [
            (None, ["01-01-03-01-01-01-01"], 8),
            ("speech", ["01-01-03-01-01-01-01"], 8),
            ("song", ["01-02-03-01-01-01-01", "03-02-05-01-01-01-01"], 6),
            (
                "both",
                ["01-01-03-01-01-01-01", "01-02-03-01-01-01-01", "03-02-05-01-01-01-01"],
                8,
            ),
        ],
    )
    def test_vocal(self, root: Path, vocal: str, ids: list[str], classes: int) -> None:
        listing = list_corpus(root, vocal=vocal)
        assert [one.id for one in listing.recordings] == ids
        assert listing.labels == RAVDESS_LABELS[:classes]
        assert listing.passed_over["other names"] == 1

    def test_no_such(self, root: Path) -> None:
        with pytest.raises(CorpusError, match="no vocal 'opera': take speech, song, both"):
            list_corpus(root, vocal="opera")


class TestCremaD:
    def test_names(self, tmp_path: Path) -> None:
        touch(
            tmp_path,
            "VideoFlash/1001_DFA_ANG_XX.flv",
            "AudioWAV/1001_DFA_ANG_XX.wav",
            "AudioWAV/1002_IEO_NEU_XX.wav",
            "AudioWAV/1003_IEO_HAP_HI.wav",
            "AudioWAV/1003_IEO_JOY_HI.wav",
        )
        listing = list_corpus(tmp_path)
        assert listing.labels == ("neutral", "happy", "sad", "angry", "fearful", "disgust")
        first, second, third = listing.recordings
        assert (first.id, first.actor, first.emotion) == ("1001_DFA_ANG_XX", 1001, 3)
        assert first.path.suffix == ".flv"
        assert first.audio_path is not None
        assert (second.path.suffix, second.audio_path) == (".wav", None)
        assert (third.intensity, second.intensity) == (2, 1)
        assert {one.split for one in listing.recordings} == {"train", "validation", "test"}
        assert listing.passed_over == {"other names": 1}

    def test_speech_and_song_are_ravdess_s(self, tmp_path: Path) -> None:
        touch(tmp_path, "1001_DFA_ANG_XX.wav")
        with pytest.raises(CorpusError, match=r"in RAVDESS alone, and .* is named as CREMA-D"):
            list_corpus(tmp_path, vocal="both")

    def test_two_corpora(self, tmp_path: Path) -> None:
        touch(tmp_path, "1001_DFA_ANG_XX.wav", "03-01-05-01-01-01-01.wav")
        with pytest.raises(CorpusError, match="1 recordings named as RAVDESS's and 1 named as"):
            list_corpus(tmp_path)
