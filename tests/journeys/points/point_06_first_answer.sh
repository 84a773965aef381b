# 6. The first answer is about face and voice: the detector comes along.
mer-run ia-compact-int8 clip.mp4 --json
