#!/bin/sh
# Check and measure headgate on one GPU, in at most 8 minutes: bench/gpu.sh --out FOLDER, or --rehearse (docs/bench.md).
cd "$(dirname "$0")/.." || exit
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec timeout --signal=INT --kill-after=10 480 "$python" -m bench.gpu "$@"
