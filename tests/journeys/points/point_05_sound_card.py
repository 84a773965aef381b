# 5. Chunks as sound cards give them: (n, channels).
import numpy as np

from mer_runtime import Recognizer
from mer_runtime.stream import StreamRecognizer

stream = StreamRecognizer(Recognizer.load("ia-compact-int8"), live=False, video=False)
for second in range(4):
    stream.push_audio(np.zeros((16_000, 1), np.int16), 16_000, float(second))
print(stream.statistics.samples, len(list(stream.events())))
