#!/usr/bin/env bash
# Line coverage by tests: `perf/coverage.sh [ARGUMENTS OF CARGO LLVM-COV]` of the library, `perf/coverage.sh
# mini [ARGUMENTS]` of the application, which also counts the modules at 100 % and fails below 97 %.
#
# Needs cargo-llvm-cov (`cargo install cargo-llvm-cov --root target/tools`) and the llvm-cov and llvm-profdata
# of rustc's own LLVM release (rustc -vV names it).
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
if [ "${1:-}" != mini ]; then
    exec cargo llvm-cov --package kvern --features capi --ignore-filename-regex '(^|/)(tests|mini|perf)/' "$@"
fi
shift
# The golden training on every tier is left out: with counters in its software FMAs, the scalar tier takes
# many minutes, and other tests run the same lines.
table=$(mktemp)
trap 'rm -f "$table"' EXIT
cargo llvm-cov --package mini --ignore-filename-regex "^$PWD/(src|perf|tests)/" --fail-under-lines 97 "$@" \
    -- --skip the_default_training_gives_the_golden_weights | tee "$table"
awk '/\.rs / && $10 == "100.00%" { whole++ }
    END { print whole + 0 " modules of mini have 100 % line coverage" }' "$table"
