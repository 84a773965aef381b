"""Clips shared out to the machines of a Ray cluster, with the outcomes that ``jobs`` gives.

Ray places the workers, restarts one that dies, and gives its clip to it once more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mer_runtime.console import log_level
from mer_runtime.errors import MediaError, MerError, MissingExtraError
from mer_runtime.jobs import TRIES, Outcome, Task, tell_again
from mer_runtime.recognizer import Analysis, Recognizer

#: Starts a cluster of this machine alone, for as long as the clips take.
LOCAL = "local"


def answer_on_cluster(
    clips: Sequence[Path],
    address: str,
    load: Callable[[], Recognizer],
    work: Callable[[Recognizer, Analysis], Any],
    *,
    workers: int | None = None,
    threads: int = 1,
) -> Iterator[Outcome]:
    """Answer clips with a cluster's workers; outcomes come in the order of the clips.

    Every machine needs mer-edge with the extra ``ray``, and must find the clips and the bundle
    under the same paths as this one.

    Args:
        address: of Ray: ``auto``, ``HOST:PORT``, ``ray://HOST:PORT``, or ``local``, which starts
            a cluster on this machine. A connection that the program has already is used as it is.
        load: called once in each worker, for a recogniser with ``threads`` threads.
        work: gets a clip's analysis there, and gives what an outcome's value is.
        workers: how many; by default as many as the cluster has room for, and never more.

    Raises:
        MissingExtraError: Ray isn't installed.
        MerError: the cluster can't be reached or has no room, or what ``load`` raises.
    """
    try:
        import ray
        from ray.exceptions import RayError
        from ray.util import ActorPool
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "--ray") from error
    with _connected(ray, address, None if workers is None else workers * threads):
        room = _count_room(ray, threads)
        if not room:
            raise MerError(f"no machine of the cluster {address} has {threads} CPUs")
        kind = ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=TRIES - 1)(_Worker)
        task = Task(log_level(), load, _AnswerNamed(work))
        # As many as there is work for.
        started = [kind.remote(task) for _ in range(min(workers or room, room, len(clips)))]
        pool = ActorPool(started)
        try:
            for clip in clips:
                pool.submit(lambda worker, one: worker.work.remote(one), (clip, clip.absolute()))
            for clip in clips:
                try:
                    done = pool.get_next()
                except RayError:
                    reason = "the worker that had it died, twice: give its machine fewer workers"
                    yield Outcome(clip, None, MediaError(clip, reason))
                    continue
                yield tell_again(clip, *done)
        finally:
            for worker in started:
                ray.kill(worker)


class _AnswerNamed:
    """Answers a clip by its whole path, and names it as it was given."""

    def __init__(self, work: Callable[[Recognizer, Analysis], Any]) -> None:
        self._work = work

    def __call__(self, recognizer: Recognizer, names: tuple[Path, Path]) -> Any:
        given, whole = names
        try:
            analysis = recognizer.analyse(whole)
        except MediaError as error:
            raise MediaError(given, error.reason) from error
        prediction = replace(analysis.prediction, source=str(given))
        return self._work(recognizer, replace(analysis, prediction=prediction))


class _Worker:
    """An actor of Ray's: loads with the first clip, so that an error of that is told as one."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def work(self, item: Any) -> tuple[str, Any, list[str]]:
        return self._task.run(item)


@contextmanager
def _connected(ray: Any, address: str, cpus: int | None) -> Iterator[None]:
    """A connection to the cluster, which ends with the block unless it was there before."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(address, **options)
    except Exception as error:  # Ray's exceptions share no base class here
        reason = " ".join(str(error).split())
        raise MerError(f"no Ray cluster can be reached at {address}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _count_room(ray: Any, threads: int) -> int:
    """Workers of ``threads`` CPUs for which the cluster's machines have room."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(resources.get("CPU", 0)) // threads for resources in machines)
