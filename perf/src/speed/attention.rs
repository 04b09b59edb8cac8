//! `speed attention`: decode and prefill over the caches of a layer, against the binding ceiling.

use super::inputs::values;
use super::{Limits, Options, Row, Table, start};
use crate::timing::{Candidate, interleave};
use anyhow::Result;
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, KvType, attend, workspace_bytes};
use kvern::{Context, MatMut, MatRef, Precision, Workspace};

/// Head size, query heads, key-value heads of every case: a layer of an 8B model.
const DIM: usize = 128;
const HEADS: usize = 32;
const KV_HEADS: usize = 8;

/// Together the caches of a decoding case are at least this large, so that each call reads its keys and
/// values from memory, as the layers of a model do.
const MEMORY_BYTES: usize = 96 << 20;

/// One line of the table, for each type of cache.
struct Case {
    name: &'static str,
    queries: usize,
    keys: usize,
    window: Option<usize>,
}

const CASES: [Case; 8] = [
    Case { name: "decode D128 32/8 1024", queries: 1, keys: 1024, window: None },
    Case { name: "decode D128 32/8 8192", queries: 1, keys: 8192, window: None },
    Case { name: "decode D128 32/8 32768", queries: 1, keys: 32768, window: None },
    Case { name: "decode D128 32/8 512", queries: 1, keys: 512, window: None },
    Case { name: "decode D128 32/8 8192 window 512", queries: 1, keys: 8192, window: Some(512) },
    Case { name: "prefill D128 32/8 512", queries: 512, keys: 512, window: None },
    Case { name: "prefill D128 32/8 2048", queries: 2048, keys: 2048, window: None },
    Case { name: "prefill D128 32/8 512 on 4096", queries: 512, keys: 4096, window: None },
];

/// A case over one type of cache.
struct Caches<'a> {
    case: &'a Case,
    stored: KvType,
}

impl Case {
    /// (query, key) pairs that the mask leaves, of one query head.
    fn pairs(&self) -> usize {
        let first = self.keys - self.queries;
        (0..self.queries).map(|i| (first + i + 1).min(self.window.unwrap_or(usize::MAX))).sum()
    }

    fn caches(&self, stored: KvType) -> Result<Vec<KvCache>> {
        let options = KvCacheOptions::new(KV_HEADS, DIM, self.keys);
        let options = self.window.map_or(options, |w| options.window(w)).types(stored, stored);
        let first = self.filled(options)?;
        let copies = if self.queries == 1 { MEMORY_BYTES.div_ceil(self.bytes(&first)).min(64) } else { 1 };
        // Not clones: pages that are written once are pages of their own, in huge ones where there are any.
        let mut caches = vec![first];
        while caches.len() < copies {
            caches.push(self.filled(options)?);
        }
        Ok(caches)
    }

    fn filled(&self, options: KvCacheOptions) -> Result<KvCache> {
        const STEP: usize = 256;
        let mut cache = KvCache::new(options)?;
        let rows = values((STEP + 8) * KV_HEADS * DIM, 3);
        for start in (0..self.keys).step_by(STEP) {
            let tokens = STEP.min(self.keys - start);
            let part = |shift: usize| {
                MatRef::dense(&rows[shift * KV_HEADS * DIM..], tokens, KV_HEADS * DIM)
                    .map_err(anyhow::Error::from)
            };
            cache.append(part(start / STEP % 8)?, part(start / STEP % 5)?)?;
        }
        Ok(cache)
    }

    /// Bytes of keys and values that one call has to read.
    fn bytes(&self, cache: &KvCache) -> usize {
        let slots = cache.options().capacity.next_multiple_of(256);
        let seen = self.window.map_or(self.keys, |w| (self.queries + w).min(self.keys));
        cache.bytes() / slots * seen
    }
}

/// Times every case that the options ask for.
pub fn run(options: &Options) -> Result<()> {
    let (ctx, limits, table) = start(options)?;
    for case in &CASES {
        for stored in KvType::ALL {
            let caches = Caches { case, stored };
            for (precision, path) in [(Precision::Exact, ""), (Precision::Fast, " fast")] {
                // Decoding waits for memory, whatever the arithmetic.
                if precision == Precision::Fast && (case.queries == 1 || limits.peaks.bf16 == 0.0) {
                    continue;
                }
                let name = format!("{} {}{path}", case.name, stored.name());
                if options.wants(&name) {
                    one(options, &ctx, &limits, &table, &caches, precision, name)?;
                }
            }
        }
    }
    Ok(())
}

fn one(
    options: &Options,
    ctx: &Context,
    limits: &Limits,
    table: &Table,
    Caches { case, stored }: &Caches<'_>,
    precision: Precision,
    name: String,
) -> Result<()> {
    let caches = case.caches(*stored)?;
    let attention = AttentionOptions::new(HEADS).precision(precision);
    let width = HEADS * DIM;
    let q = values(case.queries * width, 1);
    let q = MatRef::dense(&q, case.queries, width)?;
    let mut out = vec![0f32; case.queries * width];
    let mut ws = Workspace::new(workspace_bytes(ctx, &attention, &caches[0], case.queries)?)?;
    let mut turn = 0;
    let call: Candidate<'_> = Box::new(|| {
        turn += 1;
        let out = MatMut::dense(&mut out, case.queries, width).expect("shape");
        attend(ctx, &mut ws, &attention, q, &caches[turn % caches.len()], out).expect("valid call");
    });
    let seconds = interleave(&mut [call], options.budget())[0].median();
    let operations = (4 * DIM * HEADS * case.pairs()) as f64;
    let bytes = if case.queries == 1 { case.bytes(&caches[0]) as f64 } else { 0.0 };
    let peak = if precision == Precision::Fast { limits.peaks.bf16 } else { limits.peaks.f32 };
    let floor = limits.floor(operations, bytes, peak);
    let kernel = ctx.kernel_names()[0].1.to_owned();
    table.row(&Row { case: name, kernel, seconds, operations, bytes, best_peer: None }, floor);
    Ok(())
}
