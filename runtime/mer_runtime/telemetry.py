"""Engines and Ray report to their makers by default. What sees people reports to nobody."""

from __future__ import annotations

import os
import sys

#: ONNX Runtime's switch, from 1.29 on. It is read when ``onnxruntime`` is imported, which otherwise
#: is enough to leave a number for the device and a queue of events in the user's cache.
SWITCH = "ORT_DISABLE_TELEMETRY"
#: What OpenVINO reports with when it is imported. It has no switch, but does without the package.
REPORTER = "openvino_telemetry"
#: Ray's switch, which the processes of a cluster that we start inherit.
RAY_SWITCH = "RAY_USAGE_STATS_ENABLED"


def switch_off_telemetry() -> None:
    """Let no engine report that this process imports from now on, nor a cluster that it starts.

    A value that a variable has already is the user's, and stays.
    """
    os.environ.setdefault(SWITCH, "1")
    os.environ.setdefault(RAY_SWITCH, "0")
    # Python's way to say that a module can't be imported.
    sys.modules.setdefault(REPORTER, None)  # type: ignore[arg-type]
