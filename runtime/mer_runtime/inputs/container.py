"""Files and streams opened by FFmpeg within bounds: what it may read, reach and allocate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

#: Pixels of a stored picture: 8K with room (8192 x 4320). A larger one isn't decoded.
MAX_PIXELS = 8192 * 4320
#: Hz of sound that is believed.
SAMPLE_RATES = (1_000, 768_000)
#: Channels of one audio track.
MAX_CHANNELS = 64
#: Audio tracks that are listened to; further ones only where they are asked for.
MAX_TRACKS = 16
#: Pixels up to which a decoder may have as many threads as it likes, each with its own pictures.
_FREE_PIXELS = 1920 * 1088

#: FFmpeg's demuxers of what cameras, phones, recorders and editors write. None of them opens
#: another file or an address: no playlist (hls, dash, concat, sdp, imf) and no row of pictures.
FILE_FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,h264,hevc,vvc,m4v,av1,obu,ivf,flv,asf,mxf,nut,dv,ogg,"
    "rm,mjpeg,yuv4mpegpipe,wtv,vc1,wav,w64,flac,mp3,aac,ac3,eac3,aiff,caf,au,amr,amrnb,amrwb,wv,"
    "ape,tta,tak,mpc,mpc8,dts,loas,voc,gsm"
)
#: What a URL may lead to besides: protocols of cameras, and playlists, whose entries are bound by
#: ``_reachable`` as well.
STREAM_FORMATS = f"{FILE_FORMATS},hls,dash,rtsp,rtp,sdp,mpjpeg,live_flv"
#: FFmpeg's protocols that a URL, a redirection or a playlist behind a URL may use. Not ``file``:
#: no server may name a file of ours.
NETWORK_PROTOCOLS = "http,https,tls,tcp,udp,rtp,crypto,httpproxy,data"
_RTMP = "rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,ffrtmphttp,ffrtmpcrypt"


def open_file(path: str | Path) -> Any:
    """A container on this machine: whatever its name or content says, nothing else is opened.

    Raises:
        av.FFmpegError, OSError, ValueError: it can't be opened.
    """
    # The prefix makes it a path: "12:30.mp4" and "http:/host/x.mp4" are none to FFmpeg.
    return av.open(f"file:{os.fspath(path)}", options=_bounds("file", FILE_FORMATS))


def open_pipe(reader: Any, options: Mapping[str, str]) -> Any:
    """A container that comes through a file-like object; nothing else is opened."""
    return av.open(reader, options={**options, **_bounds("none", FILE_FORMATS)})


def open_url(url: str, options: Mapping[str, str], timeout: tuple[float, float]) -> Any:
    """A container at a URL, which may lead on to others in the network, but to no file."""
    scheme = url.partition("://")[0].lower()
    if scheme == "file":
        bounds = _bounds("file", FILE_FORMATS)
    else:
        bounds = _bounds(_reachable(scheme), STREAM_FORMATS)
    return av.open(url, options={**options, **bounds}, timeout=timeout)


def _reachable(scheme: str) -> str:
    family = _RTMP if scheme in _RTMP.split(",") else scheme
    return f"{NETWORK_PROTOCOLS},{family}"


def _bounds(protocols: str, formats: str) -> dict[str, str]:
    # FFmpeg decodes some pictures while it opens a container: max_pixels is for those.
    return {
        "protocol_whitelist": protocols,
        "format_whitelist": formats,
        "max_pixels": str(MAX_PIXELS),
    }


def find_video(container: Any) -> Any | None:
    """The first video stream that can be decoded; cover art doesn't count."""
    cover = av.stream.Disposition.attached_pic
    streams = container.streams.video
    return next((s for s in streams if s.codec_context and not s.disposition & cover), None)


def find_audio(container: Any) -> list[Any]:
    """The audio streams that can be decoded."""
    return [s for s in container.streams.audio if s.codec_context is not None]


def describe_excess(stream: Any) -> str | None:
    """What of a stream is beyond bounds, such as "pictures of 12000 x 12000 pixels", or None."""
    codec = stream.codec_context
    if isinstance(stream, av.VideoStream):
        if codec.width * codec.height > MAX_PIXELS:
            return f"pictures of {codec.width} x {codec.height} pixels, more than {MAX_PIXELS}"
        return None
    lowest, highest = SAMPLE_RATES
    if not lowest <= codec.sample_rate <= highest:
        return f"a rate of {codec.sample_rate} Hz, not {lowest} to {highest}"
    if codec.layout.nb_channels > MAX_CHANNELS:
        return f"{codec.layout.nb_channels} channels, more than {MAX_CHANNELS}"
    return None


def bound_decoder(stream: Any) -> None:
    """Keep a stream's decoder from large pictures, also where they come in mid-stream, and from
    holding many that are nearly so: each of its threads has its own."""
    if not isinstance(stream, av.VideoStream):
        return
    codec = stream.codec_context
    codec.options = {**codec.options, "max_pixels": str(MAX_PIXELS)}
    pixels = codec.width * codec.height
    if pixels > _FREE_PIXELS:
        codec.thread_count = max(1, min(os.cpu_count() or 1, 16 * _FREE_PIXELS // pixels))


def pixel_aspect(stream: Any) -> float:
    """How many times as wide as high a stream's pixels are; 1 where it doesn't say."""
    return float(stream.sample_aspect_ratio or 1)
