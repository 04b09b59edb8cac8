//! Calls of attention with every option, and what the f64 oracle says of them.

use crate::support::Random;
use kvern::attention::{reference::*, *};
use kvern::{Context, MatMut, MatRef, Workspace};

/// One call: shapes, options, and everything that enters the scores, owned.
#[derive(Clone)]
pub struct Call {
    pub name: &'static str,
    pub heads: usize,
    pub kv_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    pub q_len: usize,
    pub kv_len: usize,
    pub options: AttentionOptions,
    pub alibi: Option<Vec<f32>>,
    pub mask: Option<(usize, Vec<f32>)>,
    pub seen: Option<(usize, Vec<bool>)>,
    pub tree: Option<Vec<bool>>,
    pub sinks: Option<Vec<f32>>,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

impl Call {
    pub fn new(name: &'static str, [heads, kv_heads, key_dim, value_dim, q_len, kv_len]: [usize; 6]) -> Call {
        let mut r = Random::new(name.bytes().map(u64::from).sum());
        let mut rows = |n: usize| -> Vec<f32> { r.vec(n).iter().map(|x| 2.0 * x).collect() };
        Call {
            name,
            heads,
            kv_heads,
            key_dim,
            value_dim,
            q_len,
            kv_len,
            options: AttentionOptions::new(heads),
            alibi: None,
            mask: None,
            seen: None,
            tree: None,
            sinks: None,
            q: rows(q_len * heads * key_dim),
            k: rows(kv_len * kv_heads * key_dim),
            v: rows(kv_len * kv_heads * value_dim),
        }
    }

    pub fn options(mut self, f: impl Fn(AttentionOptions) -> AttentionOptions) -> Call {
        self.options = f(self.options);
        self
    }

    pub fn alibi(mut self) -> Call {
        let mut slopes = vec![0.0; self.heads];
        alibi_slopes(&mut slopes);
        self.alibi = Some(slopes);
        self
    }

    /// An additive mask, each `every`th element -inf (0 for none).
    pub fn mask(mut self, per_head: bool, every: usize) -> Call {
        let rows = self.q_len * if per_head { self.heads } else { 1 };
        let mut mask = Random::new(3).vec(rows * self.kv_len);
        if every > 0 {
            mask.iter_mut().step_by(every).for_each(|x| *x = f32::NEG_INFINITY);
        }
        self.mask = Some((rows, mask));
        self
    }

    pub fn seen(mut self, per_head: bool, f: impl Fn(usize, usize) -> bool) -> Call {
        let rows = self.q_len * if per_head { self.heads } else { 1 };
        let n = self.kv_len;
        self.seen = Some((rows, (0..rows * n).map(|i| f(i / n, i % n)).collect()));
        self
    }

    /// A tree in which token i descends from `(i - 1) / 2`.
    pub fn tree(mut self) -> Call {
        let n = self.q_len;
        let mut tree = vec![false; n * n];
        for i in 0..n {
            let mut at = i;
            tree[i * n + at] = true;
            while at > 0 {
                at = (at - 1) / 2;
                tree[i * n + at] = true;
            }
        }
        self.tree = Some(tree);
        self
    }

    pub fn sink_logits(mut self) -> Call {
        self.sinks = Some(Random::new(8).vec(self.heads).iter().map(|x| 3.0 * x).collect());
        self
    }

    /// Every option at once.
    pub fn everything(self) -> Call {
        self.options(|o| o.softcap(20.0).window(290).sinks(5).scale(0.2))
            .alibi()
            .mask(true, 11)
            .seen(false, |i, key| !(i * 5 + key).is_multiple_of(7))
            .tree()
            .sink_logits()
    }

    pub fn bias(&self) -> Bias<'_> {
        let mut bias = Bias::default();
        bias.alibi = self.alibi.as_deref();
        bias.mask = self.mask.as_ref().map(|(rows, m)| MatRef::dense(m, *rows, self.kv_len).unwrap());
        bias.seen = self.seen.as_ref().map(|(rows, m)| MatRef::dense(m, *rows, self.kv_len).unwrap());
        bias.tree = self.tree.as_ref().map(|m| MatRef::dense(m, self.q_len, self.q_len).unwrap());
        bias.sink_logits = self.sinks.as_deref();
        bias
    }

    pub fn plain(&self) -> Plain<'_> {
        let k = MatRef::dense(&self.k, self.kv_len, self.kv_heads * self.key_dim).unwrap();
        let v = MatRef::dense(&self.v, self.kv_len, self.kv_heads * self.value_dim).unwrap();
        Plain::new(k, v, self.kv_heads).unwrap()
    }

    pub fn queries(&self) -> MatRef<'_> {
        MatRef::dense(&self.q, self.q_len, self.heads * self.key_dim).unwrap()
    }

    /// Output and log-sum-exp over plain rows, in a workspace of `bytes`, or of what the query says.
    pub fn run(&self, ctx: &Context, bytes: Option<usize>) -> (Vec<f32>, Vec<f32>) {
        let (plain, rows) = (self.plain(), self.q_len);
        let need = plain_workspace_bytes(ctx, &self.options, &plain, rows).unwrap();
        let mut ws = Workspace::new(bytes.unwrap_or(need)).unwrap();
        let width = self.heads * self.value_dim;
        let (mut out, mut lse) = (vec![f32::NAN; rows * width], vec![f32::NAN; rows * self.heads]);
        let outputs = Outputs::new(MatMut::dense(&mut out, rows, width).unwrap())
            .lse(MatMut::dense(&mut lse, rows, self.heads).unwrap());
        attend_plain(ctx, &mut ws, &self.options, &self.bias(), self.queries(), &plain, outputs).unwrap();
        (out, lse)
    }

    /// A cache of its keys and values.
    pub fn cache(&self, kind: KvType) -> KvCache {
        let options = KvCacheOptions::new(self.kv_heads, self.key_dim, self.kv_len)
            .value_dim(self.value_dim)
            .types(kind, kind);
        let mut cache = KvCache::new(options).unwrap();
        let k = MatRef::dense(&self.k, self.kv_len, self.kv_heads * self.key_dim).unwrap();
        let v = MatRef::dense(&self.v, self.kv_len, self.kv_heads * self.value_dim).unwrap();
        cache.append(k, v).unwrap();
        cache
    }

    /// The same through a cache, where one can hold the tokens.
    pub fn run_cached(&self, ctx: &Context) -> Option<(Vec<f32>, Vec<f32>)> {
        let dim = self.key_dim;
        if dim != self.value_dim || !dim.is_multiple_of(8) || self.q_len > self.kv_len {
            return None;
        }
        let (cache, rows) = (self.cache(KvType::F32), self.q_len);
        let mut ws = Workspace::new(workspace_bytes(ctx, &self.options, &cache, rows).unwrap()).unwrap();
        let (mut out, mut lse) = (vec![f32::NAN; self.q.len()], vec![f32::NAN; rows * self.heads]);
        let outputs = Outputs::new(MatMut::dense(&mut out, rows, self.heads * dim).unwrap())
            .lse(MatMut::dense(&mut lse, rows, self.heads).unwrap());
        attend_with(ctx, &mut ws, &self.options, &self.bias(), self.queries(), &cache, outputs).unwrap();
        Some((out, lse))
    }

    /// Term that query i and head h add to the score of a key; `None` for a key that is masked.
    pub fn added(&self, i: usize, h: usize, key: usize) -> Option<f64> {
        let first = self.kv_len.saturating_sub(self.q_len);
        let at = first + i;
        let window = self.options.window.unwrap_or(usize::MAX);
        // Causality bounds everything; a window leaves the pinned tokens, on both of its sides.
        let reached = !self.options.causal || key <= at;
        let ahead = self.options.causal || key < at.saturating_add(window);
        let near = key.saturating_add(window) > at && ahead || key < self.options.sinks;
        let row = |rows: usize| if rows == self.q_len { i } else { h * self.q_len + i };
        let allowed = self.seen.as_ref().is_none_or(|(rows, m)| m[row(*rows) * self.kv_len + key]);
        let branch = self.tree.as_ref().is_none_or(|t| key < first || t[i * self.q_len + key - first]);
        let mask = self.mask.as_ref().map_or(0.0, |(rows, m)| m[row(*rows) * self.kv_len + key]);
        let slope = self.alibi.as_ref().map_or(0.0, |slopes| f64::from(slopes[h]));
        let seen = reached && near && allowed && branch && mask != f32::NEG_INFINITY;
        seen.then(|| f64::from(mask) - slope * at.abs_diff(key) as f64)
    }

    pub fn oracle(&self, i: usize, h: usize) -> (Vec<f64>, f64) {
        self.oracle_limited(i, h, f64::NEG_INFINITY)
    }

    /// [`Call::oracle`] where what is added to the score of a key that is seen counts as at least `lowest`.
    pub fn oracle_limited(&self, i: usize, h: usize, lowest: f64) -> (Vec<f64>, f64) {
        let start = (i * self.heads + h) * self.key_dim;
        let row = Row {
            q: &self.q[start..start + self.key_dim],
            kv_head: h / (self.heads / self.kv_heads),
            value_dim: self.value_dim,
            scale: self.options.scale.map_or(1.0 / (self.key_dim as f64).sqrt(), f64::from),
            softcap: self.options.softcap.map(f64::from),
            bias: &|key| self.added(i, h, key).map(|added| added.max(lowest)),
            sink: self.sinks.as_ref().map(|s| f64::from(s[h])),
        };
        let k = MatRef::dense(&self.k, self.kv_len, self.kv_heads * self.key_dim).unwrap();
        let v = MatRef::dense(&self.v, self.kv_len, self.kv_heads * self.value_dim).unwrap();
        attend_row(&row, k, v)
    }

    /// Query i on its own, over the keys up to its position where the call is causal.
    pub fn alone(&self, i: usize) -> Call {
        let mut one = self.clone();
        let first = self.kv_len.saturating_sub(self.q_len);
        let keys = if self.options.causal { first + i + 1 } else { self.kv_len };
        (one.q_len, one.kv_len) = (1, keys);
        one.q = self.q[i * self.heads * self.key_dim..][..self.heads * self.key_dim].to_vec();
        one.k.truncate(keys * self.kv_heads * self.key_dim);
        one.v.truncate(keys * self.kv_heads * self.value_dim);
        let rows = |rows: usize| -> Vec<usize> {
            if rows == self.q_len { vec![i] } else { (0..self.heads).map(|h| h * self.q_len + i).collect() }
        };
        let n = self.kv_len;
        one.mask = self.mask.as_ref().map(|(all, m)| {
            let part = rows(*all).into_iter().flat_map(|row| m[row * n..row * n + keys].to_vec());
            (rows(*all).len(), part.collect())
        });
        one.seen = self.seen.as_ref().map(|(all, m)| {
            let part = rows(*all).into_iter().flat_map(|row| m[row * n..row * n + keys].to_vec());
            (rows(*all).len(), part.collect())
        });
        // A tree of one token says nothing of the others: its row becomes a mask of keys.
        one.tree = None;
        if let Some(tree) = &self.tree {
            let seen = |key: usize| one.seen.as_ref().is_none_or(|(_, row)| row[key]);
            let row = (0..keys).map(|key| seen(key) && (key < first || tree[i * self.q_len + key - first]));
            one.seen = Some((1, row.collect()));
        }
        one
    }
}

pub fn calls() -> Vec<Call> {
    let wild = |row: usize, key: usize| !(row * 7 + key * 13 + row * key).is_multiple_of(3);
    vec![
        Call::new("softcap", [4, 2, 32, 32, 9, 300]).options(|o| o.softcap(1.5).scale(0.4)),
        Call::new("high softcap", [2, 2, 16, 16, 3, 40]).options(|o| o.softcap(50.0)),
        Call::new("alibi", [8, 8, 24, 24, 20, 530]).alibi(),
        Call::new("alibi both ways", [6, 3, 16, 16, 30, 270]).alibi().options(|o| o.causal(false)),
        Call::new("mask", [4, 2, 16, 16, 33, 300]).mask(false, 5),
        Call::new("mask of each head", [4, 2, 16, 16, 10, 290]).mask(true, 0).options(|o| o.causal(false)),
        Call::new("seen", [4, 1, 8, 8, 37, 600]).seen(false, wild),
        Call::new("seen of each head", [2, 2, 8, 8, 5, 300]).seen(true, wild).options(|o| o.causal(false)),
        Call::new("chunks unseen", [2, 1, 8, 8, 13, 1100])
            .seen(false, |i, key| key / 256 % 2 == i % 2 && !(key < 512 && i == 4)),
        Call::new("rows unseen", [3, 1, 8, 8, 9, 280]).seen(false, |i, _| i % 3 != 1).sink_logits(),
        Call::new("nothing seen", [3, 1, 8, 8, 9, 280]).seen(false, |i, _| i % 2 == 0),
        Call::new("tree", [6, 2, 16, 16, 7, 260]).tree(),
        Call::new("wide tree", [2, 2, 8, 8, 40, 300]).tree(),
        Call::new("window", [4, 2, 16, 16, 60, 700]).options(|o| o.window(100)),
        Call::new("window both ways", [4, 2, 16, 16, 300, 700]).options(|o| o.window(40).causal(false)),
        Call::new("pinned", [3, 1, 16, 16, 300, 900]).options(|o| o.window(50).sinks(4)),
        Call::new("many pinned", [2, 1, 8, 8, 130, 800]).options(|o| o.window(20).sinks(300)),
        Call::new("pinned both ways", [2, 1, 8, 8, 90, 800]).options(|o| o.window(9).sinks(3).causal(false)),
        Call::new("pinned ahead", [2, 1, 8, 8, 700, 700]).options(|o| o.window(9).sinks(300).causal(false)),
        Call::new("sink logits", [6, 2, 16, 16, 5, 300]).sink_logits(),
        Call::new("two sizes", [6, 2, 40, 24, 50, 530]),
        Call::new("odd sizes", [2, 1, 5, 3, 6, 280]),
        Call::new("cross", [4, 4, 16, 32, 20, 7]).options(|o| o.causal(false)),
        Call::new("long decode", [4, 1, 64, 64, 1, 3000]),
        Call::new("long drafts", [8, 2, 16, 16, 5, 2900]).tree().alibi(),
        Call::new("all", [6, 2, 40, 24, 31, 600]).everything(),
    ]
}
