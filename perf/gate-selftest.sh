#!/usr/bin/env bash
# Shows that the gate can fail: a kernel made slower, a bench deleted, a kernel made faster. Works on a
# worktree of HEAD under target/, so the tree that it is started from is never touched.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD tree=$PWD/target/gate-selftest
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
. perf/runner.sh
undo() { git worktree remove --force "$tree" 2>/dev/null || true; }
trap undo EXIT
undo
git worktree add -q --detach "$tree" HEAD
cargo build -q -p kvern-perf
gate=$CARGO_TARGET_DIR/debug/kvern-perf

# expect WHAT CODE TEXT: the gate exits with CODE and says TEXT.
expect() {
    git -C "$tree" diff --quiet && { echo "$1: the deliberate change changed nothing"; exit 1; }
    local code=0 out
    out=$("$gate" gate --dir "$tree" 2>/dev/null) || code=$?
    echo "== $1: exit code $code"
    grep -E '^(regression|stale):' <<<"$out" | head -8 || true
    [ "$code" = "$2" ] || { echo "expected exit code $2"; exit 1; }
    grep -q -- "$3" <<<"$out" || { echo "expected to read: $3"; exit 1; }
    git -C "$tree" checkout -q .
}

# A row of 512 takes some 3700 instructions; 74 more are 2 %.
sed -i '/unsafe fn layer_norm</a unsafe { std::arch::asm!(".rept 74", "nop", ".endr") };' \
    "$tree/src/kernels/generic/norm.rs"
expect "a kernel 2 % slower" 3 "regression: rows::layer_norm::512 at avx2"

sed -i 's/rms_norm, softmax, relu, gelu,/rms_norm, softmax, relu,/' "$tree/benches/icount/rows.rs"
expect "a bench deleted" 3 "rows::gelu::128 at avx2: in the ledger, but no bench counts it"

# The ledger of a version whose layer norm took 2 % more: today's code is the improvement.
awk -F'\t' -v OFS='\t' '$1 == "rows::layer_norm::512" && $2 == "avx2" { $3 = int($3 * 1.02) } 1' \
    "$tree/perf/icount.tsv" >"$tree/ledger" && mv "$tree/ledger" "$tree/perf/icount.tsv"
expect "a kernel 2 % faster" 4 "bless the improvement"
echo "the gate fails when it has to"
