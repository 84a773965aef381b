"""Percentiles, intervals, advice and comparison on times whose answer is known."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench import (
    BenchError,
    advise,
    compare_runs,
    find_interval,
    find_ratio,
    find_ratio_apart,
    find_slower,
    list_caveats,
    read_result,
)
from mer_bench.report.charts import find_front
from mer_bench.result import compare_contenders
from mer_bench.summary import count_needed, summarise
from mer_runtime import intervals
from mer_runtime.errors import OutputError
from mer_runtime.files import write_file

MakeContender = Any


class TestSummary:
    def test_percentiles_of_known_times(self) -> None:
        # 1 to 101: the p-th percentile is 1 + p.
        found = summarise(list(range(101, 0, -1)))
        assert (found.n, found.mean, found.least, found.most) == (101, 51, 1, 101)
        assert found.percentiles == {50: 51, 90: 91, 95: 96, 99: 100}

    def test_nothing_is_left_out(self) -> None:
        found = summarise([1.0] * 99 + [10_000.0])
        assert found.mean == pytest.approx(100.99)
        assert found.most == 10_000

    @pytest.mark.parametrize(("percent", "needed"), [(50, 20), (90, 100), (95, 200), (99, 1000)])
    def test_too_few_samples_are_marked(self, percent: int, needed: int) -> None:
        assert count_needed(percent) == needed
        assert f"p{percent}" in summarise([1.0] * (needed - 1)).to_dict()["unreliable"]
        assert f"p{percent}" not in summarise([1.0] * needed).to_dict()["unreliable"]

    def test_no_times(self) -> None:
        with pytest.raises(ValueError, match="no times"):
            summarise([])


class TestIntervals:
    def test_median(self) -> None:
        values = np.random.default_rng(0).normal(50, 5, 200).tolist()
        found = find_interval(values)
        assert found.median == pytest.approx(np.median(values), abs=1e-3)
        assert found.low < found.median < found.high
        # The median of 200 has a standard error of 1.25 · 5 / √200 = 0.44: 95 % are 1.7 wide.
        assert 1.0 < found.high - found.low < 2.6
        assert find_interval([7.0] * 5).to_dict() == {"median": 7.0, "low": 7.0, "high": 7.0}

    def test_covers_the_truth(self) -> None:
        """Of 200 runs of 30 turns, about 95 % have the true median in their interval."""
        generator = np.random.default_rng(1)
        hits = 0
        for _ in range(200):
            found = find_interval(generator.exponential(10, 30).tolist())
            hits += found.low <= 10 * np.log(2) <= found.high
        # 0.95 · 200 = 190 with a deviation of 3; the bootstrap of a median is a little narrow.
        assert 178 <= hits <= 200

    def test_ratio_of_rounds_that_drift_together(self) -> None:
        drift = np.linspace(1, 3, 60)  # the machine slows to a third
        slow, fast = (20 * drift).tolist(), (10 * drift).tolist()
        found = find_ratio(slow, fast)
        assert (found.median, found.low, found.high) == (2.0, 2.0, 2.0)
        apart = find_ratio(slow, fast[::-1])
        assert apart.median == pytest.approx(2.0)
        assert apart.low < 1.9 < 2.1 < apart.high

    def test_beyond_noise(self) -> None:
        generator = np.random.default_rng(2)
        one, same, slower = (generator.normal(mean, 5, 40).tolist() for mean in (50, 50, 60))
        assert not find_ratio_apart(same, one).beyond_noise
        assert find_ratio_apart(slower, one).beyond_noise
        assert find_ratio_apart(one, one[:10]).low < 1, "runs may differ in length"


class TestAdvice:
    def advise(self, *contenders: Any) -> str:
        return advise(contenders, compare_contenders(contenders), ["avx", "avx2"])

    def test_fastest(self, make_contender: MakeContender) -> None:
        told = self.advise(
            make_contender("reference", 200, kind="reference"),
            make_contender("fp32", 100),
            make_contender("int8", 50),
        )
        assert told.startswith("Use int8 here (AVX2 without VNNI): ")
        assert "(p90)" in told
        assert " as fast as reference" in told
        low, high = 4 * 0.95, 4 * 1.05  # both times scatter by a few percent
        assert low < float(told.split(" MB, ")[1].split()[0]) < high
        assert told.endswith("accuracy wasn't measured (give --cache).")

    def test_reference_is_not_for_the_device(self, make_contender: MakeContender) -> None:
        told = self.advise(
            make_contender("reference", 20, kind="reference"), make_contender("int8", 50)
        )
        assert told.startswith("Use int8 here")

    def test_instructions_of_the_processor_do_not_matter_to_a_gpu(
        self, make_contender: MakeContender
    ) -> None:
        told = self.advise(make_contender("int8", 50) | {"target": "tensorrt"})
        assert told.startswith("Use int8 here: ")

    def test_wrong_answers_do_not_count(self, make_contender: MakeContender) -> None:
        told = self.advise(
            make_contender("reference", 200, kind="reference", agreement=100.0),
            make_contender("fp32", 100, agreement=100.0),
            make_contender("int8", 50, agreement=80.0),
        )
        assert told.startswith("Use fp32 here")
        assert "int8 is less right than the reference" in told
        assert "to 100.0 % of 240 clips" in told

    def test_lost_accuracy_does_not_count(self, make_contender: MakeContender) -> None:
        told = self.advise(
            make_contender("fp32", 100, agreement=100.0),
            make_contender("int8", 50, agreement=97.0, difference=(-5.0, -0.5)),
        )
        assert told.startswith("Use fp32 here")

    def test_none_is_right(self, make_contender: MakeContender) -> None:
        assert self.advise(make_contender("int8", 50, agreement=20.0)).startswith("Use none")

    def test_tie_goes_to_less_memory(self, make_contender: MakeContender) -> None:
        told = self.advise(
            make_contender("big", 50, memory=300.0, seed=1),
            make_contender("small", 50, memory=100.0, seed=2),
        )
        assert told.startswith("Use small here")

    def test_tie_is_told(self, make_contender: MakeContender) -> None:
        told = self.advise(make_contender("a", 50, seed=1), make_contender("b", 50, seed=2))
        assert "can't be told apart from it in speed" in told
        assert "no faster or slower than a beyond noise" in told or told.startswith("Use a here")


class TestComparison:
    def test_slower_beyond_noise(self, make_run: Any) -> None:
        before, after = make_run({"a": 50, "b": 50}), make_run({"a": 60, "b": 50}, seed=9)
        found = compare_runs(before, after)
        totals = {one.contender: one for one in found if one.measure == "total"}
        assert totals["a"].verdict == "slower"
        assert totals["a"].ratio.median == pytest.approx(1.2, rel=0.03)  # times scatter by 4 %
        assert totals["b"].verdict == "same"
        assert [one.contender for one in find_slower(found, 10)] == ["a"]
        assert find_slower(found, 30) == []
        back = {o.contender: o.verdict for o in compare_runs(after, before) if o.measure == "total"}
        assert back == {"a": "faster", "b": "same"}

    def test_same_run(self, make_run: Any) -> None:
        run = make_run({"a": 50})
        assert {one.verdict for one in compare_runs(run, run)} == {"same"}
        assert list(list_caveats(run, run)) == []

    def test_caveats(self, make_run: Any) -> None:
        before = make_run({"a": 50})
        after = copy.deepcopy(before)
        after["machine"] |= {"cpu": "Another", "flags": [], "versions": {"onnxruntime": "2"}}
        after["machine"]["before"] = {"load": [3.0, 0, 0], "temperature": "unknown"}
        after["settings"]["threads"] = 4
        told = "\n".join(list_caveats(before, after))
        for word in (
            "cpu differs",
            "flags differs: ['avx2'], []",
            "onnxruntime differs: 1, 2",
            "threads differs",
            "load average",
        ):
            assert word in told

    def test_nothing_in_common(self, make_run: Any) -> None:
        with pytest.raises(BenchError, match="no contender in common"):
            compare_runs(make_run({"a": 1}), make_run({"b": 1}))


class TestFiles:
    def test_round_trip(self, tmp_path: Path, make_run: Any) -> None:
        run = make_run({"a": 50})
        write_file(tmp_path / "a.json", json.dumps(run))
        assert read_result(tmp_path / "a.json") == run
        assert [file.name for file in tmp_path.iterdir()] == ["a.json"]

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("{", "can't be read"),
            ("[]", "no results of mer-bench"),
            ('{"format": 99, "contenders": [], "machine": {}}', "format 99"),
        ],
    )
    def test_foreign(self, tmp_path: Path, content: str, told: str) -> None:
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(BenchError, match=told):
            read_result(tmp_path / "x.json")

    @pytest.mark.parametrize("value", [None, [], {}, "x", -1, float("nan"), 10**18, True])
    def test_edited(
        self, tmp_path: Path, make_run: Any, value: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever stands in the place of whatever: two files are compared, or one line tells."""
        path = tmp_path / "a.json"
        run = make_run({"a": 100.0, "b": 90.0})
        monkeypatch.setattr(intervals, "RESAMPLES", 10)
        outcomes, told = set(), []

        def edit(holder: Any, depth: int = 0) -> None:
            keys = list(holder) if isinstance(holder, dict) else range(min(len(holder), 2))
            for key in keys:
                before, holder[key] = holder[key], value
                path.write_text(json.dumps(run))
                try:
                    read = read_result(path)
                    compare_runs(run_before, read)
                    list(list_caveats(read, run_before))
                    outcomes.add("compared")
                except BenchError as error:
                    told.append(str(error))
                holder[key] = before
                if isinstance(before, (dict, list)) and depth < 6:
                    edit(before, depth + 1)

        path.write_text(json.dumps(run))
        run_before = read_result(path)
        for part in ("machine", "settings"):
            edit(run[part], 5)
        for one in run["contenders"]:
            small = {"single_stream": one["single_stream"], "name": one["name"]}
            one.clear()
            one.update(small)
            stream = one["single_stream"]
            stream["times"] = {"total": stream["times"]["total"][:3]}
            stream["summary"] = {"total": {"p50": stream["summary"]["total"]["p50"]}}
            edit(one)
        edit(run, 7)
        assert outcomes == {"compared"}
        assert told
        assert "\n" not in "".join(told)

    def test_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError):
            write_file(tmp_path / "nowhere" / "a.json", "")


def test_front() -> None:
    # (latency, accuracy): 1 is slower and no more right than 0; 3 is as fast as 2, less right.
    assert find_front([(1, 60), (2, 60), (3, 80), (3, 70), (9, 81)]) == [0, 2, 4]
