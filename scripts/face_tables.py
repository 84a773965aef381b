"""What was measured of faces: presence, following, crops, encoders. JSON to Markdown tables."""

from __future__ import annotations

from typing import Any

from table_rows import head, row

Json = dict[str, Any]


def format_voices(data: Json) -> str:
    """Voices that are heard, by corruption."""
    lines = head("the voice is spoilt by", "what is done", "heard, %", "missed")
    for one in data["voices"]:
        missed = data["n"] - one["heard"]
        lines.append(row(one["name"], one["what"], _share(one["heard"], data["n"]), missed))
    return "\n".join(lines)


def format_sounds(data: Json) -> str:
    """Sounds that are taken for a voice."""
    lines = head("sound", "what it is", "told to be no voice, %", "taken for a voice")
    for one in data["sounds"]:
        absent = data["n"] - one["heard"]
        name = f"{one['name']} (music)" if one["music"] else one["name"]
        lines.append(row(name, one["what"], _share(absent, data["n"]), one["heard"]))
    return "\n".join(lines)


def format_faces(data: Json) -> str:
    """Clips in which a face is there."""
    told = {
        "recorded": "as recorded",
        "frozen": "the window's middle picture, repeated",
        "frozen, H.264": "the same as a video by x264",
    }
    lines = head("picture", "a face is there, clips", "of")
    for name, what in told.items():
        lines.append(row(what, data["faces"][name], data["n"]))
    return "\n".join(lines)


def format_following(data: Json) -> str:
    """A clip's answer and cost with a detection in every frame and in every third."""
    lines = head(
        "a detection in",
        "frames looked at",
        "with a face, of 15",
        "prec1, %",
        "clip to answer, CPU ms",
    )
    for one in data["rows"]:
        every = one["every"]
        often = "every used frame" if every == 1 else f"one in {every}, followed between"
        cells = (one["looked"], one["found"], f"{one['prec1']:.2f}", one["cpu_ms"])
        lines.append(row(often, *cells))
    same = f"{data['same']} of {data['n']} clips ({_share(data['same'], data['n'])} %)"
    gaps = f"{data['median_difference']:.2f} (median), {data['largest_difference']:.2f} (largest)"
    return "\n".join([*lines, "", f"Same label: {same}. Difference of logits: {gaps}."])


def format_sizes(data: Json) -> str:
    """What ``--detect-size`` finds and costs."""
    lines = head(
        "`--detect-size`",
        "smallest face found in 1920 x 1080, pixels",
        "frame with a near face, CPU ms",
        "frame without a face, CPU ms",
    )
    for one in data["sizes"]:
        lines.append(row(one["size"], one["smallest"], one["near_ms"], one["faceless_ms"]))
    return "\n".join(lines)


def format_crop_sizes(data: Json) -> str:
    """Answers to one clip from crops of each size."""
    sizes = list(data["rows"][0]["answers"])
    lines = head("clip", "voice", *(f"{size} pixels" for size in sizes), "largest change")
    for one in data["rows"]:
        cells, shares = [], []
        for size in sizes:
            answer = one["answers"][size]
            label = max(answer, key=answer.get)
            cells.append(f"{label} {100 * answer[label]:.0f} %")
            shares.append(answer)
        change = max(
            abs(a[label] - b[label]) for a in shares for b in shares for label in shares[0]
        )
        voice = "yes" if one["voice"] else "no"
        lines.append(row(one["clip"], voice, *cells, f"{100 * change:.0f} points"))
    return "\n".join(lines)


def format_encoders(data: Json) -> str:
    """Face encoders under one protocol."""
    lines = head(
        "encoder, pixels",
        "million MACs a crop",
        "parameters, thousand",
        "photos, %",
        "clips: both, voice, face, %",
        "SQNR in ONNX Runtime, OpenVINO, dB",
        "15 crops in ONNX Runtime, OpenVINO, ms",
    )
    for one in data["rows"]:
        clips, sqnr, times = one["clips"], one["sqnr"], one["milliseconds"]
        lines.append(
            row(
                f"`{one['encoder']}`, {one['size']}",
                f"{one['macs'] / 15 / 1e6:.1f}",
                f"{one['parameters'] / 1e3:.0f}",
                one["photos"],
                ", ".join(str(clips[shown]) for shown in ("both", "audio", "video")),
                ", ".join(str(sqnr[engine]) for engine in ("onnxruntime", "openvino")),
                ", ".join(str(times[engine]) for engine in ("onnxruntime", "openvino")),
            )
        )
    told = (
        f"Int8, {data['threads']} threads, medians of {data['rounds']} turns: {data['processor']}."
    )
    return "\n".join([*lines, "", told])


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}"
