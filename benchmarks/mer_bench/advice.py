"""One sentence on what to use here, and why; and what speaks against a run's times.

The rule: of the bundles that are as right as the reference, the one with the lowest p90 end to
end. One that isn't slower beyond noise and holds clearly less memory goes before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mer_bench.subject import TOTAL
from mer_bench.summary import turn_medians
from mer_runtime.engines.processor import KIND_TITLES, find_kind
from mer_runtime.intervals import find_ratio

#: A model is as right as the reference where the interval of its prec1 minus the reference's
#: isn't wholly below zero, and where it gives the same answer to so many percent of clips.
LEAST_AGREEMENT = 95.0
#: Those whose speed in int8 hangs on the processor's instructions.
CPU_TARGETS = ("onnx", "openvino")
#: Memory that counts as clearly less.
CLEARLY_LESS = 0.8
TIMES = "\N{MULTIPLICATION SIGN}"
#: A load average, of the last minute before a run, by which somebody else was at work.
BUSY = 0.5


def list_cautions(result: Mapping[str, Any]) -> list[str]:
    """What a run's times are worth less for: a busy machine, few samples. A sentence each."""
    cautions = []
    machine = result["machine"]
    load = machine["before"]["load"][:1]
    if load and load[0] > BUSY:
        cautions.append(
            f"The machine was busy before the run: load {load[0]:g} on {machine['cores']} cores. "
            "Times may be too long and scatter more; run it again when nothing else does."
        )
    for one in result["contenders"]:
        found = one["single_stream"]["summary"][TOTAL]
        if "p90" in found["unreliable"]:
            cautions.append(
                f"Few samples: {found['n']} times of {one['name']} are too few for "
                f"{', '.join(found['unreliable'])}; give more --seconds."
            )
    return cautions


def advise(
    contenders: Sequence[Mapping[str, Any]],
    ratios: Sequence[Mapping[str, Any]],
    flags: Sequence[str],
) -> str:
    """One sentence from the contenders and ratios of a run (see ``mer_bench.result``).

    Args:
        flags: instruction sets of the processor, as ``describe_machine`` names them.
    """
    bundles = [one for one in contenders if one["kind"] == "bundle"]
    fit = [one for one in bundles if is_as_right(one)]
    if not fit:
        return (
            "Use none of these bundles: each answers otherwise than the float reference more "
            "often than quantisation should; calibrate on clips like those of the cache."
        )
    fastest = min(fit, key=_p90)
    tied = [one for one in fit if one is not fastest and not is_slower(one, fastest)]
    chosen = min([fastest, *(o for o in tied if _is_smaller(o, fastest))], key=_memory)
    here = f"here ({KIND_TITLES[find_kind(flags)]})" if chosen["target"] in CPU_TARGETS else "here"
    text = f"Use {chosen['name']} {here}: it answers a clip in {_p90(chosen):.3g} ms (p90)"
    if chosen["peak_memory_mb"] is not None:
        text += f" with {chosen['peak_memory_mb']:.0f} MB"
    text += _tell_gain(chosen, ratios)
    if chosen["accuracy"] and chosen["accuracy"].get("agreement") is not None:
        text += (
            f", and gives the reference's answer to {chosen['accuracy']['agreement']:.1f} % of "
            f"{chosen['accuracy']['n']} clips"
        )
    elif not chosen["accuracy"]:
        text += "; accuracy wasn't measured (give --cache)"
    others = [one["name"] for one in tied if one is not chosen]
    if chosen is not fastest:
        text += f"; {fastest['name']} is no faster beyond noise and takes more memory"
    elif others:
        text += f"; {' and '.join(others)} can't be told apart from it in speed"
    left = [one["name"] for one in bundles if one not in fit]
    if left:
        text += f"; {' and '.join(left)} is less right than the reference and doesn't count"
    return text + "."


def is_as_right(contender: Mapping[str, Any]) -> bool:
    """Whether nothing speaks against its answers; so without accuracy, too."""
    accuracy = contender["accuracy"]
    if not accuracy or accuracy.get("agreement") is None:
        return True
    _, high = accuracy["prec1_difference_interval"]
    return bool(high >= 0 and accuracy["agreement"] >= LEAST_AGREEMENT)


def is_slower(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether ``one`` takes longer end to end, beyond noise."""
    ratio = find_ratio(turn_medians(one, TOTAL), turn_medians(other, TOTAL))
    return ratio.beyond_noise and ratio.median > 1


def _tell_gain(chosen: Mapping[str, Any], ratios: Sequence[Mapping[str, Any]]) -> str:
    """Against the first contender, where that is another one."""
    for ratio in ratios:
        if ratio["fast"] == chosen["name"] and ratio["measure"] == TOTAL:
            low, high = ratio["low"], ratio["high"]
            if low <= 1 <= high:
                return f", no faster or slower than {ratio['slow']} beyond noise"
            return (
                f", {ratio['median']:.2f} {TIMES} ({low:.2f} to {high:.2f}) as fast as "
                f"{ratio['slow']}"
            )
    return ""


def _p90(contender: Mapping[str, Any]) -> float:
    return float(contender["single_stream"]["summary"][TOTAL]["p90"])


def _memory(contender: Mapping[str, Any]) -> float:
    return float(contender["peak_memory_mb"] or float("inf"))


def _is_smaller(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return _memory(one) < CLEARLY_LESS * _memory(other)
