//! Attention as in Gemma 2, 3, 3n and 4: windows in most layers, whose rotation has a base of its own; norms
//! of heads; layers that attend to the keys and values of a layer before them.

use crate::attention::{attend, cache};
use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rope::RopeConfig;
use crate::rows::Rows;
use kvern::MatRef;
use kvern::attention::{AttentionOptions, Bias, KvCache, Preparation};
use kvern::ops::{self, NormKind, NormOptions, RopePairs, RopeTable};

/// The attention of one layer.
pub(super) struct Design {
    /// Query heads, key-value heads, elements of a head.
    pub heads: (usize, usize, usize),
    /// Biases of all products.
    pub bias: bool,
    /// RMS norms of the heads of queries and keys, whose gains are this number plus the weight.
    pub head_norms: Option<f32>,
    /// An RMS norm without gain of the heads of values.
    pub value_norm: bool,
    /// Values are the keys before norm and rotation.
    pub values_are_keys: bool,
    /// Factor of the scores.
    pub scale: f32,
    /// Soft cap of the scores.
    pub softcap: Option<f32>,
    /// Whether the layer is of those with a window, which have a rotation of their own.
    pub slides: bool,
    /// Tokens that a query sees.
    pub window: Option<usize>,
    /// The layer before this one, by number, whose keys and values serve here.
    pub source: Option<usize>,
}

/// Keys and values of each layer; `None` for one that attends to those of another.
pub(super) type Caches = Vec<Option<KvCache>>;

/// What the layers of a model share: keys and values, and the rotations.
pub(super) struct Memory {
    caches: Caches,
    sliding: RopeTable,
    full: RopeTable,
}

impl Memory {
    /// The caches of all layers, with rotations for layers with a window and for those without, whose heads
    /// have these sizes.
    ///
    /// **Errors**: as [`RopeConfig::table`].
    pub fn load(root: &Loader<'_>, caches: Caches, sliding_dim: usize, full_dim: usize) -> Result<Memory> {
        let (config, tokens) = (root.checkpoint().config(), root.options().tokens);
        let table = |kind, dim| RopeConfig::read(config, Some(kind))?.table(dim, tokens);
        let (sliding, full) = (table("sliding_attention", sliding_dim)?, table("full_attention", full_dim)?);
        Ok(Memory { caches, sliding, full })
    }

    /// Tokens of the sequence.
    pub fn len(&self) -> usize {
        self.caches.iter().flatten().next().map_or(0, KvCache::len)
    }

    /// Empties the caches.
    pub fn clear(&mut self) {
        self.caches.iter_mut().flatten().for_each(KvCache::clear);
    }
}

/// The parts of a layer's attention.
pub(super) struct Attention {
    q: Linear,
    q_norm: Option<Vec<f32>>, // (head_dim)
    /// `None` where keys and values are another layer's.
    own: Option<KeysValues>,
    output: Linear,
    options: AttentionOptions,
    slides: bool,
    eps: f32,
    /// The layer whose cache is attended to.
    cache: usize,
}

struct KeysValues {
    k: Linear,
    k_norm: Option<Vec<f32>>, // (head_dim)
    v: Option<Linear>,        // `None` for the keys
    value_norm: bool,
}

impl Attention {
    /// Loads the attention of the next layer, and adds its cache to `caches`.
    ///
    /// **Errors**: as [`Loader::linear`] and [`cache`]; `Config` for a source that has no keys and values.
    pub fn load(
        at: &Loader<'_>,
        n: usize,
        eps: f32,
        design: &Design,
        caches: &mut Caches,
    ) -> Result<Attention> {
        let (heads, kv_heads, head_dim) = design.heads;
        let (q, kv) = (heads.saturating_mul(head_dim), kv_heads.saturating_mul(head_dim));
        let map = |name, outputs| at.linear(name, (outputs, n), design.bias);
        let norm = |name| design.head_norms.map(|offset| gain(at, name, head_dim, offset)).transpose();
        let mut options = AttentionOptions::new(heads).scale(design.scale);
        (options.softcap, options.window) = (design.softcap, design.window);
        let has_cache = |&source: &usize| matches!(caches.get(source), Some(Some(_)));
        let (own, cache) = match design.source {
            Some(source) if has_cache(&source) => {
                caches.push(None);
                (None, source)
            }
            Some(source) => {
                let allowed = "one with keys and values of its own";
                return Err(Error::field("layer that shares its keys", source, allowed));
            }
            None => {
                let v = (!design.values_are_keys).then(|| map("v_proj", kv)).transpose()?;
                let (k, k_norm) = (map("k_proj", kv)?, norm("k_norm")?);
                caches.push(Some(cache(at.ctx(), kv_heads, head_dim, at.options().tokens)?));
                (Some(KeysValues { k, k_norm, v, value_norm: design.value_norm }), caches.len() - 1)
            }
        };
        let output = at.linear("o_proj", (n, q), design.bias)?;
        let (q, q_norm, slides) = (map("q_proj", q)?, norm("q_norm")?, design.slides);
        Ok(Attention { q, q_norm, own, output, options, slides, eps, cache })
    }

    /// `W_o attention(q, K, V)` of the rows `h`, after their keys and values have been appended.
    ///
    /// **Errors**: those of the calls; `Config` for a memory that is not the one of loading.
    pub fn apply(&self, rt: &mut Runtime, memory: &mut Memory, h: &Rows) -> Result<Rows> {
        let rope = if self.slides { &memory.sliding } else { &memory.full };
        let Some(cache) = memory.caches.get_mut(self.cache).and_then(Option::as_mut) else {
            return Err(Error::field("layer of keys", self.cache, "one with a cache"));
        };
        let q = match &self.own {
            Some(own) => own.append(rt, self, rope, cache, h)?,
            None => self.prepared_queries(rt, rope, cache, h)?,
        };
        let attended = attend(rt, &self.options, &Bias::default(), q.view()?, cache)?;
        self.output.apply(rt, attended.view()?)
    }

    /// Queries for a cache that has the tokens of `h` already, normed and turned.
    fn prepared_queries(
        &self,
        rt: &mut Runtime,
        rope: &RopeTable,
        cache: &KvCache,
        h: &Rows,
    ) -> Result<Rows> {
        let mut q = self.q.apply(rt, h.view()?)?;
        if let Some(gain) = &self.q_norm {
            q = norm_heads(rt, q.view()?, self.options.heads, Some(gain), self.eps)?;
        }
        let (first, head_dim) = (cache.len().saturating_sub(h.rows()), cache.options().head_dim);
        ops::rope(&rt.ctx, rope, RopePairs::Halves, head_dim, first, q.view_mut()?)?;
        Ok(q)
    }
}

impl KeysValues {
    /// Appends keys and values of the rows `h`, and gives their queries.
    fn append(
        &self,
        rt: &mut Runtime,
        layer: &Attention,
        rope: &RopeTable,
        cache: &mut KvCache,
        h: &Rows,
    ) -> Result<Rows> {
        let (mut q, mut k, v) = match &self.v {
            Some(v) => {
                let [q, k, v] = Linear::apply_each(rt, h.view()?, [&layer.q, &self.k, v])?;
                (q, k, v)
            }
            None => {
                let [q, k] = Linear::apply_each(rt, h.view()?, [&layer.q, &self.k])?;
                let v = k.clone();
                (q, k, v)
            }
        };
        let heads = cache.options().kv_heads;
        let v = if self.value_norm { norm_heads(rt, v.view()?, heads, None, layer.eps)? } else { v };
        let mut preparation = Preparation::default().rope(rope, RopePairs::Halves);
        if let (Some(q_gain), Some(k_gain)) = (&layer.q_norm, &self.k_norm) {
            preparation = preparation.norms(q_gain, k_gain, layer.eps);
        }
        cache.append_prepared(&rt.ctx, 0, &preparation, q.view_mut()?, k.view_mut()?, v.view()?)?;
        Ok(q)
    }
}

/// An RMS norm of each head.
fn norm_heads(rt: &Runtime, x: MatRef<'_>, heads: usize, gain: Option<&[f32]>, eps: f32) -> Result<Rows> {
    let mut options = NormOptions::new(NormKind::Rms, eps).groups(heads);
    if let Some(gain) = gain {
        options = options.gain(gain);
    }
    let mut y = Rows::zeros(x.rows(), x.cols());
    ops::norm(&rt.ctx, &options, x, y.view_mut()?)?;
    Ok(y)
}

/// The gain of a norm: `offset + name.weight`, (n).
///
/// **Errors**: as [`Loader::gain`].
pub(super) fn gain(at: &Loader<'_>, name: &str, n: usize, offset: f32) -> Result<Vec<f32>> {
    Ok(at.gain(name, n)?.iter().map(|weight| offset + weight).collect())
}

/// The layer whose keys and values serve in `layer`: the last layer before `first` of the same kind, where
/// layers from `first` on have none of their own.
///
/// **Errors**: `Config` where there is no such layer.
pub(super) fn source(layer: usize, first: usize, slides: impl Fn(usize) -> bool) -> Result<Option<usize>> {
    if layer < first {
        return Ok(None);
    }
    let found = (0..first).rev().find(|&other| slides(other) == slides(layer));
    let none = || Error::field("num_kv_shared_layers: layer", layer, "of a kind that layers before have");
    found.map(Some).ok_or_else(none)
}

/// `1 / sqrt(x)`: a factor of scores or of a norm.
pub(super) fn inverse_root(x: f64) -> f32 {
    (1.0 / x.sqrt()) as f32
}
