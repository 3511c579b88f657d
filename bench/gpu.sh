#!/bin/sh
# Check and measure headgate on one GPU, in at most 8 minutes: bench/gpu.sh --out FOLDER, or --rehearse (docs/bench.md).
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# -P: what lies in the folder where this is called has no say
exec timeout --signal=INT --kill-after=10 480 "$python" -P -m bench.gpu "$@"
