"""Contenders and runs of made-up times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from mer_bench import advise, find_interval
from mer_bench.result import compare_contenders
from mer_bench.subject import CPU, STAGES, TOTAL, WINDOW
from mer_bench.summary import medians, summarise

LABELS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]


def make(
    name: str,
    milliseconds: float,
    *,
    kind: str = "bundle",
    memory: float = 100.0,
    agreement: float | None = None,
    difference: tuple[float, float] = (-1.0, 1.0),
    seed: int = 0,
) -> dict[str, Any]:
    """A contender that takes about so long for a clip: a normal's 4 %, 40 turns of 4."""
    generator = np.random.default_rng(seed)
    turns = {
        measure: (share * milliseconds * generator.normal(1, 0.04, (40, 4))).round(3).tolist()
        for measure, share in {
            **dict.fromkeys(STAGES, 1 / 6),
            WINDOW: 1 / 3,
            TOTAL: 1.0,
            CPU: 1.2,
        }.items()
    }
    summary = {m: summarise([t for turn in found for t in turn]) for m, found in turns.items()}
    accuracy = None
    if agreement is not None:
        accuracy = {
            "n": 240,
            "prec1": 70.0,
            "prec5": 98.0,
            "intervals": {"prec1": [64.0, 75.5], "prec5": [95.0, 99.0]},
            "labels": LABELS,
            "confusion": (np.eye(8, dtype=int) * 20 + 1).tolist(),
            "agreement": agreement,
            "prec1_difference": sum(difference) / 2,
            "prec1_difference_interval": list(difference),
        }
    families = {"convolution": 0.6 * milliseconds, "moving data": 0.1 * milliseconds}
    layer = {"graph": "encoder", "name": "conv1", "kind": "Conv", "family": "convolution"}
    return {
        "name": name,
        "kind": kind,
        "target": "onnx",
        "precision": "int8",
        "bytes": 5_000_000,
        "engine": "engine 1",
        "label": "happy",
        "start": {"first_ms": 900.0, "later_ms": [500.0, 520.0], "load_ms": [200.0, 210.0]},
        "peak_memory_mb": memory,
        "single_stream": {
            "summary": {
                measure: found.to_dict()
                | {"median_interval": find_interval(medians(turns[measure])).to_dict()}
                for measure, found in summary.items()
            },
            "clips_per_second": 1e3 / milliseconds,
            "real_time_factor": milliseconds / 4200,
            "times": turns,
        },
        "offline": {
            "n": 40,
            "clips_per_second": {"median": 20.0, "low": 19.0, "high": 21.0},
            "times_real_time": 84.0,
            "batches": [[4, 0.2]] * 10,
        },
        "profile": {
            "milliseconds": sum(families.values()),
            "count": 2,
            "families": families,
            "layers": [layer | {"milliseconds": 0.6 * milliseconds}],
        },
        "accuracy": accuracy,
    }


@pytest.fixture
def make_contender() -> Callable[..., dict[str, Any]]:
    """A function that makes one; see ``make``."""
    return make


@pytest.fixture
def make_run() -> Callable[..., dict[str, Any]]:
    """A function that makes a run's results from milliseconds by contender."""

    def give(times: Mapping[str, float], seed: int = 0, **options: Any) -> dict[str, Any]:
        contenders = [
            make(name, taken, seed=seed + i, **options)
            for i, (name, taken) in enumerate(times.items())
        ]
        ratios = compare_contenders(contenders)
        state = {"load": [0.1, 0.1, 0.1], "temperature": {"x86_pkg_temp": 48.0}}
        return {
            "format": 1,
            "made_by": "mer-edge 0",
            "date": "2026-01-02T03:04:05+00:00",
            "machine": {
                "cpu": "A chip",
                "board": "unknown",
                "gpu": "unknown",
                "flags": ["avx2"],
                "cores": 2,
                "cores_in_all": 4,
                "memory_mb": 8000,
                "governor": "performance",
                "power_mode": "unknown",
                "system": "Linux",
                "kernel": "6",
                "python": "3.11",
                "versions": {"onnxruntime": "1"},
                "before": state,
                "after": state,
            },
            "settings": {
                "clip": "clip.mp4",
                "clip_seconds": 4.2,
                "threads": 1,
                "cores": [1],
                "seconds": 10.0,
                "detector": "yunet",
                "starts": 2,
                "burst": 4,
                "warm_up_turns": 1,
                "warm_up_queries_a_turn": 1,
                "offline_batch": 4,
            },
            "contenders": contenders,
            "ratios": ratios,
            "advice": advise(contenders, ratios, ["avx2"]),
        }

    return give
