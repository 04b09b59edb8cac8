//! What objects say of themselves, asked between calls.

use kvern::capi::cache::*;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::status::*;
use kvern::capi::weights::*;

pub fn ok(status: kvern_status) {
    assert_eq!(status, KVERN_STATUS_OK);
}

/// n and k of weights.
pub fn shape_of_weights(weights: *const kvern_weights) -> (usize, usize) {
    let (mut n, mut k) = (0, 0);
    // SAFETY: a live object.
    unsafe {
        ok(kvern_weights_n(weights, &mut n));
        ok(kvern_weights_k(weights, &mut k));
    }
    (n, k)
}

/// n and k of a packed matrix.
pub fn shape_of_packed(b: *const kvern_packed_b) -> (usize, usize) {
    let (mut n, mut k) = (0, 0);
    // SAFETY: a live object.
    unsafe {
        ok(kvern_packed_b_n(b, &mut n));
        ok(kvern_packed_b_k(b, &mut k));
    }
    (n, k)
}

/// Sequence by sequence: length, oldest position, and a hash of what it holds; then the free pages.
pub fn contents(cache: *const kvern_kv_cache) -> Vec<usize> {
    let (mut all, mut width) = (Vec::new(), [(0usize, 0usize); 1]);
    let (mut k, mut v) = ([0f32; 64], [0f32; 64]);
    // SAFETY: a live cache; widths are tried until one fits.
    unsafe {
        for sequence in 0.. {
            let (mut len, mut start) = (0, 0);
            if kvern_kv_cache_len_of(cache, sequence, &mut len) != KVERN_STATUS_OK {
                break;
            }
            ok(kvern_kv_cache_start_of(cache, sequence, &mut start));
            all.extend([len, start]);
            let mut hash = 0usize;
            for position in start.max(len.saturating_sub(24))..len {
                let others = (1..=8).flat_map(|key| (1..=8).map(move |value| (8 * key, 8 * value)));
                for (key, value) in width.into_iter().chain(others) {
                    let (k, v) = (k.as_mut_ptr(), v.as_mut_ptr());
                    if key > 0 && kvern_kv_cache_token(cache, sequence, position, key, k, value, v) == 0 {
                        width[0] = (key, value);
                        break;
                    }
                }
                let floats = k[..width[0].0].iter().chain(&v[..width[0].1]);
                hash = floats.fold(hash, |h, x| h.wrapping_mul(31).wrapping_add(x.to_bits() as usize));
            }
            all.push(hash);
        }
        let mut pages = 0;
        ok(kvern_kv_cache_free_pages(cache, &mut pages));
        all.push(pages);
    }
    all
}
