#!/usr/bin/env bash
# Everything that is worth a GPU in at most nine minutes, on a machine without a network:
#     bash benchmarks/gpu.sh [--seconds 540] [--only tests] [--tiny]
# Python packages that the machine lacks travel as wheels in benchmarks/wheels/, which `make gpu-wheels` fills.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if compgen -G "benchmarks/wheels/*.whl" > /dev/null; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --target "$site" benchmarks/wheels/*.whl ||
        echo "the wheels are not for this Python (make gpu-wheels GPU_PYTHON=3.12); going on with what is installed"
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
"$python" benchmarks/gpu.py "$@"
