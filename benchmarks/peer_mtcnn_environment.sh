#!/bin/sh
# FOLDER/mtcnn: an environment with what the reference implementation prepares its clips with. Its
# requirements ask for a PyTorch of 2024; the code also runs with the one that we test with.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
python=$folder/mtcnn/bin/python
if [ ! -f "$folder/mtcnn/installed" ]; then
    python3 -m venv "$folder/mtcnn"
    "$python" -m pip install --quiet --constraint "$root/constraints.txt" \
        torch==2.13.0 numpy librosa opencv-python-headless pillow requests tqdm
    "$python" -m pip install --quiet --no-deps facenet-pytorch==2.6.0 torchvision==0.28.0
    touch "$folder/mtcnn/installed"
fi
