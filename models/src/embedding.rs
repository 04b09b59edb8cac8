//! A table of vectors in f32.

use crate::engine::Runtime;
use crate::error::Result;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::{MatRef, ops};

/// Vectors of tokens, positions or types: (ids, n), in f32 whatever the format of the linear maps.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Vec<f32>,
    ids: usize,
    n: usize,
}

impl Embedding {
    /// Loads `name.weight`, (ids, n).
    ///
    /// **Errors**: as [`Loader::tensor`].
    pub fn load(at: &Loader<'_>, name: &str, (ids, n): (usize, usize)) -> Result<Embedding> {
        Ok(Embedding { table: at.at(name).tensor("weight", &[ids, n])?, ids, n })
    }

    /// Rows of the table.
    pub fn ids(&self) -> usize {
        self.ids
    }

    /// The vectors of `ids`, (ids, n).
    ///
    /// **Errors**: as [`ops::embedding`].
    pub fn rows(&self, rt: &Runtime, ids: &[u32]) -> Result<Rows> {
        let mut rows = Rows::zeros(ids.len(), self.n);
        let table = MatRef::dense(&self.table, self.ids, self.n)?;
        ops::embedding(&rt.ctx, table, ids, rows.view_mut()?)?;
        Ok(rows)
    }

    /// Adds the vectors of `ids` to the rows `x`, (ids, n).
    ///
    /// **Errors**: as [`Embedding::rows`].
    pub fn add_to(&self, rt: &Runtime, ids: &[u32], x: &mut Rows) -> Result<()> {
        let rows = self.rows(rt, ids)?;
        Ok(ops::add(&rt.ctx, x.view_mut()?, rows.view()?)?)
    }
}

/// The position of each row in its own sequence: 0, 1, 2 from each start on.
pub fn positions(starts: &[usize]) -> Vec<u32> {
    starts.windows(2).flat_map(|pair| (pair[0]..pair[1]).map(|row| (row - pair[0]) as u32)).collect()
}
