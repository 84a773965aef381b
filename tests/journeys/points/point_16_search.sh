# 16. The fastest bundle that loses little on one's own clips, found and proved here.
mer-export ia-compact --tune --calibration cache --max-drop 50 --target onnx --precision fp16 --out best
mer-run best clip.mp4
