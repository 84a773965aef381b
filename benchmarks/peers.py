"""The timer behind docs/reference/benchmarks.md: our runtime and what others have published.

    make bench-rivals          # or: python benchmarks/peers.py --corpus RAVDESS --rounds 20

Each contender runs in a process and, where it isn't ours, in an environment of its own, which is
made in cache/peers the first time (2 GB each). They take turns as in ``bench.py``. With a corpus
in RAVDESS's layout the peer's answers to its test clips are counted, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import av
import click
import numpy as np

from bench import (
    HERE,
    ROOT,
    describe_clip,
    summarise_times,
    time_rounds,
    write_result,
)
from mer.data.corpus import find_recordings
from mer.data.recording import Recording
from mer.data.splits import split_actors
from mer.weights import shipped_checkpoint
from mer_bench import Contender, choose_cores, describe_machine
from mer_export import ExportOptions, export_bundle
from mer_export.proof.golden import sample_clip
from mer_runtime.console import Command
from mer_runtime.inputs.face import HAAR, SHIPPED_YUNET
from mer_runtime.turns import take_turns
from peer_accuracy import score_answers
from peer_table import RATIOS, write_docs
from rivals import BUNDLES

#: Bundles that compete, the first with everything, the second from a file to its answer.
ONNX, OPENVINO = "onnx-int8", "openvino-int8"
#: TensorFlow's greetings are left out.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Entry:
    """A contender: its environment's interpreter, what its worker is told, what it is timed at.

    Attributes:
        start: the task that a fresh process is timed at.
    """

    name: str
    python: Path
    options: tuple[str, ...]
    tasks: tuple[str, ...]
    start: str

    def open(self, clip: Path, cores: Sequence[int]) -> Contender:
        """Start its worker with a thread on each of ``cores``."""
        command = [self.python, HERE / "peer_worker.py", self.name, "--clip", clip]
        command += ["--threads", len(cores), *self.options]
        return Contender(self.name, command, threads=len(cores), cores=cores, variables=QUIET)


def list_entries(cache: Path, yunet: Path) -> list[Entry]:
    """Who competes, in the order in which they take turns."""
    mtcnn, fer = (cache / name / "bin" / "python" for name in ("mtcnn", "fer"))
    voice = ("--voice", str(cache / "voice.wav"))
    entries = [
        Entry("mtcnn", mtcnn, voice, ("inputs", "detect"), "inputs"),
        Entry("fer", fer, (), ("clip", "crop", "detect"), "clip"),
    ]
    ours = Path(sys.executable)
    for found, detector in (("haar", HAAR), ("yunet", str(yunet))):
        for bundle in (ONNX, OPENVINO):
            tasks = ("inputs", "detect", "clip", "crop") if bundle == ONNX else ("clip", "crop")
            options = ("--bundle", str(cache / bundle), "--detector", detector)
            entries.append(Entry(f"{found}-{bundle}", ours, options, tasks, "clip"))
    return entries


def prepare(checkpoint: Path, clip: Path, cache: Path) -> None:
    """Make what competes: environments, bundles, and the clip's voice as a file of its own."""
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("mtcnn", "fer"):
        click.echo(f"preparing the environment {name}", err=True)
        subprocess.run([HERE / f"peer_{name}_environment.sh", cache], check=True)
    for name in (ONNX, OPENVINO):
        click.echo(f"exporting {name}", err=True)
        target, precision = BUNDLES[name]
        export_bundle(
            checkpoint,
            cache / name,
            ExportOptions(target=target, precision=precision, timing=False),
        )
    write_voice(clip, cache / "voice.wav")


def write_voice(clip: Path, path: Path) -> None:
    """The sound of ``clip`` as 16-bit mono at its own rate: RAVDESS has such files beside videos.

    Raises:
        click.ClickException: the clip has no sound.
    """
    with av.open(clip) as container:
        if not container.streams.audio:
            raise click.ClickException(f"{clip} has no sound: give a clip of a face and a voice")
        mono = av.AudioResampler("s16", "mono", container.streams.audio[0].rate)
        frames = [out for frame in container.decode(audio=0) for out in mono.resample(frame)]
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(frames[0].sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())


@contextmanager
def open_entries(
    entries: Sequence[Entry], clip: Path, cores: Sequence[int]
) -> Iterator[list[Contender]]:
    """Worker processes, loaded one after the other, that end with the block."""
    with ExitStack() as stack:
        yield [stack.enter_context(entry.open(clip, cores)) for entry in entries]


def measure(entries: Sequence[Entry], clip: Path, threads: int, rounds: int) -> dict[str, Any]:
    """All tasks with ``threads`` threads on as many cores, JSON-ready."""
    cores = choose_cores(threads)
    with open_entries(entries, clip, cores) as contenders:
        facts = {one.name: one.ask("describe") for one in contenders}
        tasks = [(entry.name, task) for entry in entries for task in entry.tasks]
        times = time_rounds(contenders, tasks, rounds)
    return {
        "threads": threads,
        "cores": cores,
        "rounds": rounds,
        "facts": facts,
        **summarise_times(times, RATIOS),
        "starts": {entry.name: time_starts(entry, clip, cores) for entry in entries},
    }


def time_starts(entry: Entry, clip: Path, cores: Sequence[int], runs: int = 3) -> dict[str, Any]:
    """A fresh process until it has done its task once: median seconds, and MB held at most."""

    def start() -> tuple[float, float | None]:
        began = time.perf_counter()
        with entry.open(clip, cores) as contender:
            contender.ask("once", entry.start)
            return time.perf_counter() - began, contender.ask("memory")

    # The first start reads the disk.
    seconds, memory = zip(*take_turns({"start": start}, runs, warm_up=1)["start"], strict=True)
    known = [one for one in memory if one is not None]
    return {"seconds": round(median(seconds), 2), "memory_mb": max(known, default=None)}


def answer_clips(entry: Entry, clip: Path, recordings: Sequence[Recording]) -> list[Any]:
    """Scores of each recording, by what they were made from."""
    with entry.open(clip, sorted(os.sched_getaffinity(0))) as contender:
        return [contender.ask("answer", str(row.path.resolve())) for row in recordings]


def measure_accuracy(
    entries: Sequence[Entry], clip: Path, corpus: Path, unseen: Sequence[int]
) -> dict[str, Any]:
    """The peer and the last of ours on the corpus's test clips, JSON-ready.

    Args:
        unseen: more actors, on whom the peer alone is scored.
    """
    recordings = find_recordings(corpus)
    test = split_actors({row.actor for row in recordings}, "test")
    chosen = [row for row in recordings if row.actor in test]
    fer = next(entry for entry in entries if entry.name == "fer")
    ours = next(entry for entry in reversed(entries) if entry.name.endswith(ONNX))
    theirs, answers = (answer_clips(entry, clip, chosen) for entry in (fer, ours))
    found: dict[str, Any] = {
        "corpus": corpus.resolve().name,
        "actors": sorted(test),
        "scores": {
            "fer": score_answers(chosen, [row["face"] for row in theirs]),
            f"{ours.name}/face": score_answers(chosen, [row["face"] for row in answers]),
            f"{ours.name}/both": score_answers(chosen, [row["both"] for row in answers]),
        },
    }
    if unseen:
        others = [row for row in recordings if row.actor in unseen]
        rows = answer_clips(fer, clip, others)
        score = score_answers(others, [row["face"] for row in rows])
        found["unseen"] = {"actors": sorted(unseen), "scores": {"fer": score}}
    return found


@click.command(cls=Command)
@click.option("--threads", "counts", type=int, multiple=True, default=(1, 2), show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="By default the shipped one.")
@click.option("--clip", type=click.Path(path_type=Path), help="By default the sample clip.")
@click.option("--corpus", type=click.Path(path_type=Path), help="In RAVDESS's layout.")
@click.option(
    "--unseen", type=int, multiple=True, help="An actor whose face the peer can't have learnt from."
)
@click.option(
    "--face-detector",
    default=SHIPPED_YUNET,
    type=click.Path(path_type=Path),
    help="YuNet's file.  [default: the one that ships]",
)
@click.option("--cache", default=ROOT / "cache" / "peers", type=click.Path(path_type=Path))
@click.option(
    "--prepare/--no-prepare", "fresh", default=True, help="Or time what an earlier run left."
)
@click.option("--docs/--no-docs", default=True, help="Rewrite the docs' tables.")
def main(
    counts: tuple[int, ...],
    rounds: int,
    checkpoint: Path | None,
    clip: Path | None,
    corpus: Path | None,
    unseen: tuple[int, ...],
    face_detector: Path,
    cache: Path,
    fresh: bool,
    docs: bool,
) -> None:
    """Time our runtime and its peers in turns; write benchmarks/results and the docs' tables."""
    choose_cores(max(counts))
    machine = describe_machine()
    clip, cache = clip or sample_clip(), cache.resolve()
    if fresh:
        prepare(checkpoint or shipped_checkpoint(), clip, cache)
    entries = list_entries(cache, face_detector)
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine,
        "clip": describe_clip(clip),
        "runs": [measure(entries, clip, threads, rounds) for threads in counts],
    }
    if corpus:
        result["accuracy"] = measure_accuracy(entries, clip, corpus, unseen)
    path = write_result(result, "peers-")
    click.echo(f"written to {path.relative_to(ROOT)}")
    if docs:
        write_docs(path)


if __name__ == "__main__":
    main()
