"""``mer-eval``: how well a checkpoint or a bundle does on a cache, or on one's own clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mer.cli.own_models import own_models
from mer.data.index import INDEX_FILE
from mer.data.presence import PRESENCES
from mer.data.splits import SPLITS
from mer.errors import CacheError
from mer.evaluate.classifier import find_model
from mer.evaluate.comparison import Comparison
from mer.evaluate.evaluation import Evaluation, compare_models, evaluate_model
from mer.evaluate.own_clips import FolderEvaluation, evaluate_folder, require_same_clips
from mer.protocols import MODALITIES
from mer.train.plots import plot_confusion
from mer_runtime import options
from mer_runtime.console import Command, progress, warn
from mer_runtime.files import check_output
from mer_runtime.options import Results


@click.command("mer-eval", cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
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
@click.option(
    "--modality",
    type=click.Choice(MODALITIES),
    default="both",
    show_default=True,
    help="audio is short for --face missing, video for --voice missing.",
)
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
@options.face_detector("YuNet's ONNX file, for a FOLDER")
@options.num_heads
@options.device
@options.results
@options.common
def main(
    model: Path,
    clips: Path,
    truth: Path | None,
    against: Path | None,
    confusion: Path | None,
    results: Results,
    **given: Any,
) -> None:
    """Score MODEL on the clips of CACHE (mer-prepare), or on one's own in FOLDER.

    MODEL is a checkpoint file or a bundle folder. Of what ships, ia, it and lt are checkpoints,
    and ia-int8 is the int8 bundle of ia.

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
      mer-eval ia recordings/ --truth recordings/labels.csv
    """
    if confusion is not None:
        check_output(confusion, model, clips, truth)
    _refuse_for_bundles([model, *([against] if against else [])], given)
    if truth is not None:
        _score_folder(model, clips, truth, against, confusion, results, given)
        return
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
    evaluation, other = (
        _show_progress(evaluate_model, one, clips, **given) if one is not None else None
        for one in (model, against)
    )
    assert evaluation
    comparison = compare_models(evaluation, other) if other else None
    if confusion is not None:
        plot_confusion(evaluation.scores.confusion, evaluation.labels, confusion)
    where = evaluation.split + (f" of fold {evaluation.fold}" if evaluation.fold else "")
    text = _format(evaluation, f"split {where}")
    if other and comparison:
        text += "\n\n" + _format_comparison(evaluation, other, comparison)
    results.tell(_describe(evaluation.to_dict(), other, comparison), text)


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
    model: Path,
    folder: Path,
    truth: Path,
    against: Path | None,
    confusion: Path | None,
    results: Results,
    given: dict[str, Any],
) -> None:
    for name in ("split", "fold"):
        if given.pop(name) is not None:
            raise click.UsageError(f"--{name} is of a cache's actors: leave it out with a table")
    result, other = (
        _show_progress(evaluate_folder, one, folder, truth, **given) if one is not None else None
        for one in (model, against)
    )
    assert result
    evaluation, comparison = result.evaluation, None
    if other:
        require_same_clips(result, other)
        comparison = compare_models(evaluation, other.evaluation)
    if confusion is not None:
        plot_confusion(evaluation.scores.confusion, evaluation.labels, confusion)
    second = other.evaluation if other else None
    text = f"{_format_clips(result)}\n\n{_format(evaluation, f'of {folder}')}"
    if second and comparison:
        text += "\n\n" + _format_comparison(evaluation, second, comparison)
    results.tell(_describe(result.to_dict(), second, comparison), text)
    for file, error in result.failures:
        warn(f"{file} is not scored: {error}")
    if result.unlisted:
        warn(f"{result.unlisted} media files in {folder} are not in {truth}")
    if result.failures:
        raise click.exceptions.Exit(1)


def _show_progress(evaluate: Callable[..., Any], model: Path, *args: Any, **options: Any) -> Any:
    with progress(length=1, label=f"Evaluating {model.name}") as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        return evaluate(model, *args, progress=show, **options)


def _describe(
    described: dict[str, Any], other: Evaluation | None, comparison: Comparison | None
) -> dict[str, Any]:
    if other is None or comparison is None:
        return described
    return {**described, "against": other.to_dict(), **comparison.to_dict()}


def _format_clips(result: FolderEvaluation) -> str:
    """Table, a line a clip; place is where the right label stands among the answers."""
    width = max(len("file"), *(len(one.file) for one in result.answers))
    labels = max(len("answer"), *(len(label) for label in result.evaluation.labels))
    lines = [f"{'file':{width}}  {'label':{labels}}  {'answer':{labels}}  prob.  place"]
    for one in result.answers:
        absent = [name for name, there in (("face", one.face), ("voice", one.voice)) if not there]
        note = f"  (no {' or '.join(absent)})" if absent else ""
        lines.append(
            f"{one.file:{width}}  {one.label:{labels}}  {one.answer:{labels}}  "
            f"{one.probability:5.1%}  {one.rank + 1:5}{note}"
        )
    return "\n".join(lines)


def _format_comparison(first: Evaluation, second: Evaluation, paired: Comparison) -> str:
    low, high = paired.interval
    rows = [("", "loss", "prec1", "prec5", "uar")]
    for name, one in (("A", first.scores), ("B", second.scores)):
        figures = f"{one.loss:.3f}", f"{one.prec1:.2f}", f"{one.prec5:.2f}", f"{one.uar:.2f}"
        rows.append((name, *figures))
    table = "\n".join(f"{a:3}{b:>7}{c:>8}{d:>8}{e:>8}" for a, b, c, d, e in rows)
    return (
        f"A is {first.model}\nB is {second.model}\n{table}\n"
        f"same answer in {paired.agreement:.2f} % of {paired.n} clips; "
        f"only A is right in {paired.only_a}, only B in {paired.only_b} "
        f"(McNemar p {paired.mcnemar_p:.3f})\n"
        f"prec1 of A minus B {paired.prec1_difference:+.2f} points   "
        f"95 %: {low:+.2f} to {high:+.2f}\n"
        f"|Δlogit| at most {paired.max_logit_difference:.1e}, "
        f"{paired.mean_logit_difference:.1e} on average"
    )


def _format(evaluation: Evaluation, where: str) -> str:
    scores, intervals, feed = evaluation.scores, evaluation.intervals, evaluation.feed
    fed = f"modality {feed.modality}"
    for name, presence in (("face", feed.face), ("voice", feed.voice)):
        fed += f", noise for the {name}" if presence == "noise" else ""
    lines = [
        f"{evaluation.kind} {evaluation.model}",
        f"{scores.n} clips, {where}, {fed}",
        "",
        f"loss   {scores.loss:6.3f}",
    ]
    for name in ("prec1", "prec5", "uar"):
        low, high = intervals[name]
        lines.append(f"{name:5}  {getattr(scores, name):6.2f} %   95 %: {low:.2f} to {high:.2f}")
    lines.append(f"ece    {evaluation.ece:6.2f} %   at temperature {evaluation.temperature:.3f}")
    width = max(len("class"), *map(len, evaluation.labels))
    lines += ["", f"{'class':{width}}  clips  recall  precision     f1"]
    for label, one in zip(evaluation.labels, scores.per_class, strict=True):
        lines.append(
            f"{label:{width}}  {one.n:5}  {_percent(one.recall):>6}  "
            f"{_percent(one.precision):>9}  {_percent(one.f1):>5}"
        )
    cells = max(5, len(str(scores.confusion.max())) + 1)
    heads = "".join(f"{label[: cells - 1]:>{cells}}" for label in evaluation.labels)
    lines += ["", f"{'true class':{width}} answered{heads}"]
    for label, counts in zip(evaluation.labels, scores.confusion, strict=True):
        lines.append(f"{label:{width + 9}}" + "".join(f"{count:{cells}}" for count in counts))
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
