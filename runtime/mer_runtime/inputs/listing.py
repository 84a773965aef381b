"""The clips of a folder: found by what they hold, and what was left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import av

from mer_runtime.inputs.container import find_audio, find_video, open_file

#: Names that nothing but media have: such a file is a clip, and where it can't be read, that is
#: said of it. Other files are looked into. (A .ts may be a program's text.)
MEDIA_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".3gp", ".mpg", ".wmv", ".flv", ".mts"),
    *(".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma", ".aiff"),
)
#: FFmpeg's demuxers that know their files by a signature. The others find frames in any noise.
SIGNED_FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "ivf", "flv", "asf", "mxf", "nut", "ogg", "rm"),
    *("yuv4mpegpipe", "wtv", "wav", "w64", "flac", "mp3", "aac", "aiff", "caf", "au", "amr", "wv"),
    *("ape", "tta", "tak", "mpc", "mpc8", "voc"),
)
#: Folders that systems and archivers put beside one's own.
SYSTEM_FOLDERS = frozenset({"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir"})

HIDDEN = "hidden"
FOREIGN = "not media"
UNREADABLE = "not readable"


@dataclass(frozen=True)
class MediaListing:
    """What a folder and those below it hold.

    Attributes:
        clips: media files, sorted.
        left_out: how many others there are, by reason: "hidden", "not media", "not readable".
            A hidden or unreadable folder counts as one.
    """

    clips: tuple[Path, ...]
    left_out: Mapping[str, int]

    def describe_left_out(self) -> str:
        """Such as "left out: 2 hidden, 5 not media"; empty where nothing was."""
        return describe_left_out(self.left_out)


def list_media(root: str | Path) -> MediaListing:
    """Find the clips in a folder and below it, whatever they are called.

    A file is a clip if its name says so (``MEDIA_SUFFIXES``) or if FFmpeg finds sound or pictures
    that move in it. Hidden files (``.x``, as macOS's ``._x``) and system folders are left out.
    Linked folders are entered too, each folder once.
    """
    left_out: Counter[str] = Counter()
    clips = []
    for path in walk_files(Path(root), left_out):
        if path.suffix.lower() in MEDIA_SUFFIXES or _holds_media(path):
            clips.append(path)
        else:
            left_out[FOREIGN] += 1
    return MediaListing(tuple(sorted(clips)), left_out)


def walk_files(root: Path, left_out: Counter[str]) -> Iterator[Path]:
    """The files in a folder and below it that aren't hidden.

    Args:
        left_out: counts the others by reason.
    """
    entered: set[tuple[int, int]] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        # A folder's own place goes before a link to it.
        folder = folders.pop() if folders else links.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            left_out[UNREADABLE] += 1
            continue
        for entry in entries:
            kind = _kind(entry)
            if is_hidden(entry.name):
                left_out[HIDDEN] += 1
            elif kind == "folder":
                (links if entry.is_symlink() else folders).append(folder / entry.name)
            elif kind == "file":
                yield folder / entry.name
            else:
                left_out[UNREADABLE] += 1


def _kind(entry: os.DirEntry[str]) -> str | None:
    """``folder`` or ``file``, also behind a link; None for broken links, pipes and devices."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else None
    except OSError:  # a link to itself
        return None


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name isn't one of the user's own."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Such as "left out: 2 hidden, 5 not media"; empty where nothing was."""
    found = [f"{count} {reason}" for reason, count in sorted(left_out.items()) if count]
    return f"left out: {', '.join(found)}" if found else ""


def _holds_media(path: Path) -> bool:
    try:
        with open_file(path) as container:
            signed = any(name in SIGNED_FORMATS for name in container.format.name.split(","))
            return signed and bool(find_video(container) or find_audio(container))
    except (av.FFmpegError, OSError, ValueError, MemoryError):
        return False
