"""Engines report to their makers by default: what sees faces and hears voices reports to nobody."""

from __future__ import annotations

import os
import sys

#: ONNX Runtime's switch, from 1.29 on. It is read when ``onnxruntime`` is imported, which otherwise
#: is enough to leave a number for the device and a queue of events in the user's cache.
SWITCH = "ORT_DISABLE_TELEMETRY"
#: What OpenVINO reports with when it is imported. It has no switch, but does without the package.
REPORTER = "openvino_telemetry"


def switch_off_telemetry() -> None:
    """Let no engine report that this process imports from now on.

    A value that ``ORT_DISABLE_TELEMETRY`` has already is the user's, and stays.
    """
    os.environ.setdefault(SWITCH, "1")
    # Python's way to say that a module can't be imported.
    sys.modules.setdefault(REPORTER, None)  # type: ignore[arg-type]
