//! Products with quantised weights: every format and codes in groups, both ways to compute, gated, several at
//! once.

use crate::machines::{Machines, Out, one_in, size};
use crate::oracle::{Finish, chain_bound};
use crate::support::{Random, assert_same_bits, map, temp};
use kvern::quant::import::GroupWise;
use kvern::quant::{Compute, PackedWeights, Product, WeightFormat, multiply_many, workspace_bytes_many};
use kvern::{Context, MatRef, Workspace};

/// Weights (n, k), and their values as the definition dequantises them.
struct Weights {
    name: String,
    packed: PackedWeights,
    values: Vec<f32>, // (n, k)
}

impl Weights {
    /// n output features of k inputs, k rounded down to what the format can have.
    fn random(random: &mut Random, n: usize, k: usize) -> Weights {
        let format = WeightFormat::ALL[random.below(WeightFormat::ALL.len())];
        if k.is_multiple_of(32) && one_in(random, 5) {
            return Weights::of_groups(random, n, k);
        }
        let magnitude = [1.0, 1.0, 1e-3, 40.0][random.below(4)];
        let w: Vec<f32> = random.vec(n * k).iter().map(|x| x * magnitude).collect();
        let len = format.block_len();
        let format = if k.is_multiple_of(len) { format } else { WeightFormat::Bf16 };
        let packed = PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap();
        let mut blocks = vec![0; format.bytes(n, k).unwrap()];
        packed.to_blocks(&mut blocks).unwrap();
        let again = PackedWeights::from_blocks(format, n, k, &blocks).unwrap();
        let weights = Weights::new(format.name().to_owned(), packed);
        assert_same_bits(&Weights::new("blocks".into(), again).values, &weights.values, format.name());
        weights
    }

    fn of_groups(random: &mut Random, n: usize, k: usize) -> Weights {
        let groups: Vec<usize> = [32, 64, 128].into_iter().filter(|&group| k.is_multiple_of(group)).collect();
        let (group, bits) = (groups[random.below(groups.len())], [4, 8][random.below(2)]);
        let mut codes = |len: usize| -> Vec<u8> { (0..len).map(|_| random.below(1 << bits) as u8).collect() };
        let (codes, zeros) = (codes(n * k), codes(n * (k / group)));
        let scales: Vec<f32> = random.vec(n * (k / group)).iter().map(|x| 0.01 * x).collect();
        let w = if one_in(random, 2) {
            GroupWise::with_zeros((n, k), bits as u32, group, &codes, &scales, &zeros)
        } else {
            let signed: Vec<i8> =
                codes.iter().map(|&code| (i16::from(code) - (1 << (bits - 1))) as i8).collect();
            GroupWise::symmetric((n, k), bits as u32, group, &signed, &scales)
        };
        let packed = PackedWeights::from_groups_on(&Context::serial(), &w.unwrap()).unwrap();
        Weights::new(format!("{bits} bits in groups of {group}"), packed)
    }

    fn new(name: String, packed: PackedWeights) -> Weights {
        let (n, k) = (packed.n(), packed.k());
        let mut values = vec![f32::NAN; n * k];
        for i in 0..n {
            packed.dequantize_row(i, &mut values[i * k..(i + 1) * k]).unwrap();
        }
        Weights { name, packed, values }
    }

    fn row(&self, j: usize) -> &[f32] {
        let k = self.packed.k();
        &self.values[j * k..(j + 1) * k]
    }

    /// `x . w_j` exactly, and how far the product may be from it: the rounding of its chain and, with int8
    /// activations, half a step of `absmax / 127` for each activation of a block of 32. Terms of a format
    /// with minima are larger than the weights that they make.
    fn exact(&self, x: &[f32], j: usize, compute: Compute) -> (f64, f64) {
        let w = self.row(j);
        let most = w.iter().fold(0.0f64, |most, w| most.max(f64::from(w.abs())));
        let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
        let sum = terms.sum();
        let magnitude: f64 = 4.0 * most * x.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        let mut bound = chain_bound(2 * x.len(), magnitude);
        let single = self.packed.format().is_some_and(|format| format.block_len() == 1);
        if compute == Compute::Int8 && !single {
            for (x, w) in x.chunks(32).zip(w.chunks(32)) {
                let step = f64::from(x.iter().fold(0.0f32, |most, x| most.max(x.abs()))) / 127.0;
                bound += 0.501 * step * w.iter().map(|w| f64::from(w.abs())).sum::<f64>();
            }
        }
        (sum, bound)
    }
}

/// One of the products that share their activations.
struct One {
    weights: Weights,
    up: Option<Weights>,
    finish: Finish,
    c: Vec<f32>, // (m, n)
}

impl One {
    fn out(&self, definition: bool, m: usize, gap: usize) -> Out {
        let new = if definition { Out::of_definition } else { Out::of_others };
        let out = new(m, self.weights.packed.n(), gap);
        if self.finish.beta == 0.0 { out } else { out.fill(&self.c) }
    }

    fn product<'a>(&'a self, out: &'a mut Out) -> Product<'a> {
        let mut product = Product::new(&self.weights.packed, out.view());
        product.up = self.up.as_ref().map(|up| &up.packed);
        product.epilogue = self.finish.epilogue();
        product
    }
}

/// The weights by way of a file, read or mapped.
fn by_file(weights: &PackedWeights, random: &mut Random) -> PackedWeights {
    let path = temp("differential-weights");
    weights.save(&path).unwrap();
    let mapped = cfg!(unix) && one_in(random, 2); // elsewhere the file could not be removed
    let loaded = if mapped { PackedWeights::from_mapped(&map(&path)) } else { PackedWeights::load(&path) };
    std::fs::remove_file(&path).unwrap();
    loaded.unwrap()
}

fn multiply(ctx: &Context, compute: Compute, a: MatRef<'_>, all: &[One], outs: &mut [Out]) {
    let packed: Vec<&PackedWeights> = all
        .iter()
        .flat_map(|p| std::iter::once(&p.weights.packed).chain(p.up.as_ref().map(|u| &u.packed)))
        .collect();
    let mut ws = Workspace::new(workspace_bytes_many(ctx, a.rows(), compute, &packed).unwrap()).unwrap();
    let mut products: Vec<Product<'_>> = all.iter().zip(outs).map(|(p, out)| p.product(out)).collect();
    multiply_many(ctx, &mut ws, compute, a, &mut products).unwrap();
}

/// One product by its own function, with the workspace that its own query names.
fn alone(ctx: &Context, compute: Compute, a: MatRef<'_>, one: &One, out: &mut Out) {
    let w = &one.weights.packed;
    let mut ws = Workspace::new(w.workspace_bytes(ctx, a.rows(), compute).unwrap()).unwrap();
    w.multiply(ctx, &mut ws, compute, a, out.view(), &one.finish.epilogue()).unwrap();
}

pub fn case(machines: &Machines, random: &mut Random) {
    let compute = if one_in(random, 2) { Compute::Int8 } else { Compute::F32 };
    let count = if one_in(random, 3) { 1 + random.below(3) } else { 1 };
    let (mut m, k) = (size(random, 70), 32 * size(random, 26));
    let mut all = Vec::new();
    for _ in 0..count {
        let n = size(random, 90);
        m = m.min(3_000_000 / (n * k + 1) + 1);
        let weights = Weights::random(random, n, k);
        // Gated weights are both of blocks or both of floats: of the same format at the least.
        let up =
            (one_in(random, 4) && weights.packed.format().is_some_and(|f| f.block_len() > 1)).then(|| {
                let w = random.vec(n * k);
                let format = weights.packed.format().unwrap();
                let packed = PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap();
                Weights::new(format.name().to_owned(), packed)
            });
        let finish = Finish::random(random, n, up.is_none());
        all.push(One { weights, up, finish, c: random.vec(70 * n) });
    }
    let (gap, a_gap) = (random.below(4), random.below(4));
    let rows = random.vec(m * (k + a_gap));
    let a = MatRef::new(&rows, m, k, k + a_gap).unwrap();
    let names: Vec<String> = all
        .iter()
        .map(|p| {
            format!(
                "{} of {} rows, gated {}, {:?}",
                p.weights.name,
                p.weights.packed.n(),
                p.up.is_some(),
                p.finish.activation
            )
        })
        .collect();
    let what = format!("{compute:?}, m {m}, k {k}, {names:?}");

    let mut want: Vec<Out> = all.iter().map(|p| p.out(true, m, gap)).collect();
    multiply(&machines.definition, compute, a, &all, &mut want);
    for (one, out) in all.iter().zip(&want) {
        check(one, a, out, compute, random, &what);
    }
    if one_in(random, 6) {
        all[0].weights.packed = by_file(&all[0].weights.packed, random);
    }
    for (name, ctx) in machines.some(random) {
        let what = format!("{name}: {what}");
        let mut got: Vec<Out> = all.iter().map(|p| p.out(false, m, gap)).collect();
        multiply(ctx, compute, a, &all, &mut got);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            got.assert_same(want, &format!("{what}, product {i}"));
        }
        // A row has the bits that it has alone, and a product those that it has alone.
        let (i, one) = (random.below(m.max(1)), &all[random.below(count)]);
        if m > 0 && one.up.is_none() && one.finish.beta == 0.0 {
            let p = all.iter().position(|other| std::ptr::eq(other, one)).unwrap_or_default();
            let mut got = one.out(false, 1, gap);
            let row = &rows[i * (k + a_gap)..][..k];
            alone(ctx, compute, MatRef::dense(row, 1, k).unwrap(), one, &mut got);
            got.assert_rows(0..1, &row_of(&want[p], i), &format!("{what}, row {i} of product {p} alone"));
        }
    }
}

/// A row as an output of its own.
fn row_of(out: &Out, i: usize) -> Out {
    let row = out.row(i).to_vec();
    Out::of_definition(1, row.len(), 0).fill(&row)
}

/// Some elements against f64.
fn check(one: &One, a: MatRef<'_>, out: &Out, compute: Compute, random: &mut Random, what: &str) {
    let n = one.weights.packed.n();
    if a.rows() * n == 0 {
        return;
    }
    for _ in 0..20 {
        let (i, j) = (random.below(a.rows()), random.below(n));
        let x = a.row(i).unwrap();
        let (ab, error) = one.weights.exact(x, j, compute);
        let (mut y, mut bound) = one.finish.apply(ab, error, j);
        if let Some(up) = &one.up {
            let (gate, gate_error) = up.exact(x, j, compute);
            bound = bound * (gate.abs() + gate_error) + y.abs() * gate_error;
            y *= gate;
            bound += 2e-7 * y.abs() + 1e-37;
        } else if one.finish.beta != 0.0 {
            (y, bound) = one.finish.add((y, bound), one.c[i * n + j]);
        }
        out.assert_near((i, j), y, bound, what);
    }
}
