# 3. One recogniser serves four threads, and they answer as one does.
from concurrent.futures import ThreadPoolExecutor

from mer_runtime import Recognizer

recognizer = Recognizer.load("ia-compact-int8")
clips = ["clip.mp4", "voice.wav"] * 4
with ThreadPoolExecutor(4) as pool:
    together = [answer.probabilities for answer in pool.map(recognizer.predict, clips)]
print(together == [recognizer.predict(clip).probabilities for clip in clips])
