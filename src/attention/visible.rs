//! Which keys a query sees by its position: causality, the sliding window, pinned first tokens.

use super::key_values::Extent;
use super::options::{AttentionOptions, CHUNK};
use crate::error::{Error, Result, text};
use std::ops::Range;

/// The rule of one call. Positions are absolute, query `i` stands at `first + i`.
#[derive(Clone, Copy)]
pub(super) struct Visible {
    /// Absolute position of query 0.
    pub first: usize,
    /// Keys that there are: positions `0..len`.
    pub len: usize,
    /// Keys from a query's own position back, itself included; bidirectional: also as many ahead.
    pub window: usize,
    /// First tokens that are seen whatever the window.
    pub sinks: usize,
    pub causal: bool,
}

/// The keys of one chunk that one query sees, counted from the chunk's start: `keys` without `hole`.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub keys: Range<usize>,
    /// Between pinned tokens and the window; empty for most.
    pub hole: Range<usize>,
}

impl Visible {
    /// The rule of a call with `q_len` queries, the last tokens of a sequence; `tree`: whether a tree mask
    /// covers the query tokens.
    pub fn new(options: &AttentionOptions, extent: &Extent, q_len: usize, tree: bool) -> Result<Visible> {
        let &Extent { len, start, cached, .. } = extent;
        // Queries of another sequence, as in cross-attention, have no place among the keys.
        let ordered = options.causal || options.window.is_some() || tree;
        if q_len > len && ordered {
            let relation = match cached {
                true => "must be at most the cache's len =",
                false => "must be at most k.rows =",
            };
            return Err(Error::Shape { what: "q.rows", got: q_len, relation, want: len });
        }
        if options.window == Some(0) {
            return Err(Error::Option { what: "window", got: text(0), allowed: "at least 1 token" });
        }
        if extent.window.is_some() && !options.causal {
            let (got, allowed) = (text("false"), "true for a cache with a window");
            return Err(Error::Option { what: "causal", got, allowed });
        }
        let first = len.saturating_sub(q_len);
        let [own, cache] = [options.window, extent.window].map(|window| window.unwrap_or(usize::MAX));
        let window = own.min(cache);
        // The first query's window must not have been overwritten by the last one's key.
        if q_len > 0 && (first + 1).saturating_sub(window) < start {
            let want = (len + 1).saturating_sub(start).saturating_sub(window);
            let relation = "must be at most the cache's len - start - window + 1 =";
            return Err(Error::Shape { what: "q.rows", got: q_len, relation, want });
        }
        if options.sinks > extent.sinks && start > 0 {
            let (got, want) = (options.sinks, extent.sinks);
            let relation = "must be at most the sinks that the cache was made with =";
            return Err(Error::Shape { what: "sinks", got, relation, want });
        }
        let sinks = options.sinks.max(extent.sinks);
        Ok(Visible { first, len, window, sinks, causal: options.causal })
    }

    /// Keys that query `i` sees through the window.
    fn span(&self, i: usize) -> Range<usize> {
        let at = self.first + i;
        let ahead = if self.causal { 1 } else { self.window };
        (at + 1).saturating_sub(self.window)..at.saturating_add(ahead).min(self.len)
    }

    /// Pinned keys that query `i` sees: causality narrows them, the window does not.
    fn pinned(&self, i: usize) -> usize {
        let end = if self.causal { self.span(i).end } else { self.len };
        self.sinks.min(end)
    }

    /// Keys of a chunk that query `i` sees.
    pub fn in_chunk(&self, i: usize, chunk: usize) -> Seen {
        let near = within_chunk(self.span(i), chunk);
        let pinned = within_chunk(0..self.pinned(i), chunk);
        join(pinned, near)
    }

    /// Keys of a chunk that some of `queries` see, holes included.
    pub fn hull(&self, queries: &Range<usize>, chunk: usize) -> Range<usize> {
        let last = queries.end.saturating_sub(1);
        // Both ends of a span grow with the query.
        let near = within_chunk(self.span(queries.start).start..self.span(last).end, chunk);
        join(within_chunk(0..self.pinned(last), chunk), near).keys
    }

    /// Chunks that some of `queries` see, ascending.
    pub fn chunks(&self, queries: &Range<usize>) -> Chunks {
        let last = queries.end.saturating_sub(1);
        let pinned = self.pinned(last).div_ceil(CHUNK);
        // Without causality pinned keys may lie behind the window.
        let near = self.span(queries.start).start / CHUNK..self.span(last).end.div_ceil(CHUNK).max(pinned);
        Chunks { pinned: pinned.min(near.start), near }
    }
}

/// Indices of chunks: those of pinned tokens, then those of the window.
#[derive(Clone)]
pub(super) struct Chunks {
    pinned: usize,
    near: Range<usize>,
}

impl Chunks {
    pub fn len(&self) -> usize {
        self.pinned + self.near.len()
    }

    /// The `n`th chunk.
    pub fn index(&self, n: usize) -> usize {
        if n < self.pinned { n } else { self.near.start + n - self.pinned }
    }
}

/// `keys` counted from the start of a chunk, clipped to it.
fn within_chunk(keys: Range<usize>, chunk: usize) -> Range<usize> {
    let base = chunk * CHUNK;
    let clip = |p: usize| p.clamp(base, base + CHUNK) - base;
    clip(keys.start)..clip(keys.end)
}

/// The keys of two ranges, the first of which starts first.
fn join(pinned: Range<usize>, near: Range<usize>) -> Seen {
    if pinned.is_empty() || near.is_empty() {
        let keys = if pinned.is_empty() { near } else { pinned };
        return Seen { keys, hole: 0..0 };
    }
    let hole = if pinned.end < near.start { pinned.end..near.start } else { 0..0 };
    Seen { keys: pinned.start.min(near.start)..pinned.end.max(near.end), hole }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the rule says, key by key.
    fn sees(v: &Visible, i: usize, key: usize) -> bool {
        let at = v.first + i;
        let near = key.saturating_add(v.window) > at && (v.causal || key < at.saturating_add(v.window));
        key < v.len && (!v.causal || key <= at) && (near || key < v.sinks)
    }

    #[test]
    fn ranges_hold_exactly_the_keys_of_the_rule() {
        for (len, q_len) in [(1, 1), (300, 40), (900, 300), (1100, 1100)] {
            for window in [1, 5, 256, 300, usize::MAX] {
                for (sinks, causal) in
                    [(0, true), (0, false), (4, true), (300, true), (4, false), (300, false)]
                {
                    let v = Visible { first: len - q_len, len, window, sinks, causal };
                    let chunks = v.chunks(&(0..q_len));
                    let listed: Vec<usize> = (0..chunks.len()).map(|n| chunks.index(n)).collect();
                    assert!(listed.is_sorted_by(|a, b| a < b));
                    for i in (0..q_len).step_by(37) {
                        for chunk in 0..len.div_ceil(CHUNK) {
                            let seen = v.in_chunk(i, chunk);
                            let hull = v.hull(&(0..q_len), chunk);
                            for key in 0..CHUNK {
                                let want = sees(&v, i, chunk * CHUNK + key);
                                let got = seen.keys.contains(&key) && !seen.hole.contains(&key);
                                assert_eq!(got, want, "query {i} key {} of {len}", chunk * CHUNK + key);
                                assert!(!got || hull.contains(&key) && listed.contains(&chunk));
                            }
                        }
                    }
                }
            }
        }
    }
}
