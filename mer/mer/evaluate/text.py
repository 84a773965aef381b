"""Evaluations as text for a terminal."""

from __future__ import annotations

from mer.evaluate.comparison import Comparison
from mer.evaluate.evaluation import Evaluation
from mer.evaluate.own_clips import FolderEvaluation


def format_clips(result: FolderEvaluation) -> str:
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


def format_comparison(first: Evaluation, second: Evaluation, paired: Comparison) -> str:
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


def format_evaluation(evaluation: Evaluation, where: str) -> str:
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
