#!/usr/bin/env bash
# Counts everything anew and rewrites the ledgers: kvern's, its microkernels', the example's.
set -euo pipefail
cd "$(dirname "$0")/.."
. perf/runner.sh
cargo run -q -p kvern-perf -- bless
perf/example-consumer/gate.sh bless
git diff --stat -- perf
