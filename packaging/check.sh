#!/bin/sh
# Checks an installed release: check.sh PREFIX. The shared library is below 4 MiB and both libraries export
# what tests/fixtures/symbols.txt lists, nothing else: the features are `capi` alone.
set -eu
lib=$1/lib
names=$(dirname "$0")/../tests/fixtures/symbols.txt
bytes=$(wc -c <"$lib/libkvern.so")
[ "$bytes" -lt 4194304 ] || { echo "libkvern.so has $bytes bytes, 4 MiB are allowed" >&2; exit 1; }
nm -D --defined-only "$lib/libkvern.so" | awk '{ print $NF }' | LC_ALL=C sort | diff "$names" -
nm -g --defined-only "$lib/libkvern.a" | awk 'NF > 1 { print $NF }' | LC_ALL=C sort | diff "$names" -
echo "libkvern.so: $bytes bytes, $(wc -l <"$names") exported names"
