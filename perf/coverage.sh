#!/usr/bin/env bash
# Line coverage of the library by its tests. Needs cargo-llvm-cov (`cargo install cargo-llvm-cov --root
# target/tools`) and the llvm-cov and llvm-profdata of rustc's own LLVM release (rustc -vV names it).
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
exec cargo llvm-cov --package kvern --features capi --ignore-filename-regex '(^|/)(tests|mini|perf)/' "$@"
