"""numpy's `a @ b` on kvern, where numpy calls the system's BLAS (Debian's python3-numpy does):

    make install PREFIX=/tmp/kvern FEATURES=cblas
    LD_PRELOAD=/tmp/kvern/lib/libkvern.so.0 python3 numpy_on_kvern.py
"""
import ctypes
import os
import sys

import numpy as np


def bound_by(name):
    """The file that the loader found `name` in, for everything that is linked to it."""
    class Info(ctypes.Structure):
        _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p),
                    ("name", ctypes.c_char_p), ("address", ctypes.c_void_p)]

    process, info = ctypes.CDLL(None), Info()
    address = ctypes.cast(getattr(process, name), ctypes.c_void_p)
    process.dladdr(address, ctypes.byref(info))
    return os.path.basename(info.file.decode())


def check(what, got, a, b):
    """Compares with a product in float64, summed by einsum, which calls no BLAS."""
    exact = np.einsum("ij,jk->ik", np.atleast_2d(a).astype(np.float64), b.astype(np.float64))
    error = np.abs(got - exact.reshape(got.shape)).max()
    assert error <= a.shape[-1] ** 2 * 2.0**-24, f"{what}: the error is {error}"
    print(f"{what}: error {error:.1e}")


files = {name: bound_by(name) for name in ("cblas_sgemm", "cblas_sgemv")}
if not all(file.startswith("libkvern") for file in files.values()):
    sys.exit(f"kvern is not preloaded: {files}")

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

# The bits are kvern's own: those of a row alone are those of the row in a batch.
assert ((a[5:6] @ b) == (a @ b)[5:6]).all(), "a row alone has other bits"

# A forked child computes as well, without its parent's threads.
product = a @ b
child = os.fork()
if child == 0:
    os._exit(0 if (a @ b == product).all() else 1)
assert os.waitpid(child, 0)[1] == 0, "the child failed"
print("numpy multiplies on kvern")
