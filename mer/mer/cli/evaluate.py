"""``mer-eval``: how well a checkpoint or a bundle does on a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mer.evaluation import MODALITIES, Evaluation, evaluate_model
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
def main(model: Path, cache: Path, confusion: Path | None, as_json: bool, **options: Any) -> None:
    """Score MODEL, a checkpoint file or a bundle folder, on the clips of CACHE.

    Gives the mean cross-entropy (loss), the percentage of right answers (prec1), of right
    answers among the five most probable (prec5), and the unweighted average recall (uar), with
    95 % intervals: Wilson's for prec1 and prec5, by bootstrap over clips for uar.

    \b
    Example:
      mer-eval runs/ia/best.safetensors cache/ravdess --confusion confusion.png
      mer-eval bundles/ia-onnx-fp32 cache/ravdess --modality audio --json
    """
    if confusion is not None and not confusion.parent.is_dir():
        raise OutputError(confusion, "there is no such folder")
    with progress(length=1, label="Evaluating") as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        evaluation = evaluate_model(model, cache, progress=show, **options)
    if confusion is not None:
        plot_confusion(evaluation.scores.confusion, evaluation.labels, confusion)
    click.echo(json.dumps(evaluation.to_dict()) if as_json else _format(evaluation))


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
