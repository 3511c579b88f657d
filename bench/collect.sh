#!/bin/sh
# Join the weights that bench/gpu.sh has split, and check them: bench/collect.sh FOLDER
set -eu
cd "${1:?expected the folder that bench/gpu.sh wrote}"
weights=model.safetensors
grep "  $weights\.[0-9]" SHA256SUMS | sha256sum --check --quiet
cat $weights.[0-9][0-9] > joined
if ! sed -n "s/  $weights\$/  joined/p" SHA256SUMS | sha256sum --check --quiet; then
    rm joined
    exit 1
fi
mv joined $weights
echo "$PWD/$weights: whole"
