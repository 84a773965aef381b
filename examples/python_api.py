"""Emotions of a recording, window by window: the Python API in ten lines.

python examples/python_api.py CLIP
"""

import sys

import av

from mer_runtime import Recognizer, mix_down
from mer_runtime.stream import StreamRecognizer

stream = StreamRecognizer(
    Recognizer.load("ia-compact-int8"), live=False, on_event=lambda e: print(e.to_dict())
)
with av.open(sys.argv[1]) as clip:
    for frame in clip.decode():
        if isinstance(frame, av.VideoFrame):
            stream.push_frame(frame.to_ndarray(format="rgb24"), frame.time)
        else:
            stream.push_audio(mix_down(frame), frame.sample_rate, frame.time)
stream.finish()
