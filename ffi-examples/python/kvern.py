"""kvern through ctypes: numpy arrays in and out, nothing to build.

The library is looked for as the system does it, or in the file that KVERN_LIBRARY names. Only what a decoder's linear
layers and attention need is here; other functions of kvern.h are called the same way through `lib`.
"""
import ctypes
import os
from ctypes import byref, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_void_p

import numpy as np

lib = ctypes.CDLL(os.environ.get("KVERN_LIBRARY", "libkvern.so.0"))
lib.kvern_last_error_message.restype = c_char_p
lib.kvern_version_string.restype = c_char_p

Q4_0, Q8_0 = 2, 8
INT8, F32 = 0, 1


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


def matrix(x):
    """(pointer, row stride in elements) of a float32 array with two axes whose rows are contiguous."""
    if x.dtype != np.float32 or x.ndim != 2 or x.strides[1] != 4 or x.strides[0] % 4 or x.strides[0] < 0:
        raise ValueError(f"a float32 array with contiguous rows is needed, not {x.dtype} {x.shape} {x.strides}")
    return c_void_p(x.ctypes.data), c_size_t(max(x.strides[0] // 4, x.shape[1]))


class Handle:
    """A C object that is destroyed with its Python one."""

    def __init__(self, kind, create, *args):
        self.kind, self.handle = kind, c_void_p()
        call(create, *args, byref(self.handle))

    def __del__(self):
        if self.handle:
            getattr(lib, f"kvern_{self.kind}_destroy")(self.handle)


class ContextOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("threads", c_uint32), ("isa_cap", c_int32), ("lanes", c_size_t),
                ("parallel_for", c_void_p), ("user", c_void_p)]


class CacheOptions(ctypes.Structure):
    """The first fields of kvern_kv_cache_options: struct_size says that the others are default."""
    _fields_ = [(name, c_size_t) for name in ("struct_size", "kv_heads", "head_dim", "capacity", "window")]


class AttentionOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("heads", c_size_t), ("scale", c_float), ("non_causal", c_int32)]


class Context(Handle):
    """Threads and a workspace: one for each Python thread that computes."""

    def __init__(self, threads=1):
        options = ContextOptions(ctypes.sizeof(ContextOptions), threads)
        super().__init__("context", "kvern_context_create", byref(options))
        self.workspace = Handle("workspace", "kvern_workspace_create", c_size_t(0))

    def reserve(self, bytes):
        call("kvern_workspace_reserve", self.workspace.handle, c_size_t(bytes))
        return self.workspace.handle

    def matmul(self, a, b):
        """a @ b."""
        (m, k), (k2, n) = a.shape, b.shape
        if k != k2:
            raise ValueError(f"shapes {a.shape} and {b.shape} do not match")
        c = np.empty((m, n), np.float32)
        sizes = [c_size_t(s) for s in (m, n, k)]
        ws = self.reserve(size("kvern_matmul_workspace_bytes", self.handle, *sizes))
        call("kvern_matmul_run", self.handle, ws, *sizes, *matrix(a), 0, *matrix(b), 0, *matrix(c), None)
        return c

    def attention(self, cache, q, heads):
        """Attention of the last tokens, q: (tokens, heads * head_dim), over the cache that holds them."""
        if q.shape[1] != heads * cache.head_dim:
            raise ValueError(f"q has {q.shape[1]} columns instead of {heads * cache.head_dim}")
        out, q_len = np.empty_like(q, order="C"), c_size_t(len(q))
        options = AttentionOptions(ctypes.sizeof(AttentionOptions), heads)
        args = self.handle, byref(options), cache.handle, q_len
        ws = self.reserve(size("kvern_attention_workspace_bytes", *args))
        call("kvern_attention_run", self.handle, ws, *args[1:], *matrix(q), *matrix(out))
        return out


class Weights(Handle):
    """w: (out features, in features), quantised."""

    def __init__(self, format, w):
        self.shape = w.shape
        super().__init__("weights", "kvern_weights_quantize", format, *map(c_size_t, w.shape), *matrix(w))

    def multiply(self, ctx, x, compute=INT8):
        """x @ w.T."""
        (m, k), n = x.shape, self.shape[0]
        y, m = np.empty((m, n), np.float32), c_size_t(m)
        ws = ctx.reserve(size("kvern_weights_workspace_bytes", ctx.handle, self.handle, compute, m))
        call("kvern_weights_multiply", ctx.handle, ws, self.handle, compute, m, c_size_t(n), c_size_t(k),
             *matrix(x), *matrix(y), None)
        return y

    def row(self, i):
        """Row i in float32, exactly."""
        out = np.empty(self.shape[1], np.float32)
        call("kvern_weights_dequantize_row", self.handle, c_size_t(i), c_size_t(out.size), c_void_p(out.ctypes.data))
        return out


class KvCache(Handle):
    """Keys and values of one layer; with a window, a ring."""

    def __init__(self, kv_heads, head_dim, capacity, window=0):
        self.width, self.head_dim = kv_heads * head_dim, head_dim
        options = CacheOptions(ctypes.sizeof(CacheOptions), kv_heads, head_dim, capacity, window)
        super().__init__("kv_cache", "kvern_kv_cache_create", byref(options))

    def append(self, k, v):
        if k.shape != v.shape or k.shape[1] != self.width:
            raise ValueError(f"keys {k.shape} and values {v.shape} must have {self.width} columns")
        call("kvern_kv_cache_append", self.handle, c_size_t(len(k)), *matrix(k), *matrix(v))
