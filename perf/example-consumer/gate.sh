#!/usr/bin/env bash
# Gates this crate's instruction counts: `gate.sh`, or `gate.sh bless` to rewrite its ledger.
set -euo pipefail
cd "$(dirname "$0")"
cargo run -q --manifest-path ../Cargo.toml -- "${1:-gate}" --dir . --bench counts
