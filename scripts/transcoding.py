"""A clip's video encoded again by H.264 at a low bit rate, its sound copied as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from mer_runtime.errors import MediaError, OutputError

#: Speed of x264 by its own name: a camera's encoder has little time.
PRESET = "veryfast"


def transcode_video(source: Path, target: Path, bitrate: int) -> None:
    """Write ``source`` to ``target`` (.mp4) with its video at ``bitrate`` bit/s.

    Times of frames stay, and so does the first sound track, bit for bit. One thread, so that the
    same file comes out everywhere.

    Raises:
        MediaError: ``source`` can't be decoded, or has no video.
        OutputError: ``target`` can't be written.
    """
    try:
        opened = av.open(str(source))
    except (av.FFmpegError, OSError) as error:
        raise MediaError(source, f"not a media file, or damaged ({error})") from error
    with opened:
        if not opened.streams.video:
            raise MediaError(source, "holds no video to encode")
        try:
            with av.open(str(target), "w", format="mp4") as written:
                _transcode(opened, written, bitrate)
        except av.FFmpegError as error:
            target.unlink(missing_ok=True)
            raise MediaError(source, f"can't be encoded again ({error})") from error
        except OSError as error:
            target.unlink(missing_ok=True)
            raise OutputError(target, str(error)) from error


def _transcode(source: Any, target: Any, bitrate: int) -> None:
    video = source.streams.video[0]
    encoded = target.add_stream("libx264", rate=video.average_rate or 25)
    encoded.width, encoded.height, encoded.pix_fmt = video.width, video.height, "yuv420p"
    encoded.bit_rate = bitrate
    # Rate control that never bursts, as a stream over a thin line has it.
    limit = str(bitrate)
    encoded.options = {"preset": PRESET, "threads": "1", "maxrate": limit, "bufsize": limit}
    encoded.codec_context.time_base = video.time_base
    tracks = [video]
    if source.streams.audio:
        tracks.append(source.streams.audio[0])
        copied = target.add_stream_from_template(tracks[1])
    for packet in source.demux(tracks):
        if packet.stream.type == "video":
            for frame in packet.decode():
                target.mux(encoded.encode(_take(frame, video.time_base)))
        elif packet.dts is not None:
            packet.stream = copied
            target.mux(packet)
    target.mux(encoded.encode(None))


def _take(frame: Any, time_base: Any) -> Any:
    """The frame with its time alone: its own picture type would force key frames."""
    frame.time_base = time_base
    frame.pict_type = av.video.frame.PictureType.NONE
    return frame
