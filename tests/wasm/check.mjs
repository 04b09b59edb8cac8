// The C interface in WebAssembly: node tests/wasm/check.mjs kvern.wasm. Results have the hashes of
// tests/fixtures/golden.tsv; what the system lacks (threads, files) is refused by status and message.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { allocate, floats, hash, reset, string, text, view } from "./library.mjs";
import { constants, kvern, made, ok, refused, struct } from "./library.mjs";

const golden = new Map(
    readFileSync(new URL("../fixtures/golden.tsv", import.meta.url), "utf8").trim().split("\n")
        .map((line) => line.split("\t")),
);
const checked = new Set();
function check(name, at, bytes) {
    assert(golden.has(name), `no golden hash is called ${name}`);
    assert.equal(hash(at, bytes), golden.get(name), name);
    checked.add(name);
}

// The numbers of tests/numerics/golden/mod.rs: longer ones of a seed start with the shorter ones.
const drawn = new Map();
function numbers(n, seed) {
    if (!drawn.has(seed)) {
        const state = BigInt.asUintN(64, BigInt(seed) * 0x9e3779b97f4a7c15n) | 1n;
        drawn.set(seed, { state, values: [] });
    }
    const random = drawn.get(seed);
    const below = (n) => {
        let state = random.state;
        state ^= state >> 12n;
        state = BigInt.asUintN(64, state ^ (state << 25n));
        state ^= state >> 27n;
        random.state = state;
        return Number((BigInt.asUintN(64, state * 0x2545f4914f6cdd1dn) >> 33n) % BigInt(n));
    };
    while (random.values.length < n) random.values.push((below(128) - 64) / 16 + below(7) / 1024);
    return random.values.slice(0, n);
}

assert.equal(kvern.kvern_abi_version(), 0);
assert.equal(text(kvern.kvern_isa_name(kvern.kvern_isa_detect())), "scalar");
const ctx = made("kvern_context_create", 0);

// Calls `run` with a workspace of so many bytes.
function with_workspace(bytes, run) {
    const ws = made("kvern_workspace_create", ctx, bytes);
    run(ws);
    kvern.kvern_workspace_destroy(ws);
}

for (const [m, n, k] of [[67, 133, 71], [1, 515, 1026], [130, 96, 160]]) {
    reset();
    const [a, b, c] = [floats(numbers(m * k, 1)), floats(numbers(k * n, 2)), allocate(4 * m * n)];
    with_workspace(made("kvern_matmul_workspace_bytes", ctx, m, n, k), (ws) => {
        ok(kvern.kvern_matmul(ctx, ws, m, n, k, a, k, 0, b, n, 0, c, n, 0));
        check(`matmul f32 ${m}x${n}x${k} plain`, c, 4 * m * n);
        const bias = floats(numbers(n, 4));
        const activation = constants("KVERN_ACTIVATION").get("silu");
        const epilogue = struct("kvern_epilogue", { alpha: 0.25, beta: -0.5, bias, activation });
        view(Float32Array, c, m * n).set(numbers(m * n, 3));
        ok(kvern.kvern_matmul(ctx, ws, m, n, k, a, k, 0, b, n, 0, c, n, epilogue));
        check(`matmul f32 ${m}x${n}x${k} all+silu`, c, 4 * m * n);
    });
}

for (const [name, format] of constants("KVERN_WEIGHT_FORMAT")) {
    if (format < 0) continue; // codes in groups, which are imported
    const small = ["q4_0", "q8_0"].includes(name);
    const shapes = small
        ? [[1, 1030, 1024], [67, 133, 96], [40, 96, 256]]
        : [[1, 70, 512], [7, 33, 256], [45, 50, 512]];
    for (const [m, n, k] of shapes) {
        reset();
        const [a, w, c] = [floats(numbers(m * k, 5)), floats(numbers(n * k, 6)), allocate(4 * m * n)];
        const weights = made("kvern_weights_quantize", ctx, format, n, k, w, k);
        for (const [compute, mode] of ["int8", "exact"].entries()) {
            with_workspace(made("kvern_weights_workspace_bytes", ctx, weights, compute, m), (ws) => {
                ok(kvern.kvern_weights_multiply(ctx, ws, weights, compute, m, n, k, a, k, c, n, 0));
                check(`matmul ${name} ${mode} ${m}x${n}x${k} plain`, c, 4 * m * n);
            });
        }
        kvern.kvern_weights_destroy(weights);
    }
}

for (const [rows, cols] of [[5, 96], [700, 96], [3, 515]]) {
    const [x, z, gain, bias] = [[rows * cols, 1], [rows * cols, 2], [cols, 3], [cols, 4]]
        .map(([n, seed]) => numbers(n, seed));
    // Each call has x in its place, and z, gain and bias beside it.
    const row_operation = (name, call) => {
        reset();
        const [to, ...given] = [x, z, gain, bias].map(floats);
        ok(call(to, ...given));
        check(`${name} ${rows}x${cols}`, to, 4 * rows * cols);
    };
    const from = (call) => (y, z, gain, bias) => call(floats(x), y, gain, bias);
    row_operation("layer_norm", from((x, y, gain, bias) =>
        kvern.kvern_layer_norm(ctx, rows, cols, x, cols, gain, bias, 1e-5, y, cols)));
    row_operation("rms_norm", from((x, y, gain) =>
        kvern.kvern_rms_norm(ctx, rows, cols, x, cols, gain, 1e-5, y, cols)));
    const in_place = (name, ...args) => (x) => kvern[name](ctx, ...args, rows, cols, x, cols);
    const gated = (name, ...args) => (x, z) => kvern[name](ctx, ...args, rows, cols, x, cols, z, cols);
    for (const [name, number] of constants("KVERN_ACTIVATION")) {
        if (["relu", "gelu", "silu"].includes(name)) row_operation(name, in_place("kvern_activate", number));
        const camel = name.replace(/(^|_)./g, (start) => start.at(-1).toUpperCase());
        row_operation(`activate_mul ${camel}`, gated("kvern_activate_mul", number));
    }
    row_operation("silu_mul", gated("kvern_silu_mul"));
    row_operation("add", gated("kvern_add"));
    row_operation("softmax", in_place("kvern_softmax"));
    // Of these each goes on from the result before it.
    const chain = [
        ["swiglu_oai", gated("kvern_swiglu_oai", 1.702, 7.0)],
        ["add_scaled", gated("kvern_add_scaled", 0.3)],
        ["scale", in_place("kvern_scale", 0.7)],
        ["softcap", in_place("kvern_softcap", 0.9)],
    ];
    for (const [i, [name, last]] of chain.entries()) {
        row_operation(name, (x, z) => {
            chain.slice(0, i).forEach(([, call]) => ok(call(x, z)));
            return last(x, z);
        });
    }
}

for (const dim of [64, 24]) {
    const table = made("kvern_rope_table_create", dim, 400, 10000.0);
    for (const [name, pairs] of constants("KVERN_ROPE")) {
        if (!["halves", "interleaved"].includes(name)) continue;
        reset();
        const x = floats(numbers(300 * 256, 5));
        ok(kvern.kvern_rope(ctx, table, pairs, 77, 300, 4, 64, x, 256));
        check(`rope ${name} ${dim} of 64`, x, 4 * 300 * 256);
    }
    kvern.kvern_rope_table_destroy(table);
}

// Attention over a cache with these tokens: outputs and log-sum-exp.
function attention(tokens, queries, cached, asked, seeds, scale, slopes, done) {
    reset();
    const { kv_heads, head_dim } = cached;
    const [width, wide] = [kv_heads * head_dim, asked.heads * head_dim];
    const cache = made("kvern_kv_cache_create", ctx, struct("kvern_kv_cache_options", cached));
    const [k, v] = seeds.map((seed) => floats(numbers(tokens * width, seed)));
    for (let at = 0; at < tokens; at += 100) {
        const rows = Math.min(100, tokens - at);
        const skipped = 4 * at * width;
        ok(kvern.kvern_kv_cache_append(cache, rows, k + skipped, width, v + skipped, width));
    }
    const q = floats(numbers(queries * wide, seeds[1] + 1).map((x) => x * scale));
    const [out, lse] = [allocate(4 * queries * wide), allocate(4 * queries * asked.heads)];
    const [alibi, sink_logits] = slopes ? [floats(slopes), floats(slopes)] : [0, 0];
    const lse_row_stride = asked.heads;
    const options = struct("kvern_attention_options", { ...asked, lse, lse_row_stride, alibi, sink_logits });
    with_workspace(made("kvern_attention_workspace_bytes", ctx, options, cache, queries), (ws) =>
        ok(kvern.kvern_attention(ctx, ws, options, cache, queries, q, wide, out, wide)));
    done(out, 4 * queries * wide, lse, 4 * queries * asked.heads);
    kvern.kvern_kv_cache_destroy(cache);
}

for (const [name, heads, kv_heads, head_dim, capacity, window, tokens, queries] of [
    ["prefill", 4, 4, 64, 300, 0, 300, 300],
    ["prefill grouped", 6, 2, 40, 70, 0, 70, 70],
    ["prefill window", 4, 2, 32, 450, 50, 400, 400],
    ["decode grouped", 32, 8, 64, 300, 0, 300, 1],
    ["decode wrapped", 4, 2, 32, 300, 200, 777, 3],
]) {
    const cached = { kv_heads, head_dim, capacity, window };
    attention(tokens, queries, cached, { heads }, [1, 2], 0.25, null, (out, bytes) =>
        check(`attention ${name}`, out, bytes));
}
// Values of a latent cache are part of its keys: no type of keys.
for (const [name, kind] of constants("KVERN_KV")) {
    if (name === "latent") continue;
    for (const [what, queries] of [["decode", 1], ["prefill", 290]]) {
        const cached = { kv_heads: 2, head_dim: 64, capacity: 300, keys: kind, values: kind };
        const asked = { heads: 8, softcap: 20, window: 200, sinks: 3 };
        const slopes = Array.from({ length: 8 }, (_, h) => Math.fround(0.5 / (h + 1)));
        attention(290, queries, cached, asked, [4, 5], 1, slopes,
            (out, bytes, lse, lse_bytes) => {
                check(`attention ${what} with options, ${name} cache`, out, bytes);
                check(`attention ${what} log-sum-exp, ${name} cache`, lse, lse_bytes);
            });
    }
}

reset();
const { unsupported, io } = Object.fromEntries(constants("KVERN_STATUS"));
const two = struct("kvern_context_options", { threads: 2 });
refused(unsupported, /a second thread is not available/, "kvern_context_create", two);
const [path, x] = [string("weights"), floats(numbers(64, 1))];
const [weights, b] = [
    made("kvern_weights_quantize", 0, 8, 2, 32, x, 32),
    made("kvern_packed_b_pack", 0, 2, 32, x, 32, 0),
];
const cached = struct("kvern_kv_cache_options", { kv_heads: 1, head_dim: 8, capacity: 2 });
const cache = made("kvern_kv_cache_create", 0, cached);
refused(unsupported, /a mapped file is not available/, "kvern_weights_map", path);
refused(unsupported, /a mapped file is not available/, "kvern_packed_b_map", path);
refused(io, /cannot read weights/, "kvern_weights_load", 0, path);
refused(io, /cannot read weights/, "kvern_packed_b_load", 0, path);
refused(io, /cannot read weights/, "kvern_kv_cache_load", 0, cached, path);
for (const [save, object] of [["weights", weights], ["packed_b", b], ["kv_cache", cache]]) {
    assert.equal(kvern[`kvern_${save}_save`](object, path), io);
    assert.match(text(kvern.kvern_last_error_message()), /cannot write weights/);
}
kvern.kvern_weights_destroy(weights);
kvern.kvern_packed_b_destroy(b);
kvern.kvern_kv_cache_destroy(cache);
kvern.kvern_context_destroy(ctx);
assert(checked.size >= 200, `only ${checked.size} results were looked at`);
console.log(`the C interface in WebAssembly: ${checked.size} results as everywhere, and every refusal`);
