# 4. A small face in a picture of 1920 x 1080 is found at the second look, or the first.
from mer_runtime import Recognizer

for size in (320, 640):
    answer = Recognizer.load("ia-compact-int8", detect_size=size).predict("far.png")
    print(size, answer.face, answer.people)
