#!/bin/sh
# Fuzz the native kernel under AddressSanitizer and UBSan: ext/fuzz/run.sh [SECONDS] [SEED]
# Seeded and without instrumentation, so any C11 compiler will do; a failure prints the seed to repeat it with.
set -eu
seconds=${1:-20}
seed=${2:-$(date +%s)}
here=$(cd "$(dirname "$0")" && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for target in scanner assembler; do
    "${CC:-cc}" -std=c11 -O1 -g -Wall -Wextra -Wno-unused-function -fno-omit-frame-pointer \
        -fsanitize=address,undefined -fno-sanitize-recover=undefined -I"$here/.." "$here/$target.c" -o "$build/$target"
done
end=$(($(date +%s) + seconds))
while [ "$(date +%s)" -lt "$end" ]; do
    for target in "scanner $seed 20000" "assembler $seed 300"; do
        # shellcheck disable=SC2086
        "$build/"$target "$here"/corpus/* || { echo "failed: $target" >&2; exit 1; }
    done
    seed=$((seed + 1))
done
