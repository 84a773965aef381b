"""A face detector's file, tried where it can do no harm before OpenCV reads it here.

A damaged graph can take the process along inside OpenCV. YuNet as OpenCV publishes it is known by
its hash; any other file is read by another process first, once: that it passed is kept.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from mer_runtime.errors import FaceDetectorError
from mer_runtime.processes import start_python
from mer_runtime.store import find_folder, make_folder, read_kept, write_kept

#: face_detection_yunet_2023mar.onnx of OpenCV's model zoo.
KNOWN_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
#: Bytes: YuNet has 230 000.
MOST_BYTES = 1 << 26
#: Seconds of a processor and bytes that the other process may take: no YuNet takes a tenth.
CPU_SECONDS, MEMORY = 9, 1 << 30
#: Seconds until it is ended in any case; a busy machine may let it wait.
PATIENCE = 60.0
#: Inside the folder of what is kept; the content of a file there.
PASSES_FOLDER, PASSED = "detectors", b"passed"

#: Heights and widths that it is tried with.
SIZES = ((64, 64), (320, 320), (180, 320), (320, 180))


def read_detector(file: Path) -> bytes:
    """Content of a YuNet file that OpenCV can read.

    Raises:
        FaceDetectorError: it can't be read, or OpenCV doesn't take it for a YuNet model.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FaceDetectorError(f"{file}: there is no such face detector file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FaceDetectorError(f"{file}: can't be read as a face detector: {reason}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest == KNOWN_SHA256:
        return content
    place = find_folder() / PASSES_FOLDER / digest
    if read_kept(place) != PASSED:
        if len(content) > MOST_BYTES or not _try(content):
            raise FaceDetectorError(
                f"{file}: not a YuNet face detector (face_detection_yunet_2023mar.onnx)"
            )
        with suppress(OSError):  # else it is tried again at the next start
            for folder in (place.parent.parent, place.parent):
                make_folder(folder)
            write_kept(place, PASSED)
    return content


def try_detector() -> None:
    """What the other process does with the model on its standard input."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    model = np.frombuffer(sys.stdin.buffer.read(), np.uint8)
    net = cv2.FaceDetectorYN.create("onnx", model, np.zeros(0, np.uint8), SIZES[0], 0.6)
    for height, width in SIZES:
        net.setInputSize((width, height))
        net.detect(np.full((height, width, 3), 127, np.uint8))


def _try(content: bytes) -> bool:
    """Whether another process lives through it."""
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    try:
        process = start_python(f"{__name__}:{try_detector.__name__}", **pipes)
    except OSError:
        return False
    with process:
        try:
            process.communicate(content, timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
    return process.returncode == 0
