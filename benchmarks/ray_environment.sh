#!/bin/sh
# Ray is no dependency of this project: FOLDER/ray is an environment of its own with it and the
# runtime, for examples/ray_archive.py and its test (which looks in cache/ray).
#     benchmarks/ray_environment.sh cache
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
if [ ! -f "$folder/ray/installed" ]; then
    python3 -m venv "$folder/ray"
    "$folder/ray/bin/python" -m pip install --quiet --constraint "$root/constraints.txt" \
        'ray[data]==2.60.0' --editable "$root"
    touch "$folder/ray/installed"
fi
