#!/usr/bin/env bash
# Line coverage of mini/ by its tests: the table of all modules, and how many are at 100 %. Fails below 97 %.
# Needs what coverage.sh needs.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PATH"
major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
LLVM_COV=${LLVM_COV:-$(command -v "llvm-cov-$major" || command -v llvm-cov || true)}
LLVM_PROFDATA=${LLVM_PROFDATA:-$(command -v "llvm-profdata-$major" || command -v llvm-profdata || true)}
if ! command -v cargo-llvm-cov >/dev/null || [ -z "$LLVM_COV" ] || [ -z "$LLVM_PROFDATA" ]; then
    echo "coverage: cargo-llvm-cov, llvm-cov-$major and llvm-profdata-$major are needed" >&2
    exit 1
fi
export LLVM_COV LLVM_PROFDATA
# The golden training on every tier is left out: with counters in its software FMAs, the scalar tier takes many
# minutes, and other tests run the same lines.
table=$(mktemp)
trap 'rm -f "$table"' EXIT
cargo llvm-cov --package mini --ignore-filename-regex "^$PWD/(src|perf|tests)/" --fail-under-lines 97 "$@" \
    -- --skip the_default_training_gives_the_golden_weights | tee "$table"
awk '/\.rs / && $10 == "100.00%" { whole++ } END { print whole + 0 " modules of mini have 100 % line coverage" }' "$table"
