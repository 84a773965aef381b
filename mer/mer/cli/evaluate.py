"""``mer-eval``: how well a checkpoint or a bundle does on a cache, or on one's own clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mer.cli.options import modality, own_models
from mer.data.index import INDEX_FILE
from mer.data.presence import PRESENCES
from mer.data.splits import SPLITS
from mer.errors import CacheError
from mer.evaluate.classifier import find_model
from mer.evaluate.evaluation import Evaluation, compare_models, evaluate_model
from mer.evaluate.own_clips import FolderEvaluation, evaluate_folder, require_same_clips
from mer.evaluate.plots import Point, check_plot, plot_front
from mer.evaluate.tables import tabulate
from mer.evaluate.text import format_clips, format_comparison, format_evaluation
from mer.train.plots import plot_confusion
from mer_runtime import options
from mer_runtime.console import Command, progress, warn
from mer_runtime.files import check_output
from mer_runtime.options import Results
from mer_runtime.tables import check_table, to_markdown, write_tables


@click.command("mer-eval", cls=Command)
@click.argument(
    "models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL..."
)
@click.argument("clips", type=click.Path(path_type=Path), metavar="CACHE|FOLDER")
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    metavar="TABLE.csv",
    help="Ground truth of the clips in FOLDER: a table with the columns file and label.",
)
@own_models
@options.labels
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    help="By actor, of a cache.  [default: test]",
)
@click.option(
    "--fold", type=click.IntRange(1, 5), help="Cross-validation fold; the default split without."
)
@modality("audio is short for --face missing, video for --voice missing.")
@click.option(
    "--face",
    type=click.Choice(PRESENCES),
    help="missing: black crops; noise: pixels at random.  [default: present]",
)
@click.option(
    "--voice",
    type=click.Choice(PRESENCES),
    help="missing: zero MFCCs; noise: white noise in place of the voice.  [default: present]",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Another checkpoint or bundle: compare the two clip by clip.",
)
@click.option(
    "--confusion",
    type=click.Path(path_type=Path),
    metavar="OUT.png",
    help="Draw the confusion matrix.",
)
@options.table(
    "Write the figures as tables: accuracy with intervals, each MODEL paired with the first, "
    "sizes, times, and recall by class."
)
@options.plot("Draw accuracy against time, a point for each MODEL (extra report).")
@options.face_detector("YuNet's ONNX file, for a FOLDER")
@options.num_heads
@options.device
@options.results
@options.common
def main(
    models: tuple[Path, ...],
    clips: Path,
    truth: Path | None,
    against: Path | None,
    confusion: Path | None,
    table: Path | None,
    plot: Path | None,
    results: Results,
    **given: Any,
) -> None:
    """Score MODEL on the clips of CACHE (mer-prepare), or on one's own in FOLDER.

    MODEL is a checkpoint file or a bundle folder. Of what ships, ia, it, lt and ia-compact are
    checkpoints, ia-int8 and ia-compact-int8 bundles. Several are told in one table, each paired
    with the first.

    Gives the mean cross-entropy (loss), the percentage of right answers (prec1), of right
    answers among the five most probable (prec5), and the unweighted average recall (uar), with
    95 % intervals: Wilson's for prec1 and prec5, by bootstrap over clips for uar; and the
    expected calibration error (ece) of the probabilities at the model's temperature. With
    --against, how far two models agree on the same clips: flips each way, McNemar's test, the
    interval of the difference.

    With --truth TABLE.csv each clip's answer is listed too. A clip that can't be read is
    reported and isn't scored; the exit code is then 1.

    \b
    Example:
      mer-eval runs/ia/best.safetensors cache/ravdess --confusion confusion.png
      mer-eval bundles/ia-onnx-fp32 cache/ravdess --modality audio --json
      mer-eval ia cache/ravdess --voice noise
      mer-eval ia-int8 cache/ravdess --against ia
      mer-eval ia it lt ia-int8 cache/ravdess --table models.tex --plot models.svg
      mer-eval ia recordings/ --truth recordings/labels.csv
    """
    if len(models) > 1 and (against or confusion):
        raise click.UsageError("--against and --confusion are of one MODEL; --table pairs several")
    for out in filter(None, (confusion, table, plot)):
        check_output(out, *models, clips, truth)
    if table is not None:
        check_table(table)
    if plot is not None:
        check_plot(plot)
        if truth is not None:
            raise click.UsageError("--plot needs times, which are taken on a CACHE")
    _refuse_for_bundles([*models, *([against] if against else [])], given)
    if truth is not None:
        found = _score_folder(models, clips, truth, against, given)
    else:
        found = _score_cache(models, clips, against, given)
    evaluations = [one.evaluation for one in found]
    first = evaluations[0]
    if confusion is not None:
        plot_confusion(first.scores.confusion, first.labels, confusion)
    tables = tabulate(evaluations) if table is not None or len(models) > 1 else []
    if table is not None:
        write_tables(table, tables)
    if plot is not None:
        plot_front(_list_points(evaluations), plot)
    if len(models) > 1:
        told = {"models": [one.described for one in found]}
        told["paired"] = [compare_models(one, first).to_dict() for one in evaluations[1:]]
        results.tell(told, to_markdown(tables).rstrip())
    else:
        _tell(found, against, results)
    failed = [one for one in found if one.warnings]
    for text in failed[0].warnings if failed else ():
        warn(text)
    if any(one.failed for one in found):
        raise click.exceptions.Exit(1)


@dataclass(frozen=True)
class _Scored:
    """One model's evaluation, as data and as text; ``warnings`` and ``failed`` of its clips."""

    evaluation: Evaluation
    described: dict[str, Any]
    text: str
    warnings: tuple[str, ...] = ()
    failed: bool = False


def _score_cache(
    models: Sequence[Path], clips: Path, against: Path | None, given: dict[str, Any]
) -> list[_Scored]:
    if given.pop("face_detector"):
        raise click.UsageError("--face-detector goes with --truth TABLE.csv: a cache has crops")
    if not (clips / INDEX_FILE).is_file():
        raise CacheError(
            f"{clips} holds no {INDEX_FILE}, so it is no cache: make one with mer-prepare, or "
            "score a folder of clips with --truth TABLE.csv, their right answers"
        )
    given["split"] = given["split"] or "test"
    if given["split"] == "all" and given["fold"] is not None:
        raise click.UsageError("--split all is every clip, whatever the fold: leave out --fold")
    found = []
    for model in (*models, *([against] if against else [])):
        one: Evaluation = _show_progress(evaluate_model, model, clips, **given)
        where = one.split + (f" of fold {one.fold}" if one.fold else "")
        found.append(_Scored(one, one.to_dict(), format_evaluation(one, f"split {where}")))
    return found


def _refuse_for_bundles(models: list[Path], given: dict[str, Any]) -> None:
    """Refuse options of checkpoints where there is none."""
    if not all(find_model(model).is_dir() for model in models):
        return
    defaults = {"num_heads": None, "labels": None, "device": "cpu"}
    for name, default in defaults.items():
        if given[name] != default:
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option} is for a checkpoint, and {models[0]} is a bundle")


def _score_folder(
    models: Sequence[Path], folder: Path, truth: Path, against: Path | None, given: dict[str, Any]
) -> list[_Scored]:
    for name in ("split", "fold"):
        if given.pop(name) is not None:
            raise click.UsageError(f"--{name} is of a cache's actors: leave it out with a table")
    asked = (*models, *([against] if against else []))
    results: list[FolderEvaluation] = [
        _show_progress(evaluate_folder, model, folder, truth, **given) for model in asked
    ]
    found = []
    for one in results:
        require_same_clips(results[0], one)
        warnings = [f"{file} is not scored: {error}" for file, error in one.failures]
        if one.unlisted:
            warnings.append(f"{one.unlisted} media files in {folder} are not in {truth}")
        text = f"{format_clips(one)}\n\n{format_evaluation(one.evaluation, f'of {folder}')}"
        failed = bool(one.failures)
        found.append(_Scored(one.evaluation, one.to_dict(), text, tuple(warnings), failed))
    return found


def _tell(found: Sequence[_Scored], against: Path | None, results: Results) -> None:
    """One model's results, and how it compares with ``against``."""
    first, told, text = found[0].evaluation, found[0].described, found[0].text
    if against is not None:
        second = found[1].evaluation
        comparison = compare_models(first, second)
        told = {**told, "against": second.to_dict(), **comparison.to_dict()}
        text += "\n\n" + format_comparison(first, second, comparison)
    results.tell(told, text)


def _list_points(evaluations: Sequence[Evaluation]) -> list[Point]:
    points = []
    for one in evaluations:
        times = one.latency
        assert times is not None  # taken on every cache
        points.append(
            Point(
                one.model,
                one.scores.prec1,
                one.intervals["prec1"],
                times.median,
                (times.low, times.high),
            )
        )
    return points


def _show_progress(evaluate: Callable[..., Any], model: Path, *args: Any, **options: Any) -> Any:
    with progress(length=1, label=f"Evaluating {model.name}") as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        return evaluate(model, *args, progress=show, **options)


if __name__ == "__main__":
    main()
