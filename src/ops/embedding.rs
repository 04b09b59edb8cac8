//! Embedding rows: gathers from a table.

use super::for_each_row;
use crate::context::Context;
use crate::error::{Error, Result, equal};
use crate::fp_mode;
use crate::quant::PackedWeights;
use crate::view::{MatMut, MatRef};

/// `out[i] = table[ids[i]]`.
///
/// - **Shapes**: `table`: (vocabulary, n), plain; `ids`: (rows); `out`: (rows, n).
/// - **Errors**: `Shape` when an id is not below the vocabulary (named `ids`), or a dimension disagrees;
///   nothing is changed then.
pub fn embedding(ctx: &Context, table: MatRef<'_>, ids: &[u32], out: MatMut<'_>) -> Result<()> {
    let _mode = fp_mode::default_mode();
    check(table.rows(), table.cols(), ids, &out)?;
    table.require_plain("table", "plain: one token a row")?;
    for_each_row(ctx, out, &|i, out| {
        if let Some(row) = table.row(ids[i] as usize) {
            out.copy_from_slice(row);
        }
    });
    Ok(())
}

/// [`embedding`] from a quantised table, dequantised exactly on the way.
pub fn embedding_quantized(ctx: &Context, table: &PackedWeights, ids: &[u32], out: MatMut<'_>) -> Result<()> {
    let _mode = fp_mode::default_mode();
    check(table.n(), table.k(), ids, &out)?;
    for_each_row(ctx, out, &|i, out| {
        let copied = table.dequantize_row(ids[i] as usize, out);
        debug_assert!(copied.is_ok(), "shapes and ids were checked");
    });
    Ok(())
}

fn check(vocabulary: usize, n: usize, ids: &[u32], out: &MatMut<'_>) -> Result<()> {
    equal("out.rows", out.rows(), "must equal ids.len =", ids.len())?;
    equal("out.cols", out.cols(), "must equal table.cols =", n)?;
    match ids.iter().find(|&&id| id as usize >= vocabulary) {
        Some(&id) => Err(Error::Shape {
            what: "ids",
            got: id as usize,
            relation: "must be below the table's rows =",
            want: vocabulary,
        }),
        None => Ok(()),
    }
}
