#!/usr/bin/env bash
# Counts instructions of the aarch64 tiers on any x86-64 Debian machine, and looks at their hot loops.
#
#   perf/aarch64.sh check      # compares with the ledgers in perf/aarch64; exit codes as of `kvern-perf gate`
#   perf/aarch64.sh bless      # rewrites them
#
# Runs `kvern-counts` under qemu-user with the plugin `perf/aarch64/count.c` at each tier, and hands the
# counts to kvern-perf. The counts are those of the guest: the same on every host.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in check | bless) ;; *) echo "usage: perf/aarch64.sh check|bless" >&2; exit 2 ;; esac
. .ci/cross-aarch64

out=$cross_dir/counts
mkdir -p "$out"
cc -shared -fPIC -O2 -Wall -Wextra -Werror -o "$out/count.so" perf/aarch64/count.c
# With a test of the library, whose dependencies choose features: so the library is the one that tests link.
"$cargo" build -q "${build[@]}" -p kvern -p kvern-counts --test codegen --bin kvern-counts
program=$built/kvern-counts

: > "$out/counts.tsv"
for tier in $(qemu-aarch64 -cpu max "$program" | grep -v scalar); do
    qemu-aarch64 -cpu max -plugin "$out/count.so,symbol=kvern_counts7counted" -d plugin -D "$out/numbers" \
        "$program" "$tier" > "$out/names"
    if [ "$(wc -l < "$out/names")" != "$(wc -l < "$out/numbers")" ]; then
        echo "perf/aarch64.sh: calls of $tier were not counted" >&2
        exit 1
    fi
    paste "$out/names" "$out/numbers" | awk -v tier="$tier" -v OFS='\t' '{ print $1, tier, $2 }' \
        >> "$out/counts.tsv"
done

gate=$1
[ "$gate" = bless ] || gate=gate
cargo run -q -p kvern-perf -- "$gate" --ledger perf/aarch64/icount.tsv --counts "$out/counts.tsv" \
    --executable "$program" --objdump aarch64-linux-gnu-objdump \
    --counted-by "rustc: $("${RUSTC:-rustc}" -V)" \
    --counted-by "target: $target" \
    --counted-by "counter: $(qemu-aarch64 --version | grep -om1 '^qemu-aarch64 version [0-9]*\.[0-9]*')"
