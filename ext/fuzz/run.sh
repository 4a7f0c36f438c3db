#!/bin/sh
# Fuzz the native kernel under AddressSanitizer and UBSan: ext/fuzz/run.sh [SECONDS] [SEED] [FUZZER...]
# Seeded and without instrumentation, so any C11 compiler will do; a failure prints the seed to repeat it with.
set -eu
seconds=${1:-20}
seed=${2:-$(date +%s)}
if [ $# -gt 2 ]; then shift 2; else set -- scanner assembler sights fetch remembered gathered; fi
here=$(cd "$(dirname "$0")" && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for name in "$@"; do
    "${CC:-cc}" -std=c11 -O1 -g -Wall -Wextra -Wno-unused-function -fno-omit-frame-pointer \
        -fsanitize=address,undefined -fno-sanitize-recover=undefined -I"$here/.." "$here/$name.c" -o "$build/$name"
done
rounds() { # some tenths of a second of each
    case $1 in
        scanner) echo 20000 ;;
        assembler) echo 300 ;;
        sights) echo 500 ;;
        fetch) echo 3000 ;;
        remembered) echo 20 ;;
        gathered) echo 60 ;;
        *) echo "no fuzzer $1" >&2; exit 2 ;;
    esac
}
end=$(($(date +%s) + seconds))
while [ "$(date +%s)" -lt "$end" ]; do
    for name in "$@"; do
        count=$(rounds "$name")
        "$build/$name" "$seed" "$count" "$here"/corpus/* || { echo "failed: $name $seed $count" >&2; exit 1; }
    done
    seed=$((seed + 1))
done
