"""Accuracy of a bench's contenders on one cache, in a process of its own: JSON on standard output.

    python -m mer_bench.torch_accuracy CACHE --reference CHECKPOINT BUNDLE...

The lean runtime's ``mer-bench --cache`` starts it, for reading a cache takes the extra ``train``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mer.data.splits import SPLITS, Split
from mer.evaluate.evaluation import Evaluation, compare_models, evaluate_model
from mer_runtime.errors import MerError


def measure_accuracy(
    cache: Path, bundles: list[str], reference: str | None, split: Split
) -> list[dict[str, Any]]:
    """Scores of the reference, where there is one, and of each bundle, in that order.

    Raises:
        CacheError, CorpusError, CheckpointError, BundleError: see
            ``mer.evaluate.evaluation.evaluate_model``.
    """
    float_model = evaluate_model(reference, cache, split=split) if reference else None
    found = [_describe(float_model, float_model)] if float_model else []
    for bundle in bundles:
        found.append(_describe(evaluate_model(bundle, cache, split=split), float_model))
    return found


def _describe(evaluation: Evaluation, reference: Evaluation | None) -> dict[str, Any]:
    """Scores, and where there is a reference, the comparison clip by clip."""
    described = evaluation.to_dict()
    kept = ("n", "split", "corpus", "prec1", "prec5", "uar", "intervals", "labels", "confusion")
    told = {name: described[name] for name in kept}
    if reference is None:
        return {**told, "agreement": None}
    return {**told, **compare_models(evaluation, reference).to_dict()}


def main() -> None:
    """Measure, and print one JSON array, or one object with the error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cache", type=Path)
    parser.add_argument("bundles", nargs="*")
    parser.add_argument("--reference")
    parser.add_argument("--split", choices=SPLITS, default="test")
    given = parser.parse_args()
    try:
        found = measure_accuracy(given.cache, given.bundles, given.reference, given.split)
    except MerError as error:
        print(json.dumps({"error": " ".join(str(error).split())}))
        raise SystemExit(1) from None
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
