#!/bin/sh
# Quantise FOLDER/untouched.onnx with NNCF into FOLDER/untouched-nncf.xml. NNCF is no dependency of
# this project: it lives in an environment of its own, FOLDER/nncf, made here at first use.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
python=$folder/nncf/bin/python
if [ ! -f "$folder/nncf/installed" ]; then
    python3 -m venv "$folder/nncf"
    "$python" -m pip install --quiet nncf==3.4.0 openvino==2026.4.1 numpy==2.2.6
    touch "$folder/nncf/installed"
fi
exec "$python" "$here/nncf_int8.py" "$folder"
