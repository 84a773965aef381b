"""Two runs side by side: what got slower or faster beyond noise.

Runs of different hours don't share their drift, so turns are drawn apart, which makes intervals
wider than those of contenders in one run. What no interval can know is a machine that was busier
throughout: the report says where loads or machines differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mer_bench.contender import BenchError
from mer_bench.subject import MEASURES, TOTAL
from mer_bench.summary import turn_medians
from mer_runtime.intervals import Interval, find_ratio_apart

#: Facts that two comparable runs share.
SHARED_FACTS = ("cpu", "flags", "cores", "governor", "power_mode")
SHARED_SETTINGS = ("clip", "threads", "detector", "backend")
#: A load average apart by this is worth a word.
LOAD_GAP = 0.5


@dataclass(frozen=True)
class Difference:
    """One measure of one contender, before and after.

    Attributes:
        before, after: medians, milliseconds.
        ratio: after over before: above 1 is slower.
    """

    contender: str
    measure: str
    before: float
    after: float
    ratio: Interval

    @property
    def verdict(self) -> str:
        """``slower`` or ``faster``, or ``same`` within noise."""
        if not self.ratio.beyond_noise:
            return "same"
        return "slower" if self.ratio.median > 1 else "faster"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "contender": self.contender,
            "measure": self.measure,
            "before_ms": self.before,
            "after_ms": self.after,
            "ratio": self.ratio.to_dict(),
            "verdict": self.verdict,
        }


def compare_runs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Every measure of the contenders that both runs have, by name.

    Raises:
        BenchError: there are none.
    """
    earlier = {one["name"]: one for one in before["contenders"]}
    shared = [(earlier[o["name"]], o) for o in after["contenders"] if o["name"] in earlier]
    if not shared:
        raise BenchError(
            "the two runs have no contender in common: "
            f"{', '.join(earlier)}; {', '.join(o['name'] for o in after['contenders'])}"
        )
    return [
        Difference(
            contender=new["name"],
            measure=measure,
            before=old["single_stream"]["summary"][measure]["p50"],
            after=new["single_stream"]["summary"][measure]["p50"],
            ratio=find_ratio_apart(turn_medians(new, measure), turn_medians(old, measure)),
        )
        for old, new in shared
        for measure in MEASURES
        if all(_is_comparable(one, measure) for one in (old, new))
    ]


def _is_comparable(contender: Mapping[str, Any], measure: str) -> bool:
    """Whether it has such times, and no median that nothing can be divided by."""
    has = measure in contender["single_stream"]["times"]
    return has and min(turn_medians(contender, measure)) > 0


def find_slower(differences: list[Difference], percent: float) -> list[Difference]:
    """Contenders that answer later, end to end: beyond noise, and by more than ``percent``."""
    return [
        one
        for one in differences
        if one.measure == TOTAL and one.verdict == "slower" and one.ratio.median > 1 + percent / 100
    ]


def list_caveats(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """In what the two runs differ besides their times."""
    for name in SHARED_FACTS:
        one, other = before["machine"].get(name), after["machine"].get(name)
        if one != other:
            yield f"{name} differs: {one}, {other}"
    for name in SHARED_SETTINGS:
        one, other = before["settings"].get(name), after["settings"].get(name)
        if one != other:
            yield f"{name} differs: {one}, {other}"
    versions = before["machine"]["versions"], after["machine"]["versions"]
    for name in versions[1]:
        if versions[0].get(name) != versions[1][name]:
            yield f"{name} differs: {versions[0].get(name)}, {versions[1][name]}"
    loads = [run["machine"]["before"]["load"][:1] for run in (before, after)]
    if all(loads) and abs(loads[0][0] - loads[1][0]) > LOAD_GAP:
        yield f"load average at the start differs: {loads[0][0]}, {loads[1][0]}"
