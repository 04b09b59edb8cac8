"""numpy's `a @ b` on kvern, where numpy calls the system's BLAS (Debian's python3-numpy does):

    make install PREFIX=/tmp/kvern FEATURES=cblas
    LD_PRELOAD=/tmp/kvern/lib/libkvern.so.0 python3 numpy_on_kvern.py

A numpy from PyPI brings an OpenBLAS whose names have a suffix (`scipy_cblas_sgemm64_`), so that no other
library can take its place. So this program looks at the addresses that numpy calls. Linux, 64 bits.
"""
import ctypes
import os
import struct
import sys

import numpy as np


class Info(ctypes.Structure):
    """What dladdr says about an address."""
    _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p),
                ("name", ctypes.c_char_p), ("address", ctypes.c_void_p)]


def owner(address):
    """(file, base address) of the loaded object that has this address."""
    info = Info()
    if not ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(info)):
        sys.exit(f"no loaded file has the address {address:#x}")
    return os.fsdecode(info.file), info.base


def imports(file, symbol):
    """{name: files} of a loaded ELF file: the names that it imports, the files that their addresses lie in.

    `symbol`: any function that `file` exports, by which its base address is found. The address of a function
    that was never called may be that of a stub in `file`, which looks the function up.
    """
    base = owner(ctypes.cast(getattr(ctypes.CDLL(file), symbol), ctypes.c_void_p).value)[1]
    with open(file, "rb") as elf:
        head = elf.read(64)
        if head[:5] != b"\x7fELF\x02":
            sys.exit(f"{file} is no 64-bit ELF file")
        table, entry, entries = struct.unpack_from("<32xQ14xHH", head)
        elf.seek(table)
        segments = [struct.unpack_from("<IIQQQQQQ", elf.read(entry)) for _ in range(entries)]
        _, _, start, _, _, length, _, _ = next(s for s in segments if s[0] == 2)  # PT_DYNAMIC
        elf.seek(start)
        dynamic = dict(struct.iter_unpack("<QQ", elf.read(length)))
    strings, symbols = base + dynamic[5], base + dynamic[6]  # DT_STRTAB, DT_SYMTAB
    found = {}
    for at, bytes in ((23, 2), (7, 8)):  # DT_JMPREL with DT_PLTRELSZ, DT_RELA with DT_RELASZ
        if at not in dynamic:
            continue
        relocations = ctypes.string_at(base + dynamic[at], dynamic[bytes])
        for slot, info, _ in struct.iter_unpack("<QQq", relocations):
            entry = ctypes.string_at(symbols + 24 * (info >> 32), 24)
            name, _, _, section, _, _ = struct.unpack("<IBBHQQ", entry)
            if info >> 32 and section == 0:  # undefined here: imported
                address = ctypes.c_size_t.from_address(base + slot).value
                name = ctypes.string_at(strings + name).decode()
                found.setdefault(name, set()).add(owner(address)[0] if address else "nowhere")
    return found


def expect_kvern(file, symbol, names):
    """Ends the program unless these functions, as `file` calls them, are kvern's."""
    bound = imports(file, symbol)
    for name in names:
        if name not in bound:
            others = sorted(other for other in bound if "gemm" in other)
            sys.exit(f"numpy does not run on kvern: {file} does not call {name}, but {others or 'no BLAS'}. "
                     "A numpy that is linked to the system's BLAS is needed.")
        if not all(os.path.basename(owner).startswith("libkvern") for owner in bound[name]):
            sys.exit(f"numpy does not run on kvern: {name} is that of {sorted(bound[name])}. Is libkvern "
                     "preloaded, and built with FEATURES=cblas?")
        print(f"{name}: {sorted(bound[name])[0]}")


def check(what, got, a, b):
    """Compares with a product in float64, summed by einsum, which calls no BLAS."""
    exact = np.einsum("ij,jk->ik", np.atleast_2d(a).astype(np.float64), b.astype(np.float64))
    error = np.abs(got - exact.reshape(got.shape)).max()
    assert error <= a.shape[-1] ** 2 * 2.0**-24, f"{what}: the error is {error}"
    print(f"{what}: error {error:.1e}")


def main():
    random = np.random.default_rng(1)
    a = random.standard_normal((300, 200), dtype=np.float32)
    b = random.standard_normal((200, 150), dtype=np.float32)
    x = random.standard_normal(200, dtype=np.float32)
    check("a @ b", a @ b, a, b)
    check("a @ b, transposed", a[:200].T @ b, a[:200].T, b)
    check("a @ b, strided", a[::2, :100] @ b[:100, 10:], a[::2, :100], b[:100, 10:])
    check("a @ b, column-major", np.asfortranarray(a) @ np.asfortranarray(b), a, b)
    check("x @ b", x @ b, x, b)
    check("a @ x", a @ x, x, np.ascontiguousarray(a.T))

    # Every function was called by now, so that its address is known.
    core = getattr(np, "_core", None) or np.core
    expect_kvern(core._multiarray_umath.__file__, "PyInit__multiarray_umath", ("cblas_sgemm", "cblas_sgemv"))

    # The bits are kvern's own: those of a row alone are those of the row in a batch.
    assert ((a[5:6] @ b) == (a @ b)[5:6]).all(), "a row alone has other bits"

    # A forked child computes as well, without its parent's threads.
    product = a @ b
    child = os.fork()
    if child == 0:
        os._exit(0 if (a @ b == product).all() else 1)
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    print("numpy multiplies on kvern")


if __name__ == "__main__":
    main()
