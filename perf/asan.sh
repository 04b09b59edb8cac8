#!/usr/bin/env bash
# Runs the tests of the library and of its C ABI under AddressSanitizer: perf/asan.sh [TEST_NAME_FILTER].
#
# Needs a nightly compiler (rustup toolchain install nightly) and Linux. Left out, because they look at the
# built library from outside: `packaging` (C programs without the sanitizer's run time), `codegen` (the
# instructions of the kernels), `no_alloc` (an allocator of its own, which counts), documentation tests (which
# rustdoc builds without the flags of the library). kvern itself is instrumented, the standard library is not.
set -euo pipefail
cd "$(dirname "$0")/.."
left_out=" packaging codegen no_alloc "
tests=()
for main in tests/*.rs tests/*/main.rs; do
    name=${main#tests/}; name=${name%/main.rs}; name=${name%.rs}
    [[ $left_out == *" $name "* ]] || tests+=(--test "$name")
done
host=$(rustc -vV | sed -n 's/^host: //p')
# The C ABI leaks the payload of a panic that is no text on purpose, and a test panics with a number.
suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
echo 'leak:std::panicking::begin_panic' >"$suppressions"
export LSAN_OPTIONS="suppressions=$suppressions:print_suppressions=0"
# An allocation that cannot be had gives NULL, as without the sanitizer: tests ask for impossible sizes.
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1:detect_stack_use_after_return=1}
export RUSTFLAGS="-Zsanitizer=address ${RUSTFLAGS:-}"
export KVERN_DIFFERENTIAL_SECONDS=${KVERN_DIFFERENTIAL_SECONDS:-20}
# The target is named, so that build scripts and procedural macros are built without the flags.
cargo +nightly test -p kvern --lib "${tests[@]}" --target "$host" --target-dir target/asan -- "$@"
echo "AddressSanitizer: clean (without$left_out)"
