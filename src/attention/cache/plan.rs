//! What follows from options that make sense.

use super::layout::{Geometry, Layout};
use super::options::{KvCacheOptions, at_most};
use crate::error::{Error, Result, option, product, text};

/// A cache that can be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub geometry: Geometry,
    pub layout: Layout,
    /// Of the pool.
    pub pages: usize,
}

impl Plan {
    /// Checks everything and computes what follows from it.
    pub fn new(options: &KvCacheOptions) -> Result<Plan> {
        let KvCacheOptions { kv_heads, head_dim, value_dim, capacity, window, sinks, sequences, .. } =
            *options;
        bounded("kv_heads", kv_heads, usize::MAX, "at least 1")?;
        bounded("capacity", capacity, isize::MAX as usize, "at least 1 token")?;
        bounded("sequences", sequences, u32::MAX as usize, "at least 1")?;
        for (what, dim) in [("head_dim", head_dim), ("value_dim", value_dim)] {
            if dim == 0 || !dim.is_multiple_of(8) {
                let (got, allowed) = (text(dim), "a multiple of 8, at least 8");
                return Err(Error::Option { what, got, allowed });
            }
        }
        if options.latent {
            at_most("value_dim", value_dim, "must be at most head_dim =", head_dim)?;
            let (got, allowed) = (text(options.values.name()), "the type of keys, which hold the values");
            if options.values != options.keys {
                return Err(Error::Option { what: "values", got, allowed });
            }
        }
        match window {
            Some(window) => {
                bounded("window", window, usize::MAX, "at least 1 token")?;
                at_most("window", window, "must be at most capacity =", capacity)?;
                at_most("sinks", sinks, "must be at most capacity - window =", capacity - window)?;
            }
            None if sinks > 0 => {
                let allowed = "0 for a cache without a window, which forgets nothing";
                return Err(Error::Option { what: "sinks", got: text(sinks), allowed });
            }
            None => {}
        }
        let geometry = Geometry::new(options);
        let most = product("pages", &[sequences, geometry.entries()])?;
        let pages = options.pages.unwrap_or(most);
        bounded("pages", pages, u32::MAX as usize - 1, "from 1 to 2^32 - 2")?;
        Ok(Plan { geometry, layout: Layout::new(options)?, pages })
    }
}

/// `what` must lie in 1..=limit.
fn bounded(what: &'static str, got: usize, limit: usize, allowed: &'static str) -> Result<()> {
    option((1..=limit).contains(&got), what, got, allowed)
}
