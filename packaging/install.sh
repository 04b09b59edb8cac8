#!/bin/sh
# Installs what cargo has built: install.sh DIRECTORY_OF_libkvern, with PREFIX (/usr/local), LIBDIR (lib, or
# what a distribution has below the prefix, such as lib/x86_64-linux-gnu) and DESTDIR from the environment,
# and TARGET (Rust's name) where that was for another system than this one. STRIP, LD, OBJCOPY, AR and NM are
# tools.
set -eu
built=$1
root=$(cd "$(dirname "$0")/.." && pwd)
PREFIX=${PREFIX:-/usr/local}
LIBDIR=${LIBDIR:-lib}
tools=
case ${TARGET:-$(uname -s)} in
*-windows-gnu) system=windows tools=${TARGET%%-*}-w64-mingw32- ;;
MINGW* | MSYS*) system=windows ;;
*-apple-darwin | Darwin) system=macos ;;
*-linux-* | *bsd* | *BSD | Linux) system=elf ;;
*) echo "install.sh knows no file names of ${TARGET:-$(uname -s)}" >&2; exit 1 ;;
esac
STRIP=${STRIP:-${tools}strip} LD=${LD:-ld} OBJCOPY=${OBJCOPY:-objcopy} AR=${AR:-ar} NM=${NM:-nm}

macro() { sed -n "s/^#define KVERN_$1 \"\{0,1\}\([0-9.]*\)\"\{0,1\}\$/\1/p" "$root/include/kvern.h"; }
version=$(macro VERSION_STRING)
abi=$(macro ABI_VERSION)
prefix=${DESTDIR:-}$PREFIX
lib=$prefix/$LIBDIR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

put() { # MODE FROM TO, replacing a file that runs
    mkdir -p "$(dirname "$3")"
    cp "$2" "$3.new" && chmod "$1" "$3.new" && mv -f "$3.new" "$3"
}
fill() { # TEMPLATE TO
    up=$(printf '%s' "$LIBDIR" | sed 's,[^/][^/]*,..,g')
    sed -e "s,@PREFIX@,$PREFIX,g; s,@LIBDIR@,$LIBDIR,g; s,@UP@,$up,g" \
        -e "s,@VERSION@,$version,g; s,@ABI@,$abi,g; s,@SYSTEM@,$system,g; s,@LINKED@,$linked,g" \
        -e "s,@MAJOR@,$(macro VERSION_MAJOR),g; s,@MINOR@,$(macro VERSION_MINOR),g" \
        "$root/packaging/$1" >"$work/filled"
    put 644 "$work/filled" "$2"
}

# Sets `shared`, the file that was installed, and `linked`, the system's libraries that the static one needs.
install_elf() {
    shared=$lib/libkvern.so.$version linked="m pthread dl"
    "$STRIP" --strip-unneeded -o "$work/libkvern.so" "$built/libkvern.so"
    put 755 "$work/libkvern.so" "$shared"
    ln -sf "libkvern.so.$version" "$lib/libkvern.so.$abi"
    ln -sf "libkvern.so.$abi" "$lib/libkvern.so"

    # The static library is one object whose only global names are those that the shared one exports, and
    # whose only sections are those that they reach: 4 MB of 17. Two libraries made by rustc, of whatever
    # versions, then link into one program, each with a standard library of its own. Groups are dissolved, or
    # the linker would fold those of two libraries although their names are local; sections of LLVM bitcode do
    # not survive being joined.
    "$NM" -D --defined-only "$built/libkvern.so" | awk '{ print $NF }' >"$work/names"
    "$STRIP" --strip-debug -o "$work/stripped.a" "$built/libkvern.a"
    "$LD" -r --gc-sections --force-group-allocation $(sed 's/^/-u /' "$work/names") --whole-archive \
        -o "$work/kvern.o" "$work/stripped.a"
    "$OBJCOPY" --keep-global-symbols="$work/names" -R .llvmbc -R .llvmcmd "$work/kvern.o"
    # Names that only removed sections used are gone as well: here weak references of the standard library
    # would have become strong ones.
    "$STRIP" --strip-unneeded "$work/kvern.o"
    "$AR" rcsD "$work/libkvern.a" "$work/kvern.o"
    put 644 "$work/libkvern.a" "$lib/libkvern.a"
}

install_macos() {
    shared=$lib/libkvern.$version.dylib linked=
    "$STRIP" -x -o "$work/libkvern.dylib" "$built/libkvern.dylib"
    put 755 "$work/libkvern.dylib" "$shared"
    ln -sf "libkvern.$version.dylib" "$lib/libkvern.$abi.dylib"
    ln -sf "libkvern.$abi.dylib" "$lib/libkvern.dylib"
    "$STRIP" -S -o "$work/libkvern.a" "$built/libkvern.a"
    put 644 "$work/libkvern.a" "$lib/libkvern.a"
}

install_windows() {
    shared=$prefix/bin/kvern.dll linked="kernel32 ntdll userenv ws2_32 dbghelp"
    "$STRIP" --strip-unneeded -o "$work/kvern.dll" "$built/kvern.dll"
    put 755 "$work/kvern.dll" "$shared"
    put 644 "$built/libkvern.dll.a" "$lib/libkvern.dll.a"
    # Members of debug information alone, of Rust's standard library, which GNU strip takes for no objects.
    cp "$built/libkvern.a" "$work/all.a"
    "$AR" t "$work/all.a" | grep '\.dwo$' | xargs -r "$AR" d "$work/all.a"
    "$STRIP" --strip-debug -o "$work/libkvern.a" "$work/all.a"
    put 644 "$work/libkvern.a" "$lib/libkvern.a"
}

"install_$system"
put 644 "$root/include/kvern.h" "$prefix/include/kvern.h"
put 644 "$root/include/kvern.hpp" "$prefix/include/kvern.hpp"
for header in "$root"/include/kvern/*.hpp; do
    put 644 "$header" "$prefix/include/kvern/${header##*/}"
done
fill kvern-config.cmake.in "$lib/cmake/kvern/kvern-config.cmake"
fill kvern-config-version.cmake.in "$lib/cmake/kvern/kvern-config-version.cmake"
linked=$(printf '%s' "$linked" | sed 's,[^ ][^ ]*,-l&,g')
fill kvern.pc.in "$lib/pkgconfig/kvern.pc"
echo "installed kvern $version in $PREFIX: ${shared##*/} has $(wc -c <"$shared" | tr -d ' ') bytes"
