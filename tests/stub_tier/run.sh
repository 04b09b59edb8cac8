#!/usr/bin/env bash
# Makes a tier of the stub beside this file, in a copy of the repository, and runs the tests there: the tests
# that go through every tier then hold the tier's bits against the scalar ones. So a new instruction set takes
# the files that this script edits and no others, and the default methods of `Simd` have the right bits in
# every kernel.
#
#   tests/stub_tier/run.sh [arguments of cargo test]     # default: numerics, attention, quant and capi
#   tests/stub_tier/run.sh check                         # `make check`: counts the files and compiles
#
# On an architecture of its own a tier has a folder (`mod.rs`, the tier, its quantised tables): two files
# more.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
copy="$root/target/stub-tier"
most=6 # files that a tier may take, without those that KVERN_BLESS=1 writes

rm -rf "$copy"
mkdir -p "$copy"
cd "$root"
git ls-files -z | xargs -0 cp --parents -t "$copy"
cd "$copy"

# after FILE LINE TEXT: puts TEXT after the first line that is LINE.
after() {
    awk -v line="$2" -v text="$3" '
        { print }
        !done && $0 == line { print text; done = 1 }
        END { if (!done) exit 1 }' "$1" > edited || { echo "$1 has no line: $2" >&2; exit 1; }
    mv edited "$1"
}

# 1. Name, number, preference and features.
after src/isa.rs "    Scalar = 1," "    /// The scalar code under a second name."$'\n'"    Stub = 99,"
scalar='    Tier { isa: Isa::Scalar, name: "scalar", arch: std::env::consts::ARCH, built: true, '
scalar+='missing: || None },'
stub=${scalar/Isa::Scalar/Isa::Stub}
after src/isa.rs "$scalar" "${stub/'"scalar"'/'"stub"'}"
# 2. The methods of the tier and its tables.
cat tests/stub_tier/simd.rs tests/stub_tier/tables.rs > src/kernels/stub.rs
# 3. The module, and the choice of its kernels.
sed -i '/^#\[cfg(test)\]$/{N;N;s/.*\nmod stub;$/mod stub;/}' src/kernels/mod.rs
after src/kernels/mod.rs "            Isa::Scalar => Some(&scalar::KERNELS)," \
    "            Isa::Stub => Some(&stub::KERNELS),"
# 4. The number of the tier in the C ABI.
after src/capi/isa.rs "pub const KVERN_ISA_DEFAULT: kvern_isa = 0;" \
    "/// The scalar code under a second name."$'\n'"pub const KVERN_ISA_STUB: kvern_isa = 99;"

differ='s/^Files .* and \(.*\) differ$/\1/; s/^Only in \(.*\): /\1\//'
files=$({ diff -rq "$root/src" src || true; } | sed "$differ" | sort)
count=$(wc -l <<< "$files")
printf 'a tier takes %s files:\n%s\n' "$count" "$files"
[ "$count" -le "$most" ] || { echo "more than $most" >&2; exit 1; }

# Of its own: Cargo takes the two workspaces for one, and the header of the stub would be the library's.
export CARGO_TARGET_DIR="$root/target/stub-build"
if [ "${1:-}" = check ]; then
    cargo check -q -p kvern --features cblas
    exit
fi
[ $# -gt 0 ] || set -- --test numerics --test attention --test quant --test capi
cargo test -q -p kvern "$@"
