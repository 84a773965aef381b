"""One's own clips: the table of right answers, and scores by the device's path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mer.errors import CorpusError
from mer.evaluate.own_clips import count_unlisted, evaluate_folder, read_table
from mer_runtime import Recognizer
from mer_runtime.errors import MissingModalityError
from mer_runtime.spec import RAVDESS_LABELS

Write = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def folder(make_clip: Write, portrait: np.ndarray, tmp_path: Path) -> Path:
    """A face with a voice, a voice alone, and what isn't a clip."""
    clips = tmp_path / "clips"
    (clips / "more").mkdir(parents=True)
    face = make_clip("face.mp4", picture=portrait, size=(320, 320), seconds=4)
    face.rename(clips / "face.mp4")
    make_clip("voice.wav").rename(clips / "more" / "voice.wav")
    (clips / "broken.mp4").write_text("not a clip")
    return clips


def write_table(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    table = folder / "labels.csv"
    table.write_text(text, encoding=encoding)
    return table


def test_table_is_read(folder: Path) -> None:
    text = "speaker,label,file\r\nA, Happy ,face.mp4\r\n\r\nB,sad,more/voice.wav\r\n"
    for encoding in ("utf-8", "utf-8-sig"):  # spreadsheets write the second
        table = write_table(folder, text, encoding=encoding)
        clips = read_table(table, folder, RAVDESS_LABELS)
        assert [(clip.file, clip.target) for clip in clips] == [
            ("face.mp4", RAVDESS_LABELS.index("happy")),
            ("more/voice.wav", RAVDESS_LABELS.index("sad")),
        ]
    assert count_unlisted(folder, clips) == 1  # broken.mp4; the table is no medium


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a line that names its columns, file,label"),
        ("face.mp4,happy\n", "must begin with a line"),
        ("file,label\n", "names no clip"),
        (
            "file,label\nface.mp4,happy\nnone.mp4,sad\n",
            "line 3, column file: there is no file none.mp4",
        ),
        (
            "file,label,start,end\nface.mp4,happy,,\nface.mp4,sad,,2\n",
            "line 3, column end: whole clips are scored here: run mer-prepare on the table",
        ),
        ("file,label\n,happy\n", r"line 2, column file: there is no file \(empty\)"),
        (
            "file,label\nface.mp4,glad\n",
            "line 2, column label: glad is none of neutral",
        ),
        ("file,label\nface.mp4\n", r"line 2, column label: \(empty\) is none of"),
        (
            "file,label\nface.mp4,happy\nmore/../face.mp4,sad\n",
            "line 3, column file: more/../face.mp4 was named in line 2 already",
        ),
        ('file,label\n"face.mp4,happy\n', "can't be read as a CSV file"),
    ],
)
def test_tables_that_can_t_be_used(folder: Path, text: str, message: str) -> None:
    table = write_table(folder, text)
    with pytest.raises(CorpusError, match=message) as caught:
        read_table(table, folder, RAVDESS_LABELS)
    assert str(table) in str(caught.value)


def test_folder_and_table_must_be_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is not a folder"):
        read_table(folder / "labels.csv", tmp_path / "none", RAVDESS_LABELS)
    with pytest.raises(CorpusError, match="No such file"):
        read_table(tmp_path / "none.csv", folder, RAVDESS_LABELS)
    latin = folder / "latin.csv"
    latin.write_bytes("file,label\nfäce.mp4,happy\n".encode("latin-1"))
    with pytest.raises(CorpusError, match="can't be read as a CSV file"):
        read_table(latin, folder, RAVDESS_LABELS)


def test_scores_are_the_device_s_answers(
    folder: Path, bundle: Path, write_checkpoint: Write
) -> None:
    table = write_table(folder, "file,label\nface.mp4,happy\nbroken.mp4,sad\nmore/voice.wav,sad\n")
    progress: list[tuple[int, int]] = []
    result = evaluate_folder(
        bundle, folder, table, progress=lambda done, total: progress.append((done, total))
    )
    assert progress == [(1, 3), (2, 3), (3, 3)]
    recognizer = Recognizer.load(bundle)
    for answer in result.answers:
        expected = recognizer.predict(folder / answer.file)
        assert answer.answer == expected.label
        # The same graphs on the same inputs; only the float types of the softmax differ.
        assert answer.probability == pytest.approx(expected.probabilities[expected.label], abs=1e-5)
        assert (answer.face, answer.voice) == (expected.face, expected.voice)
    assert [(a.file, a.face, a.voice) for a in result.answers] == [
        ("face.mp4", True, True),
        ("more/voice.wav", False, True),
    ]
    ((file, error),) = result.failures
    assert file == "broken.mp4"
    assert "not a media file" in error
    scores = result.evaluation.scores
    assert scores.n == 2
    assert scores.prec1 == 50 * sum(a.answer == a.label for a in result.answers)
    assert scores.prec5 == 50 * sum(a.rank < 5 for a in result.answers)
    data = result.to_dict()
    assert [clip["file"] for clip in data["clips"]] == ["face.mp4", "more/voice.wav"]
    assert data["failures"] == [{"file": "broken.mp4", "error": error}]
    assert "split" not in data
    # The checkpoint behind the bundle, which goes through PyTorch.
    theirs = evaluate_folder(write_checkpoint(), folder, table)
    np.testing.assert_allclose(theirs.evaluation.logits, result.evaluation.logits, atol=1e-3)
    assert theirs.evaluation.corpus == result.evaluation.corpus


@pytest.mark.filterwarnings("ignore::mer_runtime.errors.MerWarning")
def test_missing_and_noisy_modalities(folder: Path, write_checkpoint: Write) -> None:
    table = write_table(folder, "file,label\nface.mp4,happy\n")
    model = write_checkpoint()
    feeds = (
        {},
        {"modality": "video"},
        {"modality": "audio"},
        {"face": "noise"},
        {"voice": "noise"},
    )
    logits = [evaluate_folder(model, folder, table, **feed).evaluation.logits[0] for feed in feeds]
    assert len({tuple(one) for one in logits}) == len(feeds)
    # A voice alone has no face to answer from.
    alone = write_table(folder, "file,label\nmore/voice.wav,sad\n")
    with pytest.raises(CorpusError, match="none of the 1 clips"):
        evaluate_folder(model, folder, alone, modality="video")
    with pytest.raises(MissingModalityError):
        evaluate_folder(model, folder, alone, face="missing", voice="missing")
