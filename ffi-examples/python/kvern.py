"""kvern through ctypes: numpy arrays in and out, nothing to build.

The library is the file that KVERN_LIBRARY names, else the one that the system finds. Only what a decoder's
linear layers and attention need is here; other functions of kvern.h are called in the same way through `lib`.

Inputs may have any strides, any byte order and any type that float32 holds exactly; the wrapper copies what
the library cannot read in place. Outputs (`out=`) are written in place: float32, writable, rows without gaps
between columns. Anything else is refused with a TypeError, a ValueError or, by the library, with an Error.
"""
import ctypes
import operator
import os
import sys
import threading
from ctypes import byref, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_void_p

import numpy as np

_names = {"darwin": "libkvern.0.dylib", "win32": "kvern.dll"}
lib = ctypes.CDLL(os.environ.get("KVERN_LIBRARY", _names.get(sys.platform, "libkvern.so.0")))

# Weight formats and the two ways to compute: numbers of kvern.h.
Q4_0, Q8_0 = 2, 8
INT8, F32 = 0, 1

_size, _pointer, _number = c_size_t, c_void_p, c_int32
# Parameters of each function. Without them ctypes would pass a Python integer as a C int.
_signatures = {
    "kvern_isa_from_name": [_pointer, _pointer],
    "kvern_context_create": [_pointer] * 2,
    "kvern_context_isa": [_pointer] * 2,
    "kvern_workspace_create": [_pointer, _size, _pointer],
    "kvern_workspace_reserve": [_pointer, _size],
    "kvern_matmul_workspace_bytes": [_pointer, _size, _size, _size, _pointer],
    # context, workspace, m, n, k, then A and B with stride and transposition, C with its stride, epilogue
    "kvern_matmul":
        [_pointer] * 2 + [_size] * 3 + [_pointer, _size, _number] * 2 + [_pointer, _size, _pointer],
    "kvern_weights_quantize": [_pointer, _number, _size, _size, _pointer, _size, _pointer],
    "kvern_weights_workspace_bytes": [_pointer, _pointer, _number, _size, _pointer],
    # context, workspace, weights, compute, m, n, k, A and C with their strides, epilogue
    "kvern_weights_multiply": [_pointer] * 3 + [_number] + [_size] * 3 + [_pointer, _size] * 2 + [_pointer],
    "kvern_weights_dequantize_row": [_pointer, _size, _size, _pointer],
    "kvern_kv_cache_create": [_pointer] * 3,
    "kvern_kv_cache_append": [_pointer, _size] + [_pointer, _size] * 2,
    "kvern_attention_workspace_bytes": [_pointer] * 3 + [_size, _pointer],
    # context, workspace, options, cache, q_len, Q and OUT with their strides
    "kvern_attention": [_pointer] * 4 + [_size] + [_pointer, _size] * 2,
}
for _name, _parameters in _signatures.items():
    getattr(lib, _name).argtypes, getattr(lib, _name).restype = _parameters, c_int32
for _kind in "context", "workspace", "weights", "kv_cache":
    _destroy = getattr(lib, f"kvern_{_kind}_destroy")
    _destroy.argtypes, _destroy.restype = [_pointer], None
lib.kvern_isa_count.restype, lib.kvern_isa_at.argtypes = c_size_t, [c_size_t]
for _name in "kvern_isa_name", "kvern_isa_status":
    getattr(lib, _name).argtypes, getattr(lib, _name).restype = [c_int32], c_char_p
lib.kvern_last_error_message.restype = c_char_p
lib.kvern_version_string.restype = c_char_p


class Error(Exception):
    """A refused call; `status` is a KVERN_STATUS number."""

    def __init__(self, status):
        super().__init__(lib.kvern_last_error_message().decode())
        self.status = status


def call(name, *args):
    status = getattr(lib, name)(*args)
    if status != 0:
        raise Error(status)


def size(name, *args):
    """What a query with a last argument `size_t *out` answers."""
    out = c_size_t()
    call(name, *args, byref(out))
    return out.value


def count(what, value, most=2**63 - 1):
    """A size as a Python integer, because ctypes drops the high bits of what does not fit."""
    value = operator.index(value)
    if not 0 <= value <= most:
        raise ValueError(f"{what} = {value} must be in 0..={most}")
    return value


def pointer(x):
    """The address of an array. It keeps the array alive as long as it lives itself."""
    return x.ctypes.data_as(c_void_p)


def in_place(x):
    """Whether C can use x as it lies: native float32, aligned, in contiguous rows that do not overlap."""
    row = 4 * x.shape[1]
    gap_free = x.shape[1] < 2 or x.strides[1] == 4
    apart = x.shape[0] < 2 or (x.strides[0] >= row and x.strides[0] % 4 == 0)
    return x.dtype == np.float32 and x.dtype.isnative and x.flags.aligned and gap_free and apart


def stride(x):
    """Elements from a row to the next one. numpy may state any stride for an axis of one element or none."""
    return x.strides[0] // 4 if x.shape[0] > 1 else x.shape[1]


def rows(what, x):
    """x: (rows, columns), as an array that C can read; a copy where x itself is none."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{what} is a masked array, whose mask would be lost")
    x = np.asarray(x)
    if not np.can_cast(x.dtype, np.float32, "safe"):
        raise TypeError(f"{what} has type {x.dtype}, which float32 does not hold exactly: convert it first")
    if x.ndim != 2:
        raise ValueError(f"{what} has {x.ndim} axes instead of 2")
    return x if in_place(x) else np.array(x, np.float32, order="C")


def output(out, shape):
    """`out` as it is if C can write a result of this shape to it, a new array for None."""
    if out is None:
        return np.empty(shape, np.float32)
    if type(out) is not np.ndarray:
        raise TypeError(f"out is a {type(out).__name__} instead of a numpy.ndarray")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape} instead of {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if not in_place(out if out.ndim == 2 else out[np.newaxis]):
        raise ValueError(f"out has type {out.dtype.str} and strides {out.strides}: it must be aligned "
                         f"{np.dtype(np.float32).str} in contiguous rows that do not overlap")
    return out


class Handle:
    """A C object that is destroyed with its Python one."""

    handle, destroy = None, None

    def __init__(self, kind, create, *args):
        created = c_void_p()
        call(create, *args, byref(created))
        self.handle, self.destroy = created, getattr(lib, f"kvern_{kind}_destroy")
        # A pointer to non-const belongs to one call of C at a time, and ctypes releases Python's own lock.
        self.lock = threading.Lock()

    def __del__(self):
        if self.handle:
            self.destroy(self.handle)

    def __reduce_ex__(self, protocol):
        raise TypeError(f"a {type(self).__name__} owns a C object and cannot be copied")


def handle(x, kind):
    """The C object of a Python one, which has to be of the class that the C function expects."""
    if not isinstance(x, kind) or not x.handle:
        raise TypeError(f"a {kind.__name__} is needed, not a {type(x).__name__}")
    return x.handle


class ContextOptions(ctypes.Structure):
    """The first fields of kvern_context_options: struct_size says that the others are default."""
    _fields_ = [("struct_size", c_size_t), ("threads", c_uint32), ("isa_cap", c_int32),
                ("max_threads", c_size_t), ("parallel_for", c_void_p), ("user", c_void_p)]


class CacheOptions(ctypes.Structure):
    """The first fields of kvern_kv_cache_options."""
    _fields_ = [(name, c_size_t) for name in ("struct_size", "kv_heads", "head_dim", "capacity", "window")]


class AttentionOptions(ctypes.Structure):
    """The first fields of kvern_attention_options."""
    _fields_ = [("struct_size", c_size_t), ("heads", c_size_t), ("scale", c_float), ("non_causal", c_int32)]


class Workspace(Handle):
    """Scratch memory of compute calls."""

    def __init__(self):
        super().__init__("workspace", "kvern_workspace_create", None, 0)

    def reserve(self, bytes):
        call("kvern_workspace_reserve", self.handle, bytes)
        return self.handle


def tiers():
    """The instruction sets that kvern knows, by name: "available", or why this machine cannot run one."""
    numbers = [lib.kvern_isa_at(i) for i in range(lib.kvern_isa_count())]
    return {lib.kvern_isa_name(n).decode(): lib.kvern_isa_status(n).decode() for n in numbers}


class Context(Handle):
    """Threads and a workspace. Python threads may share it; their calls then wait for one another.

    isa: the name of an instruction set of tiers(); by default the one that the machine prefers.
    """

    def __init__(self, threads=1, isa=None):
        number = c_int32(0)
        if isa is not None:
            call("kvern_isa_from_name", isa.encode(), byref(number))
        options = ContextOptions(ctypes.sizeof(ContextOptions), count("threads", threads, 256), number.value)
        super().__init__("context", "kvern_context_create", byref(options))
        self.workspace = Workspace()

    @property
    def isa(self):
        """The name of the instruction set that it computes with."""
        number = c_int32(0)
        call("kvern_context_isa", self.handle, byref(number))
        return lib.kvern_isa_name(number).decode()

    def matmul(self, a, b, out=None):
        """a @ b; a: (m, k), b: (k, n), result: (m, n)."""
        a, b = rows("a", a), rows("b", b)
        (m, k), (k2, n) = a.shape, b.shape
        if k != k2:
            raise ValueError(f"a has {k} columns and b has {k2} rows")
        c = output(out, (m, n))
        with self.lock:
            ws = self.workspace.reserve(size("kvern_matmul_workspace_bytes", self.handle, m, n, k))
            call("kvern_matmul", self.handle, ws, m, n, k, pointer(a), stride(a), 0,
                 pointer(b), stride(b), 0, pointer(c), stride(c), None)
        return c

    def attention(self, cache, q, heads, out=None):
        """Attention of the last tokens over the cache that holds them.

        q and the result: (tokens, heads * head_dim).
        """
        keys, q, heads = handle(cache, KvCache), rows("q", q), count("heads", heads)
        if heads == 0 or q.shape[1] != heads * cache.head_dim:
            raise ValueError(f"q has {q.shape[1]} columns, which must be heads = {heads} (at least 1) times "
                             f"head_dim = {cache.head_dim}")
        out, options = output(out, q.shape), AttentionOptions(ctypes.sizeof(AttentionOptions), heads)
        args = self.handle, byref(options), keys, len(q)
        with self.lock, cache.lock:
            ws = self.workspace.reserve(size("kvern_attention_workspace_bytes", *args))
            call("kvern_attention", self.handle, ws, *args[1:], pointer(q), stride(q), pointer(out),
                 stride(out))
        return out


class Weights(Handle):
    """Quantised weights made from w: (out features n, in features k)."""

    def __init__(self, format, w):
        w = rows("w", w)
        self._shape = w.shape
        format = count("format", format, 2**31 - 1)
        super().__init__("weights", "kvern_weights_quantize", None, format, *w.shape, pointer(w), stride(w))

    @property
    def shape(self):
        return self._shape

    def multiply(self, ctx, x, compute=INT8, out=None):
        """x @ w.T; x: (m, k), result: (m, n)."""
        context, x, (n, k) = handle(ctx, Context), rows("x", x), self._shape
        m, compute = len(x), count("compute", compute, 2**31 - 1)
        if x.shape[1] != k:
            raise ValueError(f"x has {x.shape[1]} columns instead of the {k} of the weights")
        y = output(out, (m, n))
        with ctx.lock:
            bytes = size("kvern_weights_workspace_bytes", context, self.handle, compute, m)
            ws = ctx.workspace.reserve(bytes)
            call("kvern_weights_multiply", context, ws, self.handle, compute, m, n, k, pointer(x), stride(x),
                 pointer(y), stride(y), None)
        return y

    def row(self, i, out=None):
        """Row i in float32, exactly: (k,)."""
        out = output(out, self._shape[1:])
        call("kvern_weights_dequantize_row", self.handle, count("i", i), len(out), pointer(out))
        return out


class KvCache(Handle):
    """Keys and values of one layer; with a window, a ring."""

    def __init__(self, kv_heads, head_dim, capacity, window=0):
        names = ("kv_heads", "head_dim", "capacity", "window")
        sizes = [count(*pair) for pair in zip(names, (kv_heads, head_dim, capacity, window))]
        options = CacheOptions(ctypes.sizeof(CacheOptions), *sizes)
        super().__init__("kv_cache", "kvern_kv_cache_create", None, byref(options))
        self._kv_heads, self._head_dim = sizes[:2]

    @property
    def head_dim(self):
        return self._head_dim

    def append(self, k, v):
        """k and v: (tokens, kv_heads * head_dim)."""
        k, v, width = rows("k", k), rows("v", v), self._kv_heads * self._head_dim
        if k.shape != v.shape or k.shape[1] != width:
            raise ValueError(f"keys {k.shape} and values {v.shape} must be equal, with {width} columns")
        with self.lock:
            call("kvern_kv_cache_append", self.handle, len(k), pointer(k), stride(k), pointer(v), stride(v))
