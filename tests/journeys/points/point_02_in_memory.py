# 2. Bytes, a picture as OpenCV reads it, and a waveform.
from pathlib import Path

import cv2
import numpy as np

from mer_runtime import Recognizer

recognizer = Recognizer.load("ia-compact-int8")
print(recognizer.predict(Path("clip.mp4").read_bytes()).face)
print(recognizer.predict(cv2.imread("far.png"), colour="bgr").face)
print(recognizer.predict(waveform=np.load("voice.npy"), sample_rate=16_000).voice)
