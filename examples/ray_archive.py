"""An archive too large for one machine: its clips answered by a Ray cluster.

    pip install 'ray[data]' mer-edge
    python examples/ray_archive.py ia-int8 archive/ answers/ --workers 2

Each worker is an actor that loads the bundle once. Clips go out in small blocks, whose answers are
a JSON Lines file each in ``answers/``. A worker that dies is replaced and its block done again;
since a block's file has the block's name and appears whole or not at all, nothing is lost and
nothing is there twice. What an earlier run left is not done again.

On a cluster the folders and the bundle must be where every machine sees them; connect with
``--address auto``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray

from mer_runtime import MerError, Recognizer, list_media

#: Clips of a block: what is done again where a worker dies.
BLOCK = 8


class Worker:
    """Answers blocks of clips; one in each of Ray's actors."""

    def __init__(self, bundle: str, threads: int, answers: str) -> None:
        self.recognizer = Recognizer.load(bundle, threads=threads)
        self.answers = Path(answers)

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        """Answer ``block["clips"]`` into the file ``block["file"]``; gives how many."""
        lines = [json.dumps(self.answer(clip)) + "\n" for clip in block["clips"]]
        part = self.answers / f"{block['file']}.{os.getpid()}.part"
        part.write_text("".join(lines))
        part.replace(self.answers / block["file"])
        return {"clips": len(lines)}

    def answer(self, clip: str) -> dict[str, Any]:
        """What ``mer-run --json`` prints; an ``error`` of a clip that can't be read."""
        try:
            return self.recognizer.predict(clip).to_dict()
        except MerError as error:
            return {"source": clip, "error": " ".join(str(error).split())}


def list_blocks(archive: Path, answers: Path) -> list[dict[str, Any]]:
    """Blocks of clips that have no file of answers yet."""
    listing = list_media(archive)
    clips = sorted({str(p.resolve()) for p in listing.clips})
    if left_out := listing.describe_left_out():
        print(f"{archive}: {left_out}", file=sys.stderr)
    blocks = []
    for first in range(0, len(clips), BLOCK):
        block = clips[first : first + BLOCK]
        name = hashlib.sha256("\n".join(block).encode()).hexdigest()[:16] + ".jsonl"
        if not (answers / name).exists():
            blocks.append({"file": name, "clips": block})
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", help="a folder by mer-export, or the name of one that ships")
    parser.add_argument("archive", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--address", help="of a cluster; without, one is started on this machine")
    given = parser.parse_args()
    given.answers.mkdir(parents=True, exist_ok=True)
    blocks = list_blocks(given.archive, given.answers)
    if not blocks:
        print(json.dumps({"clips": 0}))
        return
    bundle = str(Path(given.bundle).resolve()) if Path(given.bundle).exists() else given.bundle
    cores = given.workers * given.threads
    ray.init(given.address, **({} if given.address else {"num_cpus": cores + 1}))
    # Blocks stay as they are cut: one row each, handed out one at a time.
    done = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map(
        Worker,
        fn_constructor_args=(bundle, given.threads, str(given.answers.resolve())),
        compute=ray.data.ActorPoolStrategy(size=given.workers),
        num_cpus=given.threads,
    )
    start = time.perf_counter()
    clips = sum(row["clips"] for row in done.iter_rows())
    seconds = time.perf_counter() - start
    ray.shutdown()
    for left in given.answers.glob("*.part"):  # of workers that died
        left.unlink()
    rate = clips / seconds
    print(json.dumps({"clips": clips, "seconds": round(seconds, 2), "per_second": round(rate, 3)}))


if __name__ == "__main__":
    main()
