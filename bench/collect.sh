#!/bin/sh
# Join the weights that bench/gpu.sh has split, and check them: bench/collect.sh FOLDER
set -eu
fail() {
    echo "error: $1" >&2
    exit 1
}
check() { # PATH SHA256
    [ -f "$1" ] || fail "$1: missing; copy it again"
    [ "$(sha256sum <"$1")" = "$2  -" ] || fail "$1: damaged; copy it again"
}

command -v sha256sum >/dev/null || fail "expected the program sha256sum, found none; install GNU coreutils"
[ $# = 1 ] || fail "expected one folder, which bench/gpu.sh wrote: bench/collect.sh FOLDER"
[ -d "$1" ] || fail "$1: expected the folder that bench/gpu.sh wrote, found none; copy it again"
sums=$1/SHA256SUMS weights=$1/model.safetensors joined=$1/joined whole=
[ -f "$sums" ] || fail "$sums: missing; copy it again"
rm -f "$weights" "$joined"
trap 'rm -f "$joined"' EXIT
while read -r sum name; do
    if [ "$name" = model.safetensors ]; then
        whole=$sum
    else
        check "$1/$name" "$sum"
        cat "$1/$name" >>"$joined"
    fi
done <"$sums"
[ -f "$joined" ] && [ "$(sha256sum <"$joined")" = "$whole  -" ] || fail "$sums: damaged; copy it again"
mv "$joined" "$weights"
echo "$weights: whole"
