"""Work shared out to the machines of a Ray cluster, with the outcomes that ``jobs`` gives.

Ray places the workers, restarts one that dies, and gives its item to it once more.
"""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mer_runtime.console import log_settings
from mer_runtime.errors import MediaError, MerError, MissingExtraError
from mer_runtime.jobs import TRIES, Outcome, Task, in_order, tell_again, tell_unexpected
from mer_runtime.prediction import Analysis
from mer_runtime.recognizer import Recognizer

logger = logging.getLogger(__name__)

#: Starts a cluster of this machine alone, for as long as the work takes.
LOCAL = "local"
#: Bytes that such a cluster sets aside for objects: ours are answers, of a few kB.
OBJECTS = 100_000_000
#: Milliseconds that Ray's own processes have to start: on a busy machine theirs, 30 s, don't do.
PATIENCE = 120_000
#: Ray prints what happens to workers on standard output, which is for answers. It reads this when
#: it is imported.
QUIET = ("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
#: In a worker: what it has loaded, by the call that it belongs to.
_TASKS: dict[str, Task] = {}


class WorkerDiedError(MerError):
    """The workers that had an item died of it, or beside it."""


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
        address, workers: see ``work_on_cluster``.
        load: called once in each worker, for a recogniser with ``threads`` threads.
        work: gets a clip's analysis there, and gives what an outcome's value is.

    Raises:
        MissingExtraError: Ray isn't installed.
        MerError: the cluster can't be reached or has no room, or what ``load`` raises.
    """
    named = [(clip, clip.absolute()) for clip in clips]
    done = work_on_cluster(named, address, load, _AnswerNamed(work), workers=workers, cpus=threads)
    for (clip, _), value, error in done:
        died = isinstance(error, WorkerDiedError)
        yield Outcome(clip, value, MediaError(clip, str(error)) if died else error)


def work_on_cluster(
    items: Sequence[Any],
    address: str,
    load: Callable[[], Any],
    work: Callable[[Any, Any], Any],
    *,
    workers: int | None = None,
    cpus: int = 1,
    gpus: int = 0,
) -> Iterator[Outcome]:
    """Call ``work(loaded, item)`` for each item in a cluster's workers; outcomes come in order.

    Args:
        address: of Ray: ``auto``, ``HOST:PORT``, ``ray://HOST:PORT``, or ``local``, which starts
            a cluster on this machine. A connection that the program has already is used as it is.
        load: called once in each worker.
        workers: how many; by default as many as the cluster has room for, and never more.
        cpus, gpus: that each worker takes. Ray hides the GPUs from one that takes none.

    Raises:
        MissingExtraError: Ray isn't installed.
        MerError: the cluster can't be reached or has no room, or what ``load`` raises.
    """
    os.environ.setdefault(*QUIET)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "--ray") from error
    with connected(address, None if workers is None else workers * cpus):
        room = _count_room(ray, cpus, gpus)
        if not room:
            lacking = f"{cpus} CPUs" + (f" and {gpus} GPUs" if gpus else "")
            raise MerError(f"no machine of the cluster {address} has {lacking}")
        run = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=TRIES - 1)(_work)
        task = ray.put((uuid.uuid4().hex, Task(log_settings(), load, work)))

        def give_out() -> Iterator[tuple[int, Outcome]]:
            # Two for each worker, so that none waits for its next.
            most = workers or 2 * room
            waiting = list(range(len(items)))[::-1]
            places: dict[Any, int] = {}
            while waiting or places:
                while waiting and len(places) < most:
                    place = waiting.pop()
                    places[run.remote(task, items[place])] = place
                (done, *_), _ = ray.wait(list(places))
                place = places.pop(done)
                yield place, _take(ray, done, items[place])

        yield from in_order(give_out())


def _work(task: tuple[str, Task], item: Any) -> tuple[str, Any, list[str]]:
    """In a worker, which keeps what it loaded."""
    key, new = task
    return _TASKS.setdefault(key, new).run(item)


def _take(ray: Any, done: Any, item: Any) -> Outcome:
    try:
        return tell_again(item, *ray.get(done))
    except ray.exceptions.RayTaskError as error:  # such as another version of ours over there
        logger.debug("%s", item, exc_info=error)
        told = " ".join(str(error.cause).split())
        return Outcome(item, None, MerError(f"a worker can't do it: {told}"))
    except ray.exceptions.RayError as error:
        logger.debug("%s", item, exc_info=error)
        reason = "the worker that had it died, twice: give its machine fewer workers"
        return Outcome(item, None, WorkerDiedError(reason))


@contextmanager
def connected(address: str, cpus: int | None = None) -> Iterator[None]:
    """A connection to the cluster, which ends with the block unless it was there before.

    Args:
        cpus: of a cluster that is started for this; by default this machine's.

    Raises:
        MerError: it can't be reached.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECTS,
            "_system_config": {"agent_register_timeout_ms": PATIENCE},
        }
    try:
        with _away_from_working_folder():
            ray.init(address, **options)
    except Exception as error:  # Ray's exceptions share no base class here
        reason = " ".join(str(error).split())
        raise MerError(f"no Ray cluster can be reached at {address}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _away_from_working_folder() -> Iterator[None]:
    """Ray's workers import first of all from the folder that a connection is made in."""
    here = Path.cwd()
    os.chdir(Path(sys.executable).parent)
    try:
        yield
    finally:
        os.chdir(here)


class _AnswerNamed:
    """Answers a clip by its whole path, as workers have another working folder, and names it as
    it was given."""

    def __init__(self, work: Callable[[Recognizer, Analysis], Any]) -> None:
        self._work = work

    def __call__(self, recognizer: Recognizer, names: tuple[Path, Path]) -> Any:
        given, whole = names
        try:
            analysis = recognizer.analyse(whole)
            prediction = replace(analysis.prediction, source=str(given))
            return self._work(recognizer, replace(analysis, prediction=prediction))
        except MediaError as error:
            raise MediaError(given, error.reason) from error
        except MerError:
            raise
        except Exception as error:
            raise tell_unexpected(given, error) from error


def _count_room(ray: Any, cpus: int, gpus: int) -> int:
    """Workers for which the cluster's machines have room."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    return sum(
        min(int(has.get(kind, 0)) // count for kind, count in wanted.items()) for has in machines
    )
