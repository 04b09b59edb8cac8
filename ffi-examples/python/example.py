"""Products, int4 weights and a decode loop over a ring cache, each checked against numpy in float64:

    KVERN_LIBRARY=<prefix>/lib/libkvern.so.0 python3 example.py
"""
import numpy as np

import kvern

random = np.random.default_rng(1)


def normal(*shape):
    return random.standard_normal(shape, dtype=np.float32)


def expect_below(what, got, want, bound):
    error = np.abs(got - want).max()
    assert error < bound, f"{what}: the error is {error:.1e}, its bound {bound:.1e}"
    print(f"{what}: error {error:.1e}, bound {bound:.1e}")


ctx = kvern.Context(threads=2)

# f32, with strides: every second row, some of the columns.
a, b = normal(80, 200)[::2, :150], normal(150, 60)
expect_below("a @ b", ctx.matmul(a, b), a.astype(np.float64) @ b.astype(np.float64), 1e-4)

# Int4 weights, activations in f32 and in int8.
weights, x = kvern.Weights(kvern.Q4_0, normal(96, 256)), normal(5, 256)
rows = np.stack([weights.row(i) for i in range(96)]).astype(np.float64)
exact = x.astype(np.float64) @ rows.T
expect_below("int4 weights", weights.multiply(ctx, x, kvern.F32), exact, 1e-3)
expect_below("and int8 activations", weights.multiply(ctx, x), exact, 0.02 * np.abs(exact).max())

# A decode loop: a query sees 6 tokens, and the ring holds no more.
heads, kv_heads, head_dim, tokens, window = 4, 2, 16, 20, 6
cache = kvern.KvCache(kv_heads, head_dim, capacity=window, window=window)
q, k, v = (normal(tokens, h * head_dim) for h in (heads, kv_heads, kv_heads))
for t in range(tokens):
    cache.append(k[t : t + 1], v[t : t + 1])
    got = ctx.attention(cache, q[t : t + 1], heads).reshape(heads, head_dim)
    seen = slice(max(0, t + 1 - window), t + 1)
    for h in range(heads):
        part = slice(h // 2 * head_dim, (h // 2 + 1) * head_dim)
        scores = k[seen, part].astype(np.float64) @ q[t].reshape(heads, head_dim)[h] / np.sqrt(head_dim)
        p = np.exp(scores - scores.max())
        want = p / p.sum() @ v[seen, part]
        assert np.abs(got[h] - want).max() < 1e-5, f"token {t}, head {h}"
print(f"attention: {tokens} tokens, window {window}")

try:
    kvern.KvCache(kv_heads, 7, capacity=4)
    raise SystemExit("a head of 7 elements was accepted")
except kvern.Error as error:
    print(f"refused as it should be: {error}")
