//! Latent attention in C: products of heads, caches whose values are part of their keys, and prepared
//! appends; the bits of the safe API, and what is refused.

use crate::capi::*;
use crate::statuses::*;
use crate::support::{Random, assert_same_bits};
use kvern::attention::{
    AttentionOptions, KvCache, KvCacheOptions, KvType, Preparation, attend, workspace_bytes,
};
use kvern::capi::attention::*;
use kvern::capi::cache::*;
use kvern::capi::heads::*;
use kvern::capi::prepare::*;
use kvern::capi::quant::*;
use kvern::capi::rope::*;
use kvern::capi::workspace::*;
use kvern::ops::{RopePairs, RopeTable};
use kvern::quant::{
    Compute, HeadStrides, PackedWeights, WeightFormat, heads_workspace_bytes, multiply_heads,
};
use kvern::{Context, MatMut, MatRef, Workspace};
use std::ptr::{null, null_mut};

const LATENT: usize = 32;
const KEY: usize = LATENT + 8;
const HEADS: usize = 3;

fn latent_options() -> kvern_kv_cache_options {
    let o = cache_options(40, 0);
    let (keys, values) = (KVERN_KV_BF16, KVERN_KV_LATENT);
    kvern_kv_cache_options { kv_heads: 1, head_dim: KEY, value_dim: LATENT, keys, values, ..o }
}

#[test]
fn a_layer_has_the_bits_of_the_safe_api() {
    let (o, ctx, mut r) = (Objects::new(), Context::serial(), Random::new(85));
    let tokens = 7;
    let (gain, q, k) = (r.vec(LATENT), r.vec(tokens * HEADS * KEY), r.vec(tokens * KEY));

    let made = KvCacheOptions::new(1, KEY, 40).types(KvType::Bf16, KvType::Bf16).latent(LATENT);
    let mut cache = KvCache::new(made).unwrap();
    let table = RopeTable::new(8, 64, 1e4).unwrap();
    let mut prepared = Preparation::default().rope(&table, RopePairs::Interleaved);
    prepared.k_norm = Some((&gain, 1e-5));
    let (mut want_q, mut want_k, mut want) = (q.clone(), k.clone(), vec![0.0; tokens * HEADS * LATENT]);
    let (rows, keys) = (
        MatMut::dense(&mut want_q, tokens, HEADS * KEY).unwrap(),
        MatMut::dense(&mut want_k, tokens, KEY).unwrap(),
    );
    let none = MatRef::dense(&[], tokens, 0).unwrap();
    cache.append_prepared(&ctx, 0, &prepared, rows, keys, none).unwrap();
    let options = AttentionOptions::new(HEADS).scale(0.2);
    let mut ws = Workspace::new(workspace_bytes(&ctx, &options, &cache, tokens).unwrap()).unwrap();
    let rows = MatRef::dense(&want_q, tokens, HEADS * KEY).unwrap();
    let out = MatMut::dense(&mut want, tokens, HEADS * LATENT).unwrap();
    attend(&ctx, &mut ws, &options, rows, &cache, out).unwrap();

    let (mut raw_cache, mut raw_table) = (null_mut(), null_mut());
    let (mut got_q, mut got_k, mut got) = (q, k, vec![f32::NAN; tokens * HEADS * LATENT]);
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        ok(kvern_kv_cache_create(null(), &latent_options(), &mut raw_cache));
        ok(kvern_rope_table_create(8, 64, 1e4, &mut raw_table));
        let raw = kvern_preparation {
            k_gain: gain.as_ptr(),
            k_eps: 1e-5,
            rope: raw_table,
            pairs: KVERN_ROPE_INTERLEAVED,
            ..preparation()
        };
        let (to_q, to_k) = (got_q.as_mut_ptr(), got_k.as_mut_ptr());
        ok(kvern_kv_cache_append_prepared(
            o.ctx,
            raw_cache,
            0,
            &raw,
            tokens,
            HEADS,
            to_q,
            HEADS * KEY,
            to_k,
            KEY,
            null(),
            0,
        ));
        let options = kvern_attention_options { scale: 0.2, ..attention_options(HEADS) };
        let mut bytes = 0;
        ok(kvern_attention_workspace_bytes(o.ctx, &options, raw_cache, tokens, &mut bytes));
        ok(kvern_workspace_reserve(o.ws, bytes));
        let (from, to) = (got_q.as_ptr(), got.as_mut_ptr());
        ok(kvern_attention(o.ctx, o.ws, &options, raw_cache, tokens, from, HEADS * KEY, to, HEADS * LATENT));
        // Values are no argument, and the cache gives back what it holds.
        ok(kvern_kv_cache_append(raw_cache, 1, got_k.as_ptr(), KEY, null(), 0));
        let (mut key, mut value) = ([0.0f32; KEY], [0.0f32; LATENT]);
        let (key_to, value_to) = (key.as_mut_ptr(), value.as_mut_ptr());
        ok(kvern_kv_cache_token(raw_cache, 0, tokens, KEY, key_to, LATENT, value_to));
        assert_same_bits(&value, &key[..LATENT], "the first part of the key");
        kvern_kv_cache_destroy(raw_cache);
        kvern_rope_table_destroy(raw_table);
    }
    assert_same_bits(&got_q, &want_q, "queries");
    assert_same_bits(&got_k, &want_k, "keys");
    assert_same_bits(&got, &want, "attention");
}

#[test]
fn latents_that_cannot_be_are_refused() {
    let o = latent_options();
    let wide = kvern_kv_cache_options { value_dim: 48, ..o };
    let keys = kvern_kv_cache_options { keys: KVERN_KV_LATENT, ..o };
    let mut cache = null_mut();
    refuse! {
        SHAPE "value_dim = 48 must be at most head_dim = 40":
            kvern_kv_cache_create(null(), &wide, &mut cache);
        OPTION "options->keys = 256": kvern_kv_cache_create(null(), &keys, &mut cache);
    }
}

#[test]
fn heads_have_the_bits_of_the_safe_api_and_refuse_bad_arguments() {
    let (o, ctx, mut r) = (Objects::new(), Context::serial(), Random::new(86));
    let (m, n, k) = (3, 40, 64);
    let mut raw = Vec::new();
    let mut safe = Vec::new();
    for format in [WeightFormat::Q8_0, WeightFormat::Q4_0] {
        let w = r.vec(n * k);
        let mut weights = null_mut();
        // SAFETY: every pointer is live and of the stated size.
        ok(unsafe { kvern_weights_quantize(null(), format as i32, n, k, w.as_ptr(), k, &mut weights) });
        raw.push(weights.cast_const());
        safe.push(PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap());
    }
    let list: Vec<&PackedWeights> = safe.iter().collect();
    let x = r.vec(m * 140);
    let strides = HeadStrides { a: 70, c: 44 };
    let mut want = vec![2.5; m * 90];
    let bytes = heads_workspace_bytes(&ctx, &list, m, Compute::Int8).unwrap();
    let mut ws = Workspace::new(bytes).unwrap();
    let (a, c) = (MatRef::dense(&x, m, 140).unwrap(), MatMut::dense(&mut want, m, 90).unwrap());
    multiply_heads(&ctx, &mut ws, Compute::Int8, &list, strides, a, c).unwrap();

    let (mut got, mut bytes) = (vec![2.5; m * 90], 0);
    let (p, from, to) = (raw.as_ptr(), x.as_ptr(), got.as_mut_ptr());
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        ok(kvern_weights_heads_workspace_bytes(o.ctx, 0, m, 2, p, &mut bytes));
        ok(kvern_workspace_reserve(o.ws, bytes));
        ok(kvern_weights_multiply_heads(o.ctx, o.ws, 0, m, 2, p, k, from, 140, 70, n, to, 90, 44));
    }
    assert_same_bits(&got, &want, "kvern_weights_multiply_heads");

    let no_second = [raw[0], null()];
    let other = [raw[0], o.weights.cast_const()];
    let (no_second, other, inside) = (no_second.as_ptr(), other.as_ptr(), to.cast_const());
    macro_rules! run {
        ($compute:expr, $count:expr, $list:expr, $k:expr, $a:expr, $n:expr, $c:expr, $strides:expr) => {
            kvern_weights_multiply_heads(
                o.ctx, o.ws, $compute, m, $count, $list, $k, $a, 140, $strides.0, $n, $c, 90, $strides.1,
            )
        };
    }
    let good = (70, 44);
    refuse! {
        NULL_POINTER "ctx is NULL": kvern_weights_heads_workspace_bytes(null(), 0, m, 2, p, &mut bytes);
        NULL_POINTER "out is NULL": kvern_weights_heads_workspace_bytes(o.ctx, 0, m, 2, p, null_mut());
        NULL_POINTER "weights is NULL":
            kvern_weights_heads_workspace_bytes(o.ctx, 0, m, 2, null(), &mut bytes);
        OPTION "heads = 0": kvern_weights_heads_workspace_bytes(o.ctx, 0, m, 0, p, &mut bytes);
        NULL_POINTER "ctx is NULL":
            kvern_weights_multiply_heads(null(), o.ws, 0, m, 2, p, k, from, 140, 70, n, to, 90, 44);
        NULL_POINTER "ws is NULL":
            kvern_weights_multiply_heads(o.ctx, null_mut(), 0, m, 2, p, k, from, 140, 70, n, to, 90, 44);
        OPTION "compute = 7": run!(7, 2, p, k, from, n, to, good);
        OPTION "heads = 0": run!(0, 0, p, k, from, n, to, good);
        NULL_POINTER "weights is NULL": run!(0, 2, null(), k, from, n, to, good);
        NULL_POINTER "weights[i] is NULL": run!(0, 2, no_second, k, from, n, to, good);
        SHAPE "weights.n = 5 must equal the first head's = 40": run!(0, 2, other, k, from, n, to, good);
        SHAPE "k = 63 must equal the weights' = 64": run!(0, 2, p, 63, from, n, to, good);
        SHAPE "n = 41 must equal the weights' = 40": run!(0, 2, p, k, from, 41, to, good);
        SHAPE "head stride = 63": run!(0, 2, p, k, from, n, to, (63, 44));
        SHAPE "head stride = 39": run!(0, 2, p, k, from, n, to, (70, 39));
        OVERFLOW "a": run!(0, 2, p, k, from, n, to, (usize::MAX, 44));
        NULL_POINTER "a is NULL": run!(0, 2, p, k, null(), n, to, good);
        NULL_POINTER "c is NULL": run!(0, 2, p, k, from, n, null_mut(), good);
        ALIASED "c overlaps a": run!(0, 2, p, k, inside, n, to, good);
    }
    assert_same_bits(&got, &want, "a refusal changes nothing");
    // SAFETY: live, and used no more.
    raw.iter().for_each(|w| unsafe { kvern_weights_destroy(w.cast_mut()) });
}
