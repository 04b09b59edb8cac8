//! Caches and attention with every option through the C ABI: the bits of the safe API.

use crate::capi::*;
use crate::support::{Random, assert_same_bits};
use kvern::attention::*;
use kvern::capi::attention::*;
use kvern::capi::cache::*;
use kvern::capi::cache_edit::*;
use kvern::capi::dtype::*;
use kvern::capi::prepare::*;
use kvern::capi::ragged::*;
use kvern::capi::rope::*;
use kvern::capi::status::*;
use kvern::capi::workspace::*;
use kvern::ops::{RopePairs, RopeTable};
use kvern::{Context, MatMut, MatRef, Precision, Workspace};
use std::ptr::{null, null_mut};

const VALUE_DIM: usize = 24;
const VALUES: usize = KV_HEADS * VALUE_DIM;
const HEADS: usize = 4;

fn full_options(keys: i32, values: i32) -> kvern_kv_cache_options {
    let (value_dim, sequences, pages) = (VALUE_DIM, 3, 5);
    kvern_kv_cache_options { value_dim, sinks: 2, keys, values, sequences, pages, ..cache_options(40, 20) }
}

fn safe_options(keys: KvType, values: KvType) -> KvCacheOptions {
    let options = KvCacheOptions::new(KV_HEADS, HEAD_DIM, 40).window(20).sinks(2).value_dim(VALUE_DIM);
    options.types(keys, values).sequences(3).pages(5)
}

fn view(x: &[f32], cols: usize) -> MatRef<'_> {
    MatRef::dense(x, x.len() / cols, cols).unwrap()
}

/// Both caches hold the same.
fn same(raw: *const kvern_kv_cache, safe: &KvCache) {
    let (mut n, o) = (0, safe.options());
    let numbers: [(unsafe extern "C" fn(_, _) -> _, usize); 4] = [
        (kvern_kv_cache_bytes, safe.bytes()),
        (kvern_kv_cache_bytes_used, safe.bytes_used()),
        (kvern_kv_cache_pages, safe.pages()),
        (kvern_kv_cache_free_pages, safe.free_pages()),
    ];
    for (f, want) in numbers {
        // SAFETY: both pointers are live.
        ok(unsafe { f(raw, &raw mut n) });
        assert_eq!(n, want);
    }
    let (keys, values) = (o.kv_heads * o.head_dim, o.kv_heads * o.value_dim);
    let (mut k, mut v) = (vec![0.0; keys], vec![0.0; values]);
    let (mut got_k, mut got_v) = (k.clone(), v.clone());
    for s in 0..o.sequences {
        // SAFETY: as above.
        unsafe {
            ok(kvern_kv_cache_len_of(raw, s, &mut n));
            assert_eq!(n, safe.len_of(s));
            ok(kvern_kv_cache_start_of(raw, s, &mut n));
            assert_eq!(n, safe.start_of(s));
        }
        for p in (0..safe.len_of(s)).filter(|&p| p < o.sinks || p >= safe.start_of(s)) {
            safe.token(s, p, &mut k, &mut v).unwrap();
            // SAFETY: as above.
            unsafe {
                let (k, v) = (got_k.as_mut_ptr(), got_v.as_mut_ptr());
                ok(kvern_kv_cache_token(raw, s, p, keys, k, values, v));
            }
            assert_same_bits(&got_k, &k, "key");
            assert_same_bits(&got_v, &v, "value");
        }
    }
}

#[test]
fn caches_of_every_type_are_edited_as_in_the_safe_api() {
    let (o, ctx, mut random) = (Objects::new(), Context::serial(), Random::new(41));
    let table = RopeTable::new(HEAD_DIM, 16, 10000.0).unwrap();
    let (file, path) = temporary("capi_cache");
    for (keys, values) in KvType::ALL.into_iter().zip(KvType::ALL.into_iter().rev()) {
        let options = full_options(keys as i32, values as i32);
        let mut safe = KvCache::new(safe_options(keys, values)).unwrap();
        let (mut cache, mut loaded) = (null_mut(), null_mut());
        // SAFETY: every pointer is live and of the stated size.
        unsafe { ok(kvern_kv_cache_create(null(), &options, &mut cache)) };
        for sequence in [0, 2] {
            for tokens in [7, 30, 1] {
                let (k, v) = (random.vec(tokens * WIDTH), random.vec(tokens * VALUES));
                safe.append_to(sequence, view(&k, WIDTH), view(&v, VALUES)).unwrap();
                let (k, v) = (k.as_ptr(), v.as_ptr());
                // SAFETY: as above.
                unsafe { ok(kvern_kv_cache_append_to(cache, sequence, tokens, k, WIDTH, v, VALUES)) };
            }
        }
        same(cache, &safe);
        safe.fork(2, 1).unwrap();
        safe.truncate_in(1, 35).unwrap();
        safe.remove_in(0, 30..33).unwrap();
        safe.clear_in(2).unwrap();
        let rotated = safe.rotate(0, 30..35, -3, &table, RopePairs::Halves).is_ok();
        assert_eq!(rotated, !keys.is_quantized());
        // SAFETY: as above.
        unsafe {
            ok(kvern_kv_cache_fork(cache, 2, 1));
            ok(kvern_kv_cache_truncate_in(cache, 1, 35));
            ok(kvern_kv_cache_remove(cache, 0, 30, 33));
            ok(kvern_kv_cache_clear_in(cache, 2));
            let status = kvern_kv_cache_rotate(cache, 0, 30, 35, -3, o.table, KVERN_ROPE_HALVES);
            if rotated {
                ok(status);
            } else {
                refused(status, KVERN_STATUS_OPTION, "keys = int");
            }
        }
        same(cache, &safe);

        let (mut q, mut k, v) = (random.vec(3 * WIDTH), random.vec(3 * WIDTH), random.vec(3 * VALUES));
        let (q_gain, k_gain, at) = (random.vec(HEAD_DIM), random.vec(HEAD_DIM), [4usize, 5, 5]);
        let (mut safe_q, mut safe_k) = (q.clone(), k.clone());
        let prepared = Preparation::default()
            .norms(&q_gain, &k_gain, 1e-6)
            .rope(&table, RopePairs::Interleaved)
            .positions(&at);
        let (qv, kv) =
            (MatMut::dense(&mut safe_q, 3, WIDTH).unwrap(), MatMut::dense(&mut safe_k, 3, WIDTH).unwrap());
        safe.append_prepared(&ctx, 2, &prepared, qv, kv, view(&v, VALUES)).unwrap();
        let raw = kvern_preparation {
            q_gain: q_gain.as_ptr(),
            k_gain: k_gain.as_ptr(),
            q_eps: 1e-6,
            k_eps: 1e-6,
            rope: o.table,
            pairs: KVERN_ROPE_INTERLEAVED,
            positions: at.as_ptr(),
            ..preparation()
        };
        // SAFETY: as above.
        unsafe {
            let (q, k, v) = (q.as_mut_ptr(), k.as_mut_ptr(), v.as_ptr());
            ok(kvern_kv_cache_append_prepared(
                o.ctx, cache, 2, &raw, 3, KV_HEADS, q, WIDTH, k, WIDTH, v, VALUES,
            ));
        }
        assert_same_bits(&q, &safe_q, "prepared q");
        assert_same_bits(&k, &safe_k, "prepared k");
        same(cache, &safe);
        let (none, k, v) = (null_mut(), k.as_mut_ptr(), v.as_ptr());
        safe.append_to(2, view(&safe_k, WIDTH), MatRef::dense(&vec![0.0; 3 * VALUES], 3, VALUES).unwrap())
            .unwrap();
        safe.truncate_in(2, 3).unwrap();
        // SAFETY: as above.
        unsafe {
            ok(kvern_kv_cache_append_prepared(o.ctx, cache, 2, null(), 3, 0, none, 0, k, WIDTH, v, VALUES));
            ok(kvern_kv_cache_truncate_in(cache, 2, 3));
            ok(kvern_kv_cache_save(cache, path.as_ptr()));
            ok(kvern_kv_cache_load(null(), &options, path.as_ptr(), &mut loaded));
            same(loaded, &safe);
            ok(kvern_kv_cache_clear(loaded));
            ok(kvern_kv_cache_restore(loaded, path.as_ptr()));
            same(loaded, &safe);
            kvern_kv_cache_destroy(loaded);
            std::fs::write(&file, b"damaged").unwrap();
            refused(kvern_kv_cache_restore(cache, path.as_ptr()), KVERN_STATUS_BLOB, "stored");
            same(cache, &safe);
            std::fs::remove_file(&file).unwrap();
            let status = kvern_kv_cache_load(null(), &options, path.as_ptr(), &mut loaded);
            refused(status, KVERN_STATUS_IO, "cannot");
            assert!(loaded.is_null());
            kvern_kv_cache_destroy(cache);
        }
    }
}

/// One call in both worlds: options of C beside those of the safe API.
struct Case<'a> {
    raw: kvern_attention_options,
    options: AttentionOptions,
    bias: Bias<'a>,
    sequences: Vec<usize>,
}

#[test]
fn attention_with_every_option_has_the_bits_of_the_safe_api() {
    const TOKENS: usize = 300;
    const Q: usize = 5;
    let (o, ctx, mut random) = (Objects::new(), Context::serial(), Random::new(42));
    let mut ws = Workspace::new(8 << 20).unwrap();
    let raw_cache = kvern_kv_cache_options { sequences: 2, value_dim: VALUE_DIM, ..cache_options(400, 0) };
    let made = KvCacheOptions::new(KV_HEADS, HEAD_DIM, 400).sequences(2).value_dim(VALUE_DIM);
    let (mut cache, mut safe) = (null_mut(), KvCache::new(made).unwrap());
    // SAFETY: every pointer is live and of the stated size.
    unsafe { ok(kvern_kv_cache_create(null(), &raw_cache, &mut cache)) };
    let mut rows = Vec::new();
    for (sequence, tokens) in [(0, TOKENS), (1, 40)] {
        let (k, v) = (random.vec(tokens * WIDTH), random.vec(tokens * VALUES));
        safe.append_to(sequence, view(&k, WIDTH), view(&v, VALUES)).unwrap();
        // SAFETY: as above.
        unsafe {
            ok(kvern_kv_cache_append_to(cache, sequence, tokens, k.as_ptr(), WIDTH, v.as_ptr(), VALUES))
        };
        rows.push((k, v));
    }
    let mut slopes = [0.0; HEADS];
    // SAFETY: as above.
    unsafe { ok(kvern_alibi_slopes(HEADS, slopes.as_mut_ptr())) };
    let mut want = [0.0; HEADS];
    alibi_slopes(&mut want);
    assert_same_bits(&slopes, &want, "slopes");

    let q = random.vec(2 * Q * HEADS * HEAD_DIM);
    let logits = random.vec(HEADS);
    let mask = random.vec(HEADS * 2 * Q * TOKENS);
    let seen: Vec<bool> = (0..HEADS * 2 * Q * TOKENS).map(|_| random.below(3) > 0).collect();
    let seen_bytes: Vec<u8> = seen.iter().map(|&x| x.into()).collect();
    let dense = |rows| MatRef::dense(&mask[..rows * TOKENS], rows, TOKENS).unwrap();
    let flags = |rows, cols| MatRef::dense(&seen[..rows * cols], rows, cols).unwrap();
    let (raw, options, bias) = (attention_options(HEADS), AttentionOptions::new(HEADS), Bias::default());
    let with_mask = kvern_attention_options { mask: mask.as_ptr(), mask_row_stride: TOKENS, ..raw };
    let with_seen = kvern_attention_options { seen: seen_bytes.as_ptr(), seen_row_stride: TOKENS, ..raw };
    fn case<'a>(raw: kvern_attention_options, options: AttentionOptions, bias: Bias<'a>) -> Case<'a> {
        Case { raw, options, bias, sequences: vec![0] }
    }
    let cases = [
        case(raw, options, bias),
        case(
            kvern_attention_options { scale: 0.3, softcap: 5.0, ..raw },
            options.scale(0.3).softcap(5.0),
            bias,
        ),
        case(
            kvern_attention_options { precision: KVERN_PRECISION_FAST, ..raw },
            options.precision(Precision::Fast),
            bias,
        ),
        case(kvern_attention_options { non_causal: 1, ..raw }, options.causal(false), bias),
        case(kvern_attention_options { window: 33, sinks: 4, ..raw }, options.window(33).sinks(4), bias),
        case(kvern_attention_options { alibi: slopes.as_ptr(), ..raw }, options, bias.alibi(&slopes)),
        case(
            kvern_attention_options { sink_logits: logits.as_ptr(), ..raw },
            options,
            bias.sink_logits(&logits),
        ),
        case(with_mask, options, bias.mask(dense(Q))),
        case(kvern_attention_options { mask_per_head: 1, ..with_mask }, options, bias.mask(dense(HEADS * Q))),
        case(with_seen, options, bias.seen(flags(Q, TOKENS))),
        case(
            kvern_attention_options { seen_per_head: 1, ..with_seen },
            options,
            bias.seen(flags(HEADS * Q, TOKENS)),
        ),
        case(
            kvern_attention_options { tree: seen_bytes.as_ptr(), tree_row_stride: Q, ..raw },
            options,
            bias.tree(flags(Q, Q)),
        ),
        Case { raw: with_mask, options, bias: bias.mask(dense(2 * Q)), sequences: vec![1, 0] },
        Case { raw, options, bias, sequences: vec![1] },
    ];
    for (i, Case { raw, options, bias, sequences }) in cases.into_iter().enumerate() {
        let rows_of_q = Q * sequences.len();
        let (width, out_width) = (HEADS * HEAD_DIM, HEADS * VALUE_DIM);
        let q = &q[..rows_of_q * width];
        let (mut want, mut want_lse) = (vec![0.0; rows_of_q * out_width], vec![0.0; rows_of_q * HEADS]);
        let (mut got, mut lse) = (want.clone(), want_lse.clone());
        let lse_view = MatMut::dense(&mut want_lse, rows_of_q, HEADS).unwrap();
        let outputs = Outputs::new(MatMut::dense(&mut want, rows_of_q, out_width).unwrap()).lse(lse_view);
        let kv = Sequences::new(&safe, &sequences);
        attend_with(&ctx, &mut ws, &options, &bias, view(q, width), kv, outputs).unwrap();
        let raw = kvern_attention_options {
            lse: lse.as_mut_ptr(),
            lse_row_stride: HEADS,
            sequences: if i == 0 { null() } else { sequences.as_ptr() },
            sequences_len: if i == 0 { 0 } else { sequences.len() },
            ..raw
        };
        let (mut bytes, qp, out) = (0, q.as_ptr(), got.as_mut_ptr());
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            ok(kvern_attention_workspace_bytes(o.ctx, &raw, cache, Q, &mut bytes));
            assert_eq!(bytes, workspace_bytes(&ctx, &options, &safe, Q).unwrap());
            ok(kvern_workspace_reserve(o.ws, bytes));
            ok(kvern_attention(o.ctx, o.ws, &raw, cache, Q, qp, width, out, out_width));
        }
        assert_same_bits(&got, &want, &format!("case {i}"));
        assert_same_bits(&lse, &want_lse, &format!("lse of case {i}"));

        // The same rows in the caller's own memory.
        if sequences == [0] && options.precision == Precision::Exact {
            let (k, v) = (&rows[0].0, &rows[0].1);
            got.fill(0.0);
            let raw = kvern_attention_options { sequences_len: 0, sequences: null(), ..raw };
            let plain = Plain::new(view(k, WIDTH), view(v, VALUES), KV_HEADS).unwrap();
            let (k, v, out) = (k.as_ptr(), v.as_ptr(), got.as_mut_ptr());
            let (h, kd, vd) = (KV_HEADS, HEAD_DIM, VALUE_DIM);
            // SAFETY: as above.
            unsafe {
                ok(kvern_attention_plain_workspace_bytes(o.ctx, &raw, h, kd, vd, TOKENS, Q, &mut bytes));
                assert_eq!(bytes, plain_workspace_bytes(&ctx, &options, &plain, Q).unwrap());
                ok(kvern_workspace_reserve(o.ws, bytes));
                ok(kvern_attention_plain(
                    o.ctx, o.ws, &raw, h, kd, vd, TOKENS, k, WIDTH, v, VALUES, Q, qp, width, out, out_width,
                ));
            }
            assert_same_bits(&got, &want, &format!("plain case {i}"));
            assert_same_bits(&lse, &want_lse, &format!("plain lse of case {i}"));

            // As one of two sequences, the other of which is empty.
            if raw.tree.is_null() {
                got.fill(0.0);
                lse.fill(0.0);
                let (starts, ends) = ([0, 0, TOKENS], [0, 0, Q]);
                let (starts, ends) = (starts.as_ptr(), ends.as_ptr());
                let (k, v, out) = (rows[0].0.as_ptr(), rows[0].1.as_ptr(), got.as_mut_ptr());
                let raw = kvern_attention_options { lse: lse.as_mut_ptr(), ..raw };
                // SAFETY: as above.
                ok(unsafe {
                    kvern_attention_ragged(
                        o.ctx, o.ws, &raw, 2, starts, ends, h, kd, vd, TOKENS, k, WIDTH, v, VALUES, Q, qp,
                        width, out, out_width,
                    )
                });
                assert_same_bits(&got, &want, &format!("ragged case {i}"));
                assert_same_bits(&lse, &want_lse, &format!("ragged lse of case {i}"));
            }
        }
    }
    // SAFETY: nothing uses it any more.
    unsafe { kvern_kv_cache_destroy(cache) };
}
