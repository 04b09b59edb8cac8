//! From projections to the cache in one call: norms of queries and keys, rotation, and the append.

use super::cache::{KvCache, KvCacheOptions, at_most};
use crate::context::Context;
use crate::error::{Error, Result, equal};
use crate::fp_mode;
use crate::kernels::{KernelSet, Norm, NormKind};
use crate::ops::{self, RopePairs, RopeTable};
use crate::view::{MatMut, MatRef};

/// What happens to each head of queries and keys before attention: an RMS norm, then a rotation. Both are
/// absent by default. In a latent cache the norm is of the latent, the first value_dim elements, and the
/// rotation of the elements behind it.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Preparation<'a> {
    /// Gains of the norm of each query head (Qwen 3, Gemma 3), and its epsilon.
    pub q_norm: Option<(&'a [f32], f32)>, // (head_dim), or (value_dim) of a latent
    /// Gains of the norm of each key head (of the latent: DeepSeek), and its epsilon.
    pub k_norm: Option<(&'a [f32], f32)>, // (head_dim), or (value_dim) of a latent
    /// Table and pairing of the rotation.
    pub rope: Option<(&'a RopeTable, RopePairs)>,
    /// Positions of the rotation, one for each token; without them tokens stand where the cache puts them.
    pub positions: Option<&'a [usize]>, // (tokens)
}

impl<'a> Preparation<'a> {
    /// Sets the norms of query and key heads.
    pub fn norms(mut self, q_gain: &'a [f32], k_gain: &'a [f32], eps: f32) -> Preparation<'a> {
        (self.q_norm, self.k_norm) = (Some((q_gain, eps)), Some((k_gain, eps)));
        self
    }

    /// Sets the rotation.
    pub fn rope(mut self, table: &'a RopeTable, pairs: RopePairs) -> Preparation<'a> {
        self.rope = Some((table, pairs));
        self
    }

    /// Sets the positions of the rotation: tokens of a tree of drafts share some.
    pub fn positions(mut self, positions: &'a [usize]) -> Preparation<'a> {
        self.positions = Some(positions);
        self
    }

    fn check(&self, head: &Head, first: usize, tokens: usize, cols: usize) -> Result<()> {
        let norms = [("q_norm.len", self.q_norm), ("k_norm.len", self.k_norm)];
        for (what, gain) in norms.iter().filter_map(|(what, norm)| norm.map(|(gain, _)| (*what, gain))) {
            let relation = match head.latent() {
                true => "must equal value_dim =",
                false => "must equal head_dim =",
            };
            equal(what, gain.len(), relation, head.normed)?;
        }
        if let Some(positions) = self.positions {
            equal("positions.len", positions.len(), "must equal k.rows =", tokens)?;
        }
        let Some((table, _)) = self.rope else { return Ok(()) };
        ops::check_rope(table, head.dim, cols)?;
        if head.latent() {
            let relation = "must be at most head_dim - value_dim =";
            at_most("rotary_dim", table.rotary_dim(), relation, head.dim - head.rotated_from)?;
        }
        match self.positions {
            Some(positions) => positions.iter().try_for_each(|&p| table.check("positions", p)),
            None if tokens > 0 => {
                table.check("positions", first + tokens - 1)?;
                table.check("positions", first)
            }
            None => Ok(()),
        }
    }

    /// The heads of token `i`, at position `first + i` of the sequence, in place.
    fn row(
        &self,
        kernels: &KernelSet,
        norm: Option<(&[f32], f32)>,
        parts: &Head,
        (first, i): (usize, usize),
        row: &mut [f32],
    ) {
        for head in row.chunks_exact_mut(parts.dim) {
            if let Some((gain, eps)) = norm {
                let norm = Norm { kind: NormKind::Rms, eps, gain: Some(gain), bias: None };
                kernels.norm(&norm, None, &mut head[..parts.normed]);
            }
            if let Some((table, pairs)) = self.rope {
                let (cos, sin) = table.angles(self.positions.map_or(first + i, |positions| positions[i]));
                let rotated = &mut head[parts.rotated_from..][..table.rotary_dim()];
                kernels.rope(pairs.kernel(), rotated, cos, sin);
            }
        }
    }
}

/// The parts of a head of queries and keys.
struct Head {
    dim: usize,
    /// Its first elements, which the norm is of.
    normed: usize,
    /// The element from which on it is rotated.
    rotated_from: usize,
}

impl Head {
    fn of(options: &KvCacheOptions) -> Head {
        let dim = options.head_dim;
        let normed = if options.latent { options.value_dim } else { dim };
        Head { dim, normed, rotated_from: options.rotated_from() }
    }

    fn latent(&self) -> bool {
        self.rotated_from > 0
    }
}

impl KvCache {
    /// Prepares queries and keys in place, and appends keys and values to a sequence.
    ///
    /// - **Formula**: for each head `x = rope(rms_norm(x))`, each part where [`Preparation`] has it, in a
    ///   latent cache of a head `[latent, rotated part]` as `[rms_norm(latent), rope(rotated part)]`; then
    ///   [`KvCache::append_to`].
    /// - **Shapes**: `q`: (tokens, heads * head_dim), or (0, 0) for none; `k`, `v`: as for the append.
    /// - **Numerics**: the bits of the norm, the rotation and the append on their own.
    /// - **Errors**: as [`KvCache::append_to`]; `Shape` for gains, positions or a table that do not fit;
    ///   nothing is changed then.
    /// - **Cost**: one pass over queries and keys; allocates nothing.
    pub fn append_prepared(
        &mut self,
        ctx: &Context,
        sequence: usize,
        preparation: &Preparation<'_>,
        q: MatMut<'_>,
        mut k: MatMut<'_>,
        v: MatRef<'_>,
    ) -> Result<()> {
        let _mode = fp_mode::default_mode();
        let append = self.check_append(sequence, (k.rows(), k.cols()), v)?;
        let head = Head::of(self.options());
        let (dim, first, tokens) = (head.dim, append.positions.start, k.rows());
        preparation.check(&head, first, tokens, k.cols())?;
        if q.cols() > 0 {
            equal("q.rows", q.rows(), "must equal k.rows =", tokens)?;
            if !q.cols().is_multiple_of(dim) {
                let relation = "must be a multiple of head_dim =";
                return Err(Error::Shape { what: "q.cols", got: q.cols(), relation, want: dim });
            }
        }
        let kernels = ctx.kernels();
        for (norm, x) in [(preparation.q_norm, q), (preparation.k_norm, k.reborrow())] {
            ops::for_each_row(ctx, x, &|i, row| {
                preparation.row(kernels, norm, &head, (first, i), row);
            });
        }
        self.commit(append, |cache, run| {
            for position in run {
                // Row by row: what lies between the rows of a mutable view may be another's.
                let (k, v) = (k.row(position - first), v.row(position - first).unwrap_or_default());
                let rows = MatRef::dense(k, 1, k.len()).and_then(|k| Ok((k, MatRef::dense(v, 1, v.len())?)));
                debug_assert!(rows.is_ok(), "a row of its own length");
                if let Ok(rows) = rows {
                    cache.put(sequence, position, rows, 0..1);
                }
            }
        });
        Ok(())
    }
}
