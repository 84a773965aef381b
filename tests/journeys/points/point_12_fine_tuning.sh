# 12. Train on from what ships, with two seeds: mean and deviation.
mer-train cache --fusion gated --face-encoder compact --from ia-compact --freeze encoder \
  --protocol tuned --epochs 1 --batch-size 4 --seed 1,2 --out tuned
