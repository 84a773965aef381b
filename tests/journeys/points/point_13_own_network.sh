# 13. A fusion in a file of one's own, from training to an answer.
mer-train cache --model my_fusion.py:MyFusion --face-encoder compact --freeze encoder \
  --protocol tuned --epochs 2 --batch-size 3 --out own
mer-export own/best.safetensors --model my_fusion.py:MyFusion --precision fp32 --out own-bundle
mer-run own-bundle clip.mp4
