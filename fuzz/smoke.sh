#!/usr/bin/env bash
# Builds every fuzz target and runs each for a short time: fuzz/smoke.sh [SECONDS, 30 by default].
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PATH"
cargo +nightly fuzz build --codegen-units 16
for target in $(cargo +nightly fuzz list); do
    cargo +nightly fuzz run --codegen-units 16 "$target" -- \
        -max_total_time="${1:-30}" -len_control=0 -max_len=256 -print_final_stats=1
done
