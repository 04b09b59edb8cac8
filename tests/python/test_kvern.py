"""ffi-examples/python/kvern.py with arrays of every kind: the right values, or a clear error.

    KVERN_LIBRARY=.../libkvern.so.0 PYTHONPATH=ffi-examples/python python3 tests/python/test_kvern.py

Right values come from numpy in float64. Inputs lie at the end of a page behind which nothing can be read: a
call that reads beyond its array ends the process.
"""
import copy
import ctypes
import mmap
import pathlib
import pickle
import re
import threading
import unittest

import numpy as np
from numpy.lib.stride_tricks import as_strided

import kvern

PAGE = mmap.PAGESIZE
SENTINEL = np.float32(-7.25e18)
EXACT_TYPES = ["<f4", ">f4", "<f2", ">f2", "i1", "u1", "<i2", ">i2", "?"]
INEXACT_TYPES = ["<f8", ">f8", "<i4", "<i8", "<u4", "<c8", "<c16", "O", "S4", "M8[s]"]
libc = ctypes.CDLL(None, use_errno=True)


def at_the_end_of_a_page(x):
    """A copy of a one-dimensional array whose last byte is the last readable one of its mapping."""
    whole = -(-max(x.nbytes, 1) // PAGE) * PAGE
    area = mmap.mmap(-1, whole + PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    if libc.mprotect(ctypes.c_void_p(address + whole), ctypes.c_size_t(PAGE), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    guarded = np.frombuffer(area, x.dtype, x.size, whole - x.nbytes)
    guarded[:] = x
    return guarded


def numbers(random, shape, dtype):
    """Small integers: every type of EXACT_TYPES holds them, and a product in f32 is exact."""
    low, high = (0, 2) if dtype == "?" else (0, 8) if dtype == "u1" else (-7, 8)
    return random.integers(low, high, shape).astype(dtype)


def guarded(random, rows, columns, dtype="<f4"):
    """A contiguous matrix of numbers at the end of a page."""
    x = at_the_end_of_a_page(numbers(random, rows * columns, dtype))
    return x.reshape(rows, columns)


def views(random, rows, columns, dtype="<f4"):
    """(name, array) for each kind of array with this shape."""
    full = guarded(random, rows, columns, dtype)
    yield "contiguous", full
    yield "column-major", guarded(random, columns, rows, dtype).T
    yield "every other row", guarded(random, 2 * rows, columns, dtype)[1::2]
    yield "every third column", guarded(random, rows, 3 * columns, dtype)[:, 2::3]
    yield "part of wider rows", guarded(random, rows, columns + 5, dtype)[:, 3 : 3 + columns]
    yield "rows backwards", full[::-1]
    yield "columns backwards", full[:, ::-1]
    yield "all backwards", full[::-1, ::-1]
    yield "one row repeated", np.broadcast_to(guarded(random, 1, columns, dtype), (rows, columns))
    yield "one column repeated", np.broadcast_to(guarded(random, rows, 1, dtype), (rows, columns))
    yield "one number repeated", np.broadcast_to(guarded(random, 1, 1, dtype), (rows, columns))
    line = guarded(random, 1, rows + columns - 1 if rows * columns else 0, dtype)[0]
    step = line.itemsize
    if line.size:
        yield "overlapping rows", as_strided(line, (rows, columns), (step, step))
        yield "overlapping rows backwards", as_strided(line[rows - 1 :], (rows, columns), (-step, step))
    yield "read-only", as_read_only(full)
    yield "other byte order", full.astype(full.dtype.newbyteorder())
    raw = at_the_end_of_a_page(np.zeros(full.nbytes + 1, np.uint8))
    unaligned = raw[: full.nbytes].view(full.dtype).reshape(full.shape)
    unaligned[:] = full
    yield "unaligned", unaligned
    fields = np.zeros((rows, columns), np.dtype([("skip", "u1"), ("x", full.dtype)]))
    fields["x"] = full
    yield "a field of records", fields["x"]
    yield "matrix class", full.view(np.matrix)


def as_read_only(x):
    x = x.view()
    x.flags.writeable = False
    return x


def random_view(random, rows, columns):
    """A matrix of this shape and of a random type: random steps through a random base with a guarded end."""
    dtype = EXACT_TYPES[random.integers(len(EXACT_TYPES))]
    if random.integers(4) == 0:  # any strides inside a small array: zero, negative, overlapping
        base = guarded(random, 1, 4 * (rows + columns) + 1, dtype)[0]
        steps = [int(random.integers(-2, 3)) for _ in range(2)]
        first = sum(max(0, -step) * (length - 1) for step, length in zip(steps, (rows, columns)) if length)
        return as_strided(base[first:], (rows, columns), [step * base.itemsize for step in steps])
    turned = bool(random.integers(2))
    shape = (columns, rows) if turned else (rows, columns)
    steps = [int(random.choice([-3, -2, -1, 1, 1, 1, 2, 3])) for _ in shape]
    margins = [int(random.integers(3)) for _ in shape]
    lengths = [max(0, (length - 1) * abs(step) + 1 + margin) if length else margin
               for length, step, margin in zip(shape, steps, margins)]
    x = guarded(random, *lengths, dtype)
    x = x[tuple(slice(margin if step > 0 else 0, None) for margin, step in zip(margins, steps))]
    x = x[:: steps[0], :: steps[1]][: shape[0], : shape[1]]
    assert x.shape == shape, (x.shape, shape)
    return x.T if turned else x


def exact(x):
    return np.asarray(x).astype(np.float64)


def blocks(x):
    """Rows in blocks of 32 elements, the last axis."""
    return x.reshape(len(x), x.shape[1] // 32, 32)


def int8_bound(x, w):
    """The error of int8 activations: half a step of absmax / 127 of its block for each, times its weight."""
    step = np.abs(blocks(exact(x))).max(2) / 127
    return (0.5001 * step) @ blocks(np.abs(w)).sum(2).T + 1e-5 * np.abs(exact(x)) @ np.abs(w).T


def attention(q, k, v, heads, kv_heads, window):
    """Causal attention in float64; the queries are the last tokens."""
    q, k, v = exact(q), exact(k), exact(v)
    out, head_dim = np.zeros_like(q), q.shape[1] // heads
    for i in range(len(q)):
        end = len(k) - len(q) + i + 1
        seen = slice(max(0, end - window) if window else 0, end)
        for h in range(heads):
            own = slice(h * head_dim, (h + 1) * head_dim)
            shared = slice(h // (heads // kv_heads) * head_dim, (h // (heads // kv_heads) + 1) * head_dim)
            scores = k[seen, shared] @ q[i, own] / np.sqrt(head_dim)
            p = np.exp(scores - scores.max())
            out[i, own] = p / p.sum() @ v[seen, shared]
    return out


class Inputs(unittest.TestCase):
    """Every array that a call reads."""

    def setUp(self):
        self.random, self.ctx = np.random.default_rng(20), kvern.Context(2)

    def same(self, what, got, want, bound=0.0):
        self.assertEqual(got.shape, want.shape, what)
        self.assertTrue((np.abs(got - want) <= bound).all(), f"{what}: {got} is not {want}, bound {bound}")

    def product(self, what, a, b):
        self.same(what, self.ctx.matmul(a, b), exact(a) @ exact(b))

    def quantised(self, what, x, w):
        weights = kvern.Weights(kvern.Q8_0, w)
        stored = np.array([weights.row(i) for i in range(len(w))], np.float64).reshape(w.shape)
        # A weight is off by half a step of absmax / 127, and the step by its rounding to f16.
        step = np.abs(blocks(exact(w))).max(2, keepdims=True) * (0.5 / 127 + 2.0**-11)
        self.same(f"{what}, rows", blocks(stored), blocks(exact(w)), step)
        slack = 1e-5 * np.abs(exact(x)) @ np.abs(stored).T
        self.same(f"{what}, f32", weights.multiply(self.ctx, x, kvern.F32), exact(x) @ stored.T, slack)
        self.same(f"{what}, int8", weights.multiply(self.ctx, x), exact(x) @ stored.T, int8_bound(x, stored))

    def attended(self, what, q, k, v, window=0):
        cache = kvern.KvCache(2, 8, capacity=len(k), window=window)
        cache.append(k, v)
        want = attention(q, k, v, 4, 2, window)
        self.same(what, self.ctx.attention(cache, q, 4), want, 1e-4)

    def test_products_of_every_view(self):
        for dtype in EXACT_TYPES:
            for (name, a), (_, b) in zip(views(self.random, 4, 5, dtype), views(self.random, 5, 7, dtype)):
                self.product(f"a, {dtype}, {name}", a, guarded(self.random, 5, 3))
                self.product(f"b, {dtype}, {name}", guarded(self.random, 3, 5), b)

    def test_the_reported_broadcast(self):
        x = guarded(self.random, 4, 4)
        self.product("broadcast", np.broadcast_to(x[:1], (4, 4)), np.eye(4, dtype=np.float32))

    def test_weights_of_every_view(self):
        for (name, w), (_, x) in zip(views(self.random, 6, 64), views(self.random, 3, 64)):
            self.quantised(f"w, {name}", guarded(self.random, 3, 64), w)
            self.quantised(f"x, {name}", x, guarded(self.random, 6, 64))

    def test_attention_of_every_view(self):
        kinds = zip(views(self.random, 5, 32), views(self.random, 9, 16), views(self.random, 9, 16))
        for (name, q), (_, k), (_, v) in kinds:
            self.attended(f"q, {name}", q, guarded(self.random, 9, 16), guarded(self.random, 9, 16))
            self.attended(f"k, {name}", guarded(self.random, 5, 32), k, guarded(self.random, 9, 16))
            self.attended(f"v, {name}", guarded(self.random, 5, 32), guarded(self.random, 9, 16), v)

    def test_empty_matrices(self):
        for m, n, k in [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 4), (0, 3, 0), (3, 0, 0), (0, 0, 0)]:
            self.product(f"{m} x {n} x {k}", guarded(self.random, m, k), guarded(self.random, k, n))
        w = guarded(self.random, 6, 32)
        self.quantised("no rows", guarded(self.random, 0, 32), w)
        weights = kvern.Weights(kvern.Q8_0, guarded(self.random, 0, 32))
        self.assertEqual(weights.multiply(self.ctx, guarded(self.random, 3, 32)).shape, (3, 0))
        cache = kvern.KvCache(2, 8, capacity=4)
        cache.append(guarded(self.random, 0, 16), guarded(self.random, 0, 16))
        self.assertEqual(self.ctx.attention(cache, guarded(self.random, 0, 32), 4).shape, (0, 32))

    def test_random_views(self):
        r = self.random
        for case in range(150):
            m, n, k, columns = (int(r.integers(1, 9)) for _ in range(4))
            what = f"case {case}"
            self.product(what, random_view(r, m, k), random_view(r, k, n))
            if case % 3 == 0:
                self.quantised(what, random_view(r, m, 32 * columns), random_view(r, n, 32 * columns))
                keys, values = (random_view(r, n + m, 16) for _ in range(2))
                self.attended(what, random_view(r, m, 32), keys, values, int(r.integers(n + m + 1)))

    def test_types_that_float32_does_not_hold_are_refused(self):
        good, cache = guarded(self.random, 32, 32), kvern.KvCache(2, 16, capacity=64)
        weights = kvern.Weights(kvern.Q8_0, good)
        for dtype in INEXACT_TYPES:
            bad = np.zeros((32, 32), dtype)
            for call in (lambda: self.ctx.matmul(bad, good), lambda: self.ctx.matmul(good, bad),
                         lambda: kvern.Weights(kvern.Q8_0, bad), lambda: weights.multiply(self.ctx, bad),
                         lambda: cache.append(bad, good), lambda: cache.append(good, bad),
                         lambda: self.ctx.attention(cache, bad, 2)):
                with self.assertRaisesRegex(TypeError, "float32 does not hold exactly", msg=dtype):
                    call()
        masked = np.ma.masked_array(good, good > 0)
        with self.assertRaisesRegex(TypeError, "mask"):
            self.ctx.matmul(masked, good)

    def test_shapes_that_disagree_are_refused(self):
        x, cache = guarded(self.random, 4, 32), kvern.KvCache(2, 16, capacity=64)
        weights = kvern.Weights(kvern.Q8_0, x)
        cache.append(x, x)
        bad = [guarded(self.random, 4, 31), x[0], x[np.newaxis], np.float32(1), guarded(self.random, 4, 0)]
        for b in bad:
            for call in (lambda: self.ctx.matmul(b, x.T), lambda: self.ctx.matmul(x, b),
                         lambda: weights.multiply(self.ctx, b), lambda: cache.append(b, b),
                         lambda: cache.append(x, b), lambda: self.ctx.attention(cache, b, 2)):
                with self.assertRaises(ValueError):
                    call()
        with self.assertRaises(ValueError):
            kvern.Weights(kvern.Q8_0, x[0])
        for heads in 0, -1, 2**64, 2**64 + 2:
            with self.assertRaises(ValueError):
                self.ctx.attention(cache, guarded(self.random, 1, 0) if heads == 0 else x, heads)
        with self.assertRaises(kvern.Error):
            self.ctx.attention(cache, guarded(self.random, 4, 48), 3)


class Outputs(unittest.TestCase):
    """Every array that a call writes."""

    def setUp(self):
        self.random, self.ctx = np.random.default_rng(21), kvern.Context(2)
        self.a, self.b = guarded(self.random, 4, 32), guarded(self.random, 32, 32)
        self.weights, self.cache = kvern.Weights(kvern.Q8_0, self.b), kvern.KvCache(1, 32, capacity=8)
        self.cache.append(self.a, self.a)

    def calls(self):
        """(name, call with `out`, result without `out`)."""
        for name, call in [("matmul", lambda out: self.ctx.matmul(self.a, self.b, out=out)),
                           ("multiply", lambda out: self.weights.multiply(self.ctx, self.a, out=out)),
                           ("attention", lambda out: self.ctx.attention(self.cache, self.a, 1, out=out))]:
            yield name, call, call(None)

    def test_rows_with_gaps_are_written_between_the_gaps(self):
        for name, call, want in self.calls():
            wide = at_the_end_of_a_page(np.full(4 * 40, SENTINEL)).reshape(4, 40)
            for out in wide[:, 3:35], wide[:, :32]:
                wide[:] = SENTINEL
                self.assertIs(call(out), out)
                self.assertTrue((out == want).all(), name)
                self.assertEqual((wide == SENTINEL).sum(), 4 * 8, f"{name}: the gaps")
        row = at_the_end_of_a_page(np.full(32, SENTINEL))
        self.assertIs(self.weights.row(3, out=row), row)
        self.assertTrue((row == self.weights.row(3)).all())

    def test_other_outputs_are_refused_and_stay(self):
        for name, call, _ in self.calls():
            for kind, out in [("read-only", as_read_only(np.full((4, 32), SENTINEL))),
                              ("float64", np.full((4, 32), float(SENTINEL))),
                              ("byte order", np.full((4, 32), SENTINEL).astype(">f4")),
                              ("int32", np.full((4, 32), 7, np.int32)),
                              ("column-major", np.full((32, 4), SENTINEL).T),
                              ("columns with gaps", np.full((4, 64), SENTINEL)[:, ::2]),
                              ("rows backwards", np.full((4, 32), SENTINEL)[::-1]),
                              ("columns backwards", np.full((4, 32), SENTINEL)[:, ::-1]),
                              ("one row repeated", as_strided(np.full(32, SENTINEL), (4, 32), (0, 4))),
                              ("overlapping rows", as_strided(np.full(35, SENTINEL), (4, 32), (4, 4))),
                              ("unaligned", np.ones(4 * 32 * 4 + 1, np.uint8)[1:].view("<f4").reshape(4, 32)),
                              ("too short", np.full((3, 32), SENTINEL)),
                              ("too long", np.full((5, 32), SENTINEL)),
                              ("too wide", np.full((4, 33), SENTINEL)), ("flat", np.full(128, SENTINEL)),
                              ("a list", [[0.0] * 32] * 4), ("masked", np.ma.zeros((4, 32), np.float32))]:
                before = copy.deepcopy(out)
                with self.assertRaises((TypeError, ValueError), msg=f"{name}, {kind}"):
                    call(out)
                self.assertEqual(np.asarray(before).tobytes(), np.asarray(out).tobytes(), f"{name}, {kind}")
        zeros = np.zeros((32, 32), np.float32)
        for kind, out in [("read-only", as_read_only(zeros[0])), ("gaps", zeros[:, 0]),
                          ("length", zeros[0, 1:]), ("type", np.zeros(32)), ("axes", zeros[:1]),
                          ("backwards", zeros[0, ::-1]),
                          ("one number repeated", as_strided(zeros[0], (32,), (0,)))]:
            with self.assertRaises((TypeError, ValueError), msg=kind):
                self.weights.row(0, out=out)

    def test_outputs_over_inputs_are_refused_or_right(self):
        for name, call, want in self.calls():
            before = self.a.copy()
            with self.assertRaisesRegex(kvern.Error, "overlap", msg=name):
                call(self.a)
            self.assertEqual(before.tobytes(), self.a.tobytes(), name)
        # The library counts the gaps between rows as well.
        wide = guarded(self.random, 4, 64)
        before = wide.copy()
        with self.assertRaisesRegex(kvern.Error, "overlap"):
            self.ctx.matmul(wide[:, :32], self.b, out=wide[:, 32:])
        self.assertEqual(before.tobytes(), wide.tobytes())
        # An input that was copied first does not overlap any more.
        square = guarded(self.random, 32, 32)
        want = exact(square.T) @ exact(self.b)
        self.assertTrue((self.ctx.matmul(square.T, self.b, out=square) == want).all())

    def test_random_outputs(self):
        for case in range(200):
            m, n, k = (int(self.random.integers(1, 9)) for _ in range(3))
            a, b = random_view(self.random, m, k), random_view(self.random, k, n)
            area = at_the_end_of_a_page(np.full(8 * 24, SENTINEL))
            step, first = int(self.random.integers(-24, 25)), int(self.random.integers(0, 8))
            first += max(0, -step) * (m - 1)
            if first + max(0, step) * (m - 1) + n > area.size:
                continue
            out = as_strided(area[first:], (m, n), (4 * step, 4))
            if m > 1 and step < n:
                with self.assertRaises(ValueError):
                    self.ctx.matmul(a, b, out=out)
                self.assertTrue((area == SENTINEL).all(), f"case {case}")
            else:
                self.ctx.matmul(a, b, out=out)
                self.assertTrue((out == exact(a) @ exact(b)).all(), f"case {case}")
                self.assertEqual((area != SENTINEL).sum(), m * n, f"case {case}")


class Objects(unittest.TestCase):
    """Lifetimes, and what else a wrapper of C objects can get wrong."""

    def test_tiers_are_chosen_by_name_and_refused_with_the_reason(self):
        tiers = kvern.tiers()
        self.assertEqual(tiers["scalar"], "available")
        self.assertIn(kvern.Context().isa, tiers)
        for name, status in tiers.items():
            if status == "available":
                self.assertEqual(kvern.Context(isa=name).isa, name)
            else:
                with self.assertRaisesRegex(kvern.Error, re.escape(f"{name} is not available: {status}")):
                    kvern.Context(isa=name)
        with self.assertRaisesRegex(kvern.Error, "name = sse9 must be one of scalar, "):
            kvern.Context(isa="sse9")

    def test_buffers_live_as_long_as_the_call_needs_them(self):
        ctx = kvern.Context()
        for _ in range(50):  # arrays that nothing else holds, copies of them included
            got = ctx.matmul(np.full((40, 30), 2, np.float16).T[::-1], np.full((40, 20), 3, np.int8))
            self.assertTrue((got == 240).all())
        base = np.full((8, 32), 2, np.float32)
        weights = kvern.Weights(kvern.Q8_0, base)
        base[:] = 9  # C has copied it
        self.assertTrue((np.abs(weights.row(5) - 2) < 0.001).all())

    def test_a_context_that_threads_share(self):
        ctx, random = kvern.Context(2), np.random.default_rng(3)
        x, y = random.standard_normal((60, 70), np.float32), random.standard_normal((70, 50), np.float32)
        want, wrong = ctx.matmul(x, y), []

        def work():
            for rows in range(1, 60):
                if not (ctx.matmul(x[:rows], y) == want[:rows]).all():
                    wrong.append(rows)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_objects_are_not_copied_or_mixed_up(self):
        ctx, cache = kvern.Context(), kvern.KvCache(1, 8, capacity=4)
        x = np.zeros((1, 32), np.float32)
        weights = kvern.Weights(kvern.Q8_0, x)
        for made in ctx, cache, weights:
            for how in copy.copy, copy.deepcopy, pickle.dumps:
                with self.assertRaisesRegex(TypeError, "owns a C object"):
                    how(made)
        with self.assertRaises(TypeError):
            ctx.attention(weights, x[:, :8], 1)
        with self.assertRaises(TypeError):
            weights.multiply(cache, x)

    def test_numbers_that_do_not_fit_are_refused(self):
        big = 2**64 + 1
        for call in (lambda: kvern.Context(2**32 + 1), lambda: kvern.Context(-1), lambda: kvern.Context(257),
                     lambda: kvern.KvCache(big, 8, 4), lambda: kvern.KvCache(1, big, 4),
                     lambda: kvern.KvCache(1, 8, big), lambda: kvern.KvCache(1, 8, -1),
                     lambda: kvern.Weights(2**32 + 8, np.zeros((1, 32), np.float32)),
                     lambda: kvern.Weights(kvern.Q8_0, np.zeros((1, 32), np.float32)).row(-1)):
            with self.assertRaises(ValueError):
                call()
        with self.assertRaises(TypeError):
            kvern.Context(1.5)
        for call in (lambda: kvern.Weights(kvern.Q8_0, np.zeros((1, 32), np.float32)).row(1),
                     lambda: kvern.Weights(5, np.zeros((1, 32), np.float32)),
                     lambda: kvern.KvCache(1, 8, 2**62)):
            with self.assertRaises(kvern.Error) as refused:
                call()
            self.assertNotEqual(str(refused.exception), "")


class Header(unittest.TestCase):
    """What kvern.py states once more of kvern.h."""

    def setUp(self):
        self.text = (pathlib.Path(__file__).parents[2] / "include/kvern.h").read_text()
        self.code = re.sub(r"/\*.*?\*/", " ", self.text, flags=re.S)

    def declared(self, text):
        """(name, ctypes type) of a parameter or a field such as `const float *a`."""
        c, name = re.fullmatch(r"\s*(.*?)(\w+)\s*", text, re.S).groups()
        c = c.replace("const", "").strip()
        c = {name: base for base, name in re.findall(r"typedef (u?int32_t) (\w+);", self.code)}.get(c, c)
        if "*" in c or f"(*{c})" in self.code:  # an object, an array, a function
            return name, ctypes.c_void_p
        return name, {"size_t": ctypes.c_size_t, "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32,
                      "float": ctypes.c_float}[c]

    def parameters(self, name):
        found = re.search(rf"\b{name}\(([^)]*)\);", self.code)
        self.assertIsNotNone(found, f"kvern.h has no {name}")
        return [self.declared(parameter)[1] for parameter in found[1].split(",")]

    def test_parameters(self):
        names = set(re.findall(r'"(kvern_\w+?)"', pathlib.Path(kvern.__file__).read_text()))
        self.assertGreater(len(names), 10)
        for name in names:
            self.assertEqual(getattr(kvern.lib, name).argtypes, self.parameters(name), name)

    def test_structs(self):
        for struct, name in [(kvern.ContextOptions, "kvern_context_options"),
                             (kvern.CacheOptions, "kvern_kv_cache_options"),
                             (kvern.AttentionOptions, "kvern_attention_options")]:
            body = re.search(rf"typedef struct \{{([^}}]*)\}} {name};", self.code)[1]
            fields = [self.declared(field) for field in body.split(";") if field.strip()]
            self.assertEqual(struct._fields_, fields[: len(struct._fields_)], name)

    def test_numbers(self):
        for number, pattern in [(kvern.Q4_0, r"KVERN_WEIGHT\w*_Q4_0"), (kvern.Q8_0, r"KVERN_WEIGHT\w*_Q8_0"),
                                (kvern.INT8, "KVERN_COMPUTE_INT8"), (kvern.F32, "KVERN_COMPUTE_F32")]:
            stated = re.findall(rf"#define {pattern} \(?(-?\d+)\)?\n", self.text)
            self.assertEqual(stated, [str(number)], pattern)


if __name__ == "__main__":
    unittest.main()
