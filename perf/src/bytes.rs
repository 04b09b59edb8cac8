//! `bytes`: what each operation has to stream from memory, by the formats alone, beside what the library
//! holds. Decoding is bound by these bytes: a weight that is read once for each token.

use anyhow::{Result, ensure};
use kvern::attention::{KvCache, KvCacheOptions};
use kvern::matmul::Weight;
use kvern::quant::{PackedWeights, WeightFormat};
use kvern::{Context, MatRef, PackedB, bf16, f16};

/// Output and input features of a layer.
const SHAPES: [(usize, usize); 3] = [(4096, 4096), (1024, 2816), (100, 96)];

/// Query heads, kv heads, head_dim, tokens.
const CACHES: [(usize, usize, usize, usize); 2] = [(32, 8, 64, 512), (12, 12, 64, 1024)];

/// One operation: bytes by the model and bytes held.
struct Row {
    operation: String,
    model: usize,
    held: usize,
}

/// Columns are padded to vectors of 16, and k of bf16 to pairs.
fn dense_bytes(n: usize, k: usize, element_bytes: usize, k_group: usize) -> usize {
    n.next_multiple_of(16) * k.next_multiple_of(k_group) * element_bytes
}

/// Blocks of 32 hold their quants and an f16 scale; rows are padded to 16, blocks to pairs.
fn quantized_bytes(n: usize, k: usize, bits: usize) -> usize {
    n.next_multiple_of(16) * (k / 32).next_multiple_of(2) * (32 * bits / 8 + 2)
}

/// Keys and values in f32, tokens padded to chunks of 256. Each is read once for a group of query heads.
fn cache_bytes(kv_heads: usize, dim: usize, tokens: usize) -> usize {
    tokens.next_multiple_of(256) * kv_heads * (dim + dim.next_multiple_of(16)) * 4
}

fn packed<T: Weight>(ctx: &Context, n: usize, k: usize, zero: T, k_group: usize) -> Result<Row> {
    let weights = vec![zero; n * k];
    let held = PackedB::pack(ctx, MatRef::dense(&weights, k, n)?)?.bytes();
    let operation = format!("product of one row, {} {n}x{k}", T::DTYPE.name());
    Ok(Row { operation, model: dense_bytes(n, k, T::DTYPE.bytes(), k_group), held })
}

fn rows() -> Result<Vec<Row>> {
    let ctx = Context::serial();
    let mut rows = Vec::new();
    for (n, k) in SHAPES {
        rows.push(packed(&ctx, n, k, 0f32, 1)?);
        rows.push(packed(&ctx, n, k, f16::ZERO, 1)?);
        rows.push(packed(&ctx, n, k, bf16::ZERO, 2)?);
        for (format, bits) in [(WeightFormat::Q4_0, 4), (WeightFormat::Q8_0, 8)] {
            let blocks = vec![0; format.bytes(n, k)?];
            let held = PackedWeights::from_blocks(format, n, k, &blocks)?.bytes();
            let operation = format!("product of one row, {} {n}x{k}", format.name());
            rows.push(Row { operation, model: quantized_bytes(n, k, bits), held });
        }
    }
    for (heads, kv_heads, dim, tokens) in CACHES {
        let bytes = |kv| -> Result<usize> { Ok(KvCache::new(KvCacheOptions::new(kv, dim, tokens))?.bytes()) };
        let operation = format!("decode, {heads} heads in {kv_heads} groups, {tokens} tokens");
        let model = cache_bytes(kv_heads, dim, tokens);
        rows.push(Row { operation, model, held: bytes(kv_heads)? });
        if heads > kv_heads {
            let operation = format!("decode, {heads} heads each alone, {tokens} tokens");
            rows.push(Row { operation, model: model * heads / kv_heads, held: bytes(1)? * heads });
        }
    }
    Ok(rows)
}

/// Prints the table; an error where the library holds other than the model.
pub fn print() -> Result<()> {
    println!("| operation | bytes streamed | bytes held |\n|---|---:|---:|");
    for Row { operation, model, held } in rows()? {
        println!("| {operation} | {model} | {held} |");
        ensure!(model == held, "{operation}: the model says {model} bytes, the library holds {held}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_library_holds_what_the_formats_say() {
        super::print().unwrap();
        let rows = super::rows().unwrap();
        let of = |part: &str| rows.iter().find(|r| r.operation.contains(part)).unwrap().held;
        assert_eq!(of("each alone"), 4 * of("32 heads in 8"));
        assert_eq!(of("q4_0 4096x4096") * 64, of("f32 4096x4096") * 9);
    }
}
