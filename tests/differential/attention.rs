//! Attention over caches with a history: ragged sequences, forks, wrapped rings, every type, option and mask.

use crate::machines::{Machines, Out, one_in};
use crate::oracle::U;
use crate::support::{Random, temp};
use kvern::attention::*;
use kvern::{Context, MatRef, Workspace};

/// Scores beyond this count as this, where a finite mask takes them there: f32's greatest number over log2 e.
const LIMIT: f64 = f32::MAX as f64 / std::f64::consts::LOG2_E;

/// What happens to a cache.
enum Step {
    Append { sequence: usize, k: Vec<f32>, v: Vec<f32> },
    Truncate { sequence: usize, len: usize },
    Remove { sequence: usize, from: usize, to: usize },
    Fork { from: usize, to: usize },
    Clear { sequence: usize },
}

impl Step {
    fn random(random: &mut Random, cache: &KvCache) -> Step {
        let options = cache.options();
        let sequence = random.below(options.sequences);
        let len = cache.len_of(sequence);
        match random.below(12) {
            0 if len > 0 => Step::Truncate { sequence, len: len - random.below(len.min(9)) },
            1 if len > 0 => {
                let from = random.below(len);
                Step::Remove { sequence, from, to: from + random.below(len - from + 1) }
            }
            2 => Step::Fork { from: sequence, to: random.below(options.sequences) },
            3 => Step::Clear { sequence },
            _ => {
                let tokens = 1 + random.below(options.capacity);
                let width = |dim| tokens * options.kv_heads * dim;
                let (k, v) = (random.vec(width(options.head_dim)), random.vec(width(options.value_dim)));
                Step::Append { sequence, k, v }
            }
        }
    }

    /// Applies it; a chunk of tokens in pieces of at most `piece`.
    fn apply(&self, cache: &mut KvCache, piece: usize) -> kvern::Result<()> {
        match self {
            Step::Append { sequence, k, v } => {
                let options = *cache.options();
                let widths = [options.kv_heads * options.head_dim, options.kv_heads * options.value_dim];
                let tokens = k.len() / widths[0];
                for first in (0..tokens).step_by(piece) {
                    let rows = piece.min(tokens - first);
                    let part = |x: &[f32], width: usize| x[first * width..(first + rows) * width].to_vec();
                    let (k, v) = (part(k, widths[0]), part(v, widths[1]));
                    let k = MatRef::dense(&k, rows, widths[0])?;
                    cache.append_to(*sequence, k, MatRef::dense(&v, rows, widths[1])?)?;
                }
                Ok(())
            }
            Step::Truncate { sequence, len } => cache.truncate_in(*sequence, *len),
            Step::Remove { sequence, from, to } => cache.remove_in(*sequence, *from..*to),
            Step::Fork { from, to } => cache.fork(*from, *to),
            Step::Clear { sequence } => cache.clear_in(*sequence),
        }
    }
}

fn dim(random: &mut Random) -> usize {
    if one_in(random, 6) { [64, 80, 128][random.below(3)] } else { 8 * (1 + random.below(4)) }
}

/// A cache with a history, and one with the same tokens that came in other pieces.
fn caches(random: &mut Random) -> (KvCache, KvCache) {
    let key_dim = dim(random);
    let capacity = if one_in(random, 4) { 257 + random.below(300) } else { 1 + random.below(130) };
    let mut options = KvCacheOptions::new(1 + random.below(3), key_dim, capacity);
    options = options.sequences(1 + random.below(4));
    if one_in(random, 4) {
        options = options.value_dim(dim(random));
    }
    if one_in(random, 3) {
        let window = 1 + random.below(capacity);
        options = options.window(window).sinks(random.below(5).min(capacity - window));
    }
    let mut types =
        || if one_in(random, 2) { KvType::F32 } else { KvType::ALL[random.below(KvType::ALL.len())] };
    options = options.types(types(), types());
    let (mut cache, mut other) = (KvCache::new(options).unwrap(), KvCache::new(options).unwrap());
    for _ in 0..1 + random.below(10) {
        let step = Step::random(random, &cache);
        if step.apply(&mut cache, usize::MAX >> 1).is_ok() {
            step.apply(&mut other, 1 + random.below(40)).unwrap();
        }
    }
    if one_in(random, 8) {
        let path = temp("differential-cache");
        other.save(&path).unwrap();
        other = KvCache::load(options, &path).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
    (cache, other)
}

/// One call, owned.
struct Call {
    options: AttentionOptions,
    sequences: Vec<usize>,
    q_len: usize,
    q: Vec<f32>,                     // (rows, heads * head_dim)
    alibi: Option<Vec<f32>>,         // (heads)
    sink_logits: Option<Vec<f32>>,   // (heads)
    mask: Option<(usize, Vec<f32>)>, // rows, (rows, kv_len)
    seen: Option<(usize, Vec<bool>)>,
    tree: Option<Vec<bool>>, // (q rows, q_len)
}

impl Call {
    /// `None` where the cache holds no token that could be asked for.
    fn random(random: &mut Random, cache: &KvCache) -> Option<Call> {
        let kept = *cache.options();
        let filled: Vec<usize> = (0..kept.sequences).filter(|&s| cache.len_of(s) > 0).collect();
        if filled.is_empty() {
            return None;
        }
        let count = 1 + random.below(4);
        let sequences: Vec<usize> = (0..count).map(|_| filled[random.below(filled.len())]).collect();
        let heads = kept.kv_heads * [1, 1, 2, 4, 4, 7, 8][random.below(7)];
        let mut options = AttentionOptions::new(heads);
        if one_in(random, 3) {
            options = options.scale(0.3);
        }
        if one_in(random, 4) {
            options = options.softcap(1.5);
        }
        if one_in(random, 4) {
            options = options.window(1 + random.below(60));
        }
        let whole = sequences.iter().all(|&s| cache.start_of(s) == 0);
        if kept.window.is_none() && one_in(random, 6) {
            options = options.causal(false);
        }
        if whole && one_in(random, 4) {
            options = options.sinks(random.below(6));
        }
        // The keys that the first query sees must all be held.
        let window = options.window.unwrap_or(usize::MAX).min(kept.window.unwrap_or(usize::MAX));
        let most = sequences.iter().map(|&s| {
            let (len, start) = (cache.len_of(s), cache.start_of(s));
            if start == 0 { len } else { (len + 1).saturating_sub(window).saturating_sub(start) }.min(len)
        });
        // After a truncation of a ring even the last query's window may be gone: such a call is refused.
        let most = most.min().unwrap_or(0);
        if most == 0 {
            return None;
        }
        let q_len = if one_in(random, 3) { 1 } else { 1 + random.below(most.min(120)) }.min(most);
        let rows = q_len * count;
        let kv_len = sequences.iter().map(|&s| cache.len_of(s)).max().unwrap_or(0);
        let mask_rows = |random: &mut Random| {
            if one_in(random, 3) { if one_in(random, 2) { rows } else { heads * rows } } else { 0 }
        };
        let additive = mask_rows(random);
        let boolean = mask_rows(random);
        let numbers = |random: &mut Random, n: usize| -> Vec<f32> {
            let low = [f32::NEG_INFINITY, -3.0, f32::MIN][random.below(3)];
            let whole = one_in(random, 8); // every key of every row
            (0..n).map(|_| if whole || one_in(random, 3) { low } else { random.f32() }).collect()
        };
        let flags = |random: &mut Random, n: usize| (0..n).map(|_| !one_in(random, 3)).collect();
        Some(Call {
            options,
            q_len,
            q: random.vec(rows * heads * kept.head_dim).iter().map(|x| 2.0 * x).collect(),
            alibi: one_in(random, 4).then(|| random.vec(heads).iter().map(|x| x.abs()).collect()),
            sink_logits: one_in(random, 4).then(|| random.vec(heads)),
            mask: (additive > 0).then(|| (additive, numbers(random, additive * kv_len))),
            seen: (boolean > 0).then(|| (boolean, flags(random, boolean * kv_len))),
            tree: (options.causal && one_in(random, 5)).then(|| flags(random, rows * q_len)),
            sequences,
        })
    }

    fn rows(&self) -> usize {
        self.q_len * self.sequences.len()
    }

    /// Attention of rows `first..` of these sequences.
    fn run(&self, ctx: &Context, cache: &KvCache, part: std::ops::Range<usize>, outs: &mut (Out, Out)) {
        let kept = cache.options();
        let (sequences, rows) =
            (&self.sequences[part.clone()], part.start * self.q_len..part.end * self.q_len);
        let kv_len = |sequences: &[usize]| sequences.iter().map(|&s| cache.len_of(s)).max().unwrap_or(0);
        let (all_keys, keys) = (kv_len(&self.sequences), kv_len(sequences));
        // Rows of these sequences out of a mask, for each head where it has them.
        fn cut<T: Copy>(
            x: &[T],
            width: usize,
            all: usize,
            rows: &std::ops::Range<usize>,
            keys: usize,
        ) -> Vec<T> {
            let row = |i: usize| &x[i * width..][..keys];
            (0..x.len() / (width * all).max(1))
                .flat_map(|h| rows.clone().map(move |i| h * all + i))
                .flat_map(|i| row(i).iter().copied())
                .collect()
        }
        let all = self.rows();
        let mask =
            self.mask.as_ref().map(|(of, x)| (of / all * rows.len(), cut(x, all_keys, all, &rows, keys)));
        let seen =
            self.seen.as_ref().map(|(of, x)| (of / all * rows.len(), cut(x, all_keys, all, &rows, keys)));
        let tree = self.tree.as_ref().map(|x| cut(x, self.q_len, all, &rows, self.q_len));
        let mut bias = Bias::default();
        if let Some(slopes) = &self.alibi {
            bias = bias.alibi(slopes);
        }
        if let Some(logits) = &self.sink_logits {
            bias = bias.sink_logits(logits);
        }
        if let Some((of, mask)) = &mask {
            bias = bias.mask(MatRef::dense(mask, *of, keys).unwrap());
        }
        if let Some((of, seen)) = &seen {
            bias = bias.seen(MatRef::dense(seen, *of, keys).unwrap());
        }
        if let Some(tree) = &tree {
            bias = bias.tree(MatRef::dense(tree, rows.len(), self.q_len).unwrap());
        }
        let width = self.options.heads * kept.head_dim;
        let q = &self.q[rows.start * width..rows.end * width];
        let bytes = workspace_bytes(ctx, &self.options, cache, self.q_len).unwrap();
        let mut ws = Workspace::new(bytes).unwrap();
        let outputs = Outputs::new(outs.0.view()).lse(outs.1.view());
        let q = MatRef::dense(q, rows.len(), width).unwrap();
        attend_with(ctx, &mut ws, &self.options, &bias, q, Sequences::new(cache, sequences), outputs)
            .unwrap();
    }

    /// Output and log-sum-exp for a number of rows.
    fn outs(&self, definition: bool, kept: &KvCacheOptions, rows: usize, gap: usize) -> (Out, Out) {
        let new = if definition { Out::of_definition } else { Out::of_others };
        (new(rows, self.options.heads * kept.value_dim, gap), new(rows, self.options.heads, gap))
    }
}

pub fn case(machines: &Machines, random: &mut Random) {
    let (cache, other) = caches(random);
    let kept = *cache.options();
    let Some(call) = Call::random(random, &cache) else { return };
    let lens: Vec<usize> = call.sequences.iter().map(|&s| cache.len_of(s)).collect();
    let what = format!(
        "q_len {}, sequences {:?} of {lens:?} tokens, {:?}, {kept:?}, alibi {}, sink logits {}, mask {:?}, \
         seen {:?}, tree {}",
        call.q_len,
        call.sequences,
        call.options,
        call.alibi.is_some(),
        call.sink_logits.is_some(),
        call.mask.as_ref().map(|mask| mask.0),
        call.seen.as_ref().map(|seen| seen.0),
        call.tree.is_some()
    );
    let (rows, count, gap) = (call.rows(), call.sequences.len(), random.below(4));
    let mut want = call.outs(true, &kept, rows, gap);
    call.run(&machines.definition, &cache, 0..count, &mut want);
    check(&call, &cache, &want, random, &what);
    for (name, ctx) in machines.some(random) {
        let what = format!("{name}: {what}");
        let mut got = call.outs(false, &kept, rows, gap);
        call.run(ctx, if one_in(random, 2) { &cache } else { &other }, 0..count, &mut got);
        got.0.assert_same(&want.0, &what);
        got.1.assert_same(&want.1, &format!("{what}, log-sum-exp"));
    }
    // A sequence has the bits that it has alone.
    let (name, ctx) = machines.some(random).pop().unwrap();
    for s in 0..count {
        let mut got = call.outs(false, &kept, call.q_len, gap);
        call.run(ctx, &other, s..s + 1, &mut got);
        let of = |outs: &Out, definition: &Out, what: &str| {
            let mut own = Out::of_definition(call.q_len, definition.row(0).len(), 0);
            let rows: Vec<f32> =
                (0..call.q_len).flat_map(|i| definition.row(s * call.q_len + i).to_vec()).collect();
            own = own.fill(&rows);
            outs.assert_rows(0..call.q_len, &own, what);
        };
        of(&got.0, &want.0, &format!("{name}: sequence {s} alone: {what}"));
        of(&got.1, &want.1, &format!("{name}: sequence {s} alone, log-sum-exp: {what}"));
    }
}

/// Some rows against a softmax in f64 over what the cache holds.
fn check(call: &Call, cache: &KvCache, outs: &(Out, Out), random: &mut Random, what: &str) {
    let kept = *cache.options();
    let (heads, rows) = (call.options.heads, call.rows());
    for _ in 0..6 {
        let (row, h) = (random.below(rows), random.below(heads));
        let sequence = call.sequences[row / call.q_len];
        let (len, start) = (cache.len_of(sequence), cache.start_of(sequence));
        let at = len - call.q_len + row % call.q_len;
        let window = call.options.window.unwrap_or(usize::MAX).min(kept.window.unwrap_or(usize::MAX));
        let sinks = call.options.sinks.max(kept.sinks);
        let g = h / (heads / kept.kv_heads);
        let q = &call.q[(row * heads + h) * kept.head_dim..][..kept.head_dim];
        let scale = call.options.scale.map_or(1.0 / (kept.head_dim as f64).sqrt(), f64::from);
        let (mut scores, mut values, mut error) = (Vec::new(), Vec::new(), 0.0f64);
        for key in 0..len {
            let in_window =
                if call.options.causal { key + window.min(len) > at } else { at.abs_diff(key) < window };
            let visible = (in_window || key < sinks) && (key <= at || !call.options.causal);
            let held = key >= start || key < kept.sinks;
            let mask_row = |of: usize| if of == rows { row } else { h * rows + row };
            let mask = call.mask.as_ref().map_or(0.0, |(of, x)| x[mask_row(*of) * (x.len() / of) + key]);
            let seen = call.seen.as_ref().is_none_or(|(of, x)| x[mask_row(*of) * (x.len() / of) + key]);
            let new = (key + call.q_len).checked_sub(len);
            let tree = call.tree.as_ref().is_none_or(|x| new.is_none_or(|new| x[row * call.q_len + new]));
            if !(visible && seen && tree && mask > f32::NEG_INFINITY) {
                continue;
            }
            assert!(held, "{what}: the oracle needs key {key} of sequence {sequence}, which was forgotten");
            let (mut k, mut v) =
                (vec![0.0; kept.kv_heads * kept.head_dim], vec![0.0; kept.kv_heads * kept.value_dim]);
            cache.token(sequence, key, &mut k, &mut v).unwrap();
            let terms = q.iter().zip(&k[g * kept.head_dim..]).map(|(q, k)| f64::from(*q) * f64::from(*k));
            let (dot, all) = terms.fold((0.0, 0.0), |(dot, all), x| (dot + x, all + x.abs()));
            let mut s = scale * dot;
            if let Some(cap) = call.options.softcap {
                s = f64::from(cap) * (s / f64::from(cap)).tanh();
            }
            let distance = at.abs_diff(key) as f64;
            let alibi = call.alibi.as_ref().map_or(0.0, |slopes| f64::from(slopes[h]) * distance);
            // Scores live in the exp2 domain, where each is rounded once more for each term, and where a
            // finite mask takes them no further than f32 reaches.
            let sum = s - alibi + f64::from(mask);
            if sum.abs() < LIMIT {
                let terms = scale * all + alibi + f64::from(mask.abs()) + 3.0;
                error = error.max((kept.head_dim as f64 + 8.0) * U * terms);
            }
            scores.push(sum.clamp(-LIMIT, LIMIT));
            values.push(v[g * kept.value_dim..][..kept.value_dim].to_vec());
        }
        let sink = call.sink_logits.as_ref().map(|logits| f64::from(logits[h]));
        let most = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().copied().chain(sink).map(|s| (s - most).exp()).sum();
        let lse = if sum > 0.0 { most + sum.ln() } else { f64::NEG_INFINITY };
        outs.1.assert_near((row, h), lse, 2.0 * error + 4.0 * U * lse.abs() + 1e-6, &format!("{what}, lse"));
        let column = random.below(kept.value_dim);
        let value = |p: &Vec<f32>| f64::from(p[column]);
        let out: f64 = scores.iter().zip(&values).map(|(s, v)| (s - most).exp() / sum * value(v)).sum();
        let greatest = values.iter().map(|v| value(v).abs()).fold(0.0, f64::max);
        let bound = greatest * (2.0 * error.exp_m1() + (scores.len() as f64 + 64.0) * U) + 1e-30;
        let out = if scores.is_empty() { 0.0 } else { out };
        outs.0.assert_near((row, h * kept.value_dim + column), out, bound, what);
    }
}
