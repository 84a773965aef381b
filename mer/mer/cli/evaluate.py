"""``mer-eval``: how well a checkpoint or a bundle does on a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mer.comparison import Comparison
from mer.evaluation import MODALITIES, Evaluation, compare_models, evaluate_model
from mer.plots import plot_confusion
from mer.splits import SPLITS
from mer_runtime.console import Command, progress, split_labels
from mer_runtime.errors import OutputError


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--split", type=click.Choice(SPLITS), default="test", show_default=True, help="By actor."
)
@click.option(
    "--fold", type=click.IntRange(1, 5), help="Cross-validation fold; the default split without."
)
@click.option(
    "--modality",
    type=click.Choice(MODALITIES),
    default="both",
    show_default=True,
    help="audio feeds black crops, video feeds zero MFCCs.",
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
@click.option(
    "--num-heads",
    type=click.IntRange(min=1),
    help="Attention heads of a checkpoint whose file doesn't say.",
)
@click.option(
    "--labels",
    callback=split_labels,
    metavar="A,B,...",
    help="Names of a checkpoint's classes, where they aren't RAVDESS's eight.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="For a checkpoint; a bundle runs on its own engine.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def main(
    model: Path,
    cache: Path,
    against: Path | None,
    confusion: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score MODEL, a checkpoint file or a bundle folder, on the clips of CACHE.

    Gives the mean cross-entropy (loss), the percentage of right answers (prec1), of right
    answers among the five most probable (prec5), and the unweighted average recall (uar), with
    95 % intervals: Wilson's for prec1 and prec5, by bootstrap over clips for uar; and the
    expected calibration error (ece) of the probabilities at the model's temperature. With
    --against, how far two models agree on the same clips: flips each way, McNemar's test, the
    interval of the difference.

    \b
    Example:
      mer-eval runs/ia/best.safetensors cache/ravdess --confusion confusion.png
      mer-eval bundles/ia-onnx-fp32 cache/ravdess --modality audio --json
      mer-eval bundles/ia-onnx-fp32 cache/ravdess --against runs/ia/best.safetensors
    """
    if confusion is not None and not confusion.parent.is_dir():
        raise OutputError(confusion, "there is no such folder")
    evaluation = _evaluate(model, cache, options)
    other = _evaluate(against, cache, options) if against is not None else None
    comparison = compare_models(evaluation, other) if other is not None else None
    if confusion is not None:
        plot_confusion(evaluation.scores.confusion, evaluation.labels, confusion)
    if as_json:
        described = evaluation.to_dict()
        if other is not None and comparison is not None:
            described |= {"against": other.to_dict(), **comparison.to_dict()}
        click.echo(json.dumps(described))
        return
    click.echo(_format(evaluation))
    if other is not None and comparison is not None:
        click.echo("\n" + _format_comparison(evaluation, other, comparison))


def _evaluate(model: Path, cache: Path, options: dict[str, Any]) -> Evaluation:
    with progress(length=1, label=f"Evaluating {model.name}") as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        return evaluate_model(model, cache, progress=show, **options)


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


def _format(evaluation: Evaluation) -> str:
    scores, intervals = evaluation.scores, evaluation.intervals
    where = evaluation.split + (f" of fold {evaluation.fold}" if evaluation.fold else "")
    lines = [
        f"{evaluation.kind} {evaluation.model}",
        f"{scores.n} clips, split {where}, modality {evaluation.modality}",
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
