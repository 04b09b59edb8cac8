//! Products of floats: plain, packed, gated, in f32, f16 and bf16.

use crate::machines::{Machines, Out, one_in, size};
use crate::oracle::{Finish, chain_bound};
use crate::support::Random;
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::{Context, Dtype, MatMut, MatRef, PackedB, Precision, Workspace, bf16, f16};

/// Elements of one matrix in a type of weights.
enum Stored {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Stored {
    fn new(dtype: Dtype, x: &[f32]) -> Stored {
        match dtype {
            Dtype::F16 => Stored::F16(x.iter().map(|&x| f16::from_f32(x)).collect()),
            Dtype::Bf16 => Stored::Bf16(x.iter().map(|&x| bf16::from_f32(x)).collect()),
            _ => Stored::F32(x.to_vec()),
        }
    }

    /// The elements in f32, exactly.
    fn widened(&self) -> Vec<f32> {
        match self {
            Stored::F32(x) => x.clone(),
            Stored::F16(x) => x.iter().map(|x| x.to_f32()).collect(),
            Stored::Bf16(x) => x.iter().map(|x| x.to_f32()).collect(),
        }
    }

    /// B (k, n), stored (n, k) where `turned`.
    fn pack(&self, ctx: &Context, (k, n): (usize, usize), turned: bool) -> PackedB {
        fn view<T: Copy>(x: &[T], (k, n): (usize, usize), turned: bool) -> MatRef<'_, T> {
            if turned { MatRef::dense(x, n, k).unwrap().t() } else { MatRef::dense(x, k, n).unwrap() }
        }
        match self {
            Stored::F32(x) => PackedB::pack(ctx, view(x, (k, n), turned)),
            Stored::F16(x) => PackedB::pack(ctx, view(x, (k, n), turned)),
            Stored::Bf16(x) => PackedB::pack(ctx, view(x, (k, n), turned)),
        }
        .unwrap()
    }
}

/// One product, owned. B and UP are stored (n, k) where `b_turned`, A (k, m) where `a_turned`.
struct Product {
    m: usize,
    n: usize,
    k: usize,
    a_turned: bool,
    b_turned: bool,
    a_gap: usize,
    a: Vec<f32>,
    b: Stored,
    up: Option<Stored>,
    c: Vec<f32>, // (m, n)
    finish: Finish,
}

impl Product {
    fn random(random: &mut Random) -> Product {
        let [mut m, mut n, mut k] = [70, 150, 300].map(|most| size(random, most));
        match random.below(10) {
            0 => (m, k) = (random.below(9), size(random, 2600)), // several blocks of k
            1 => (m, n) = (random.below(9), size(random, 900)),  // several blocks of n
            2 => (m, n) = (size(random, 420), random.below(40)), // several blocks of m
            _ => {}
        }
        while m * n * k > 2_000_000 {
            (m, n, k) = (m.div_ceil(2), n.div_ceil(2), k.div_ceil(2));
        }
        let (a_turned, b_turned) = (one_in(random, 4), one_in(random, 2));
        let (a_gap, gated) = (random.below(4), one_in(random, 4));
        let dtype = [Dtype::F32, Dtype::F16, Dtype::Bf16][random.below(3)];
        let (rows, cols) = if a_turned { (k, m) } else { (m, k) };
        let a = random.vec(rows * (cols + a_gap));
        let b = Stored::new(dtype, &random.vec(k * n));
        let up = gated.then(|| Stored::new(dtype, &random.vec(k * n)));
        let (c, finish) = (random.vec(m * n), Finish::random(random, n, !gated));
        Product { m, n, k, a_turned, b_turned, a_gap, a, b, up, c, finish }
    }

    fn a(&self) -> MatRef<'_> {
        let (rows, cols) = if self.a_turned { (self.k, self.m) } else { (self.m, self.k) };
        let a = MatRef::new(&self.a, rows, cols, cols + self.a_gap).unwrap();
        if self.a_turned { a.t() } else { a }
    }

    fn element_of_a(&self, i: usize, p: usize) -> f64 {
        let (row, col, cols) = if self.a_turned { (p, i, self.m) } else { (i, p, self.k) };
        f64::from(self.a[row * (cols + self.a_gap) + col])
    }

    /// `A * B` at (i, j) exactly, and the bound of its chain.
    fn exact(&self, b: &[f32], i: usize, j: usize) -> (f64, f64) {
        let at = |p: usize| if self.b_turned { j * self.k + p } else { p * self.n + j };
        let terms = (0..self.k).map(|p| self.element_of_a(i, p) * f64::from(b[at(p)]));
        let (sum, magnitude) = terms.fold((0.0, 0.0), |(sum, all), x| (sum + x, all + x.abs()));
        (sum, chain_bound(self.k, magnitude))
    }

    /// Some elements against f64.
    fn check(&self, out: &Out, random: &mut Random, what: &str) {
        if self.m * self.n == 0 {
            return;
        }
        let (b, up) = (self.b.widened(), self.up.as_ref().map(Stored::widened));
        for _ in 0..20 {
            let (i, j) = (random.below(self.m), random.below(self.n));
            let (ab, error) = self.exact(&b, i, j);
            let (mut y, mut bound) = self.finish.apply(ab, error, j);
            if let Some(up) = &up {
                let (gate, gate_error) = self.exact(up, i, j);
                bound = bound * (gate.abs() + gate_error) + y.abs() * gate_error;
                y *= gate;
                bound += 2e-7 * y.abs() + 1e-37;
            } else if self.finish.beta != 0.0 {
                (y, bound) = self.finish.add((y, bound), self.c[i * self.n + j]);
            }
            out.assert_near((i, j), y, bound, what);
        }
    }

    fn out(&self, definition: bool, gap: usize) -> Out {
        let new = if definition { Out::of_definition } else { Out::of_others };
        let out = new(self.m, self.n, gap);
        if self.finish.beta == 0.0 { out } else { out.fill(&self.c) }
    }
}

/// The product in packed form.
fn packed(
    p: &Product,
    ctx: &Context,
    b: &PackedB,
    up: Option<&PackedB>,
    precision: Precision,
    out: &mut Out,
) {
    let mut ws = Workspace::new(b.workspace_bytes(ctx, p.m).unwrap()).unwrap();
    let e = p.finish.epilogue();
    match up {
        None => b.multiply_with(ctx, &mut ws, precision, p.a(), out.view(), &e),
        Some(up) => b.multiply_gated(ctx, &mut ws, precision, p.a(), up, out.view(), &e),
    }
    .unwrap();
}

/// The product with a result in f16, widened.
fn narrow(p: &Product, ctx: &Context, b: &PackedB) -> Vec<f32> {
    let mut ws = Workspace::new(b.workspace_bytes(ctx, p.m).unwrap()).unwrap();
    let mut c = vec![f16::from_f32(-777.0); p.m * p.n];
    let view = MatMut::dense(&mut c, p.m, p.n).unwrap();
    b.multiply_with(ctx, &mut ws, Precision::Exact, p.a(), view, &p.finish.epilogue()).unwrap();
    c.iter().map(|x| x.to_f32()).collect()
}

pub fn case(machines: &Machines, random: &mut Random) {
    let p = Product::random(random);
    let gap = random.below(4);
    let what = format!(
        "{} x {} x {}, A turned {}, B turned {}, gated {}, alpha {}, beta {}, bias {}, {:?}",
        p.m,
        p.n,
        p.k,
        p.a_turned,
        p.b_turned,
        p.up.is_some(),
        p.finish.alpha,
        p.finish.beta,
        p.finish.bias.is_some(),
        p.finish.activation
    );
    let (b, up) = (&p.b, p.up.as_ref());
    let pack = |ctx| (b.pack(ctx, (p.k, p.n), p.b_turned), up.map(|up| up.pack(ctx, (p.k, p.n), p.b_turned)));
    let ctx = &machines.definition;
    let (mut want, (packed_b, packed_up)) = (p.out(true, gap), pack(ctx));
    packed(&p, ctx, &packed_b, packed_up.as_ref(), Precision::Exact, &mut want);
    p.check(&want, random, &what);
    let want_narrow = (p.finish.beta == 0.0 && up.is_none()).then(|| narrow(&p, ctx, &packed_b));

    let (packed_b, packed_up) = pack(machines.any(random)); // used at every tier
    let widened = b.widened();
    for (name, ctx) in machines.some(random) {
        let what = format!("{name}: {what}");
        let mut got = p.out(false, gap);
        packed(&p, ctx, &packed_b, packed_up.as_ref(), Precision::Exact, &mut got);
        got.assert_same(&want, &what);
        if let Some(want) = &want_narrow {
            let rounded = (0..p.m).flat_map(|i| got.row(i)).map(|&x| f16::from_f32(x).to_f32());
            crate::support::assert_same_bits(
                &rounded.collect::<Vec<f32>>(),
                want,
                &format!("{what}, rounded"),
            );
            crate::support::assert_same_bits(&narrow(&p, ctx, &packed_b), want, &format!("{what}, in f16"));
        }
        if up.is_none() {
            let bytes = matmul_workspace_bytes(ctx, p.m, p.n, p.k).unwrap();
            let mut ws = Workspace::new(bytes).unwrap();
            let (rows, cols) = if p.b_turned { (p.n, p.k) } else { (p.k, p.n) };
            let view = MatRef::dense(&widened, rows, cols).unwrap();
            let view = if p.b_turned { view.t() } else { view };
            let mut got = p.out(false, gap);
            matmul(ctx, &mut ws, p.a(), view, got.view(), &p.finish.epilogue()).unwrap();
            got.assert_same(&want, &format!("{what}, unpacked"));
        }
    }
    fast(&p, machines, random, (&packed_b, packed_up.as_ref()), &what);
}

/// `Fast` may differ between tiers, not between numbers of workers.
fn fast(p: &Product, machines: &Machines, random: &mut Random, b: (&PackedB, Option<&PackedB>), what: &str) {
    let mut first_of_tier: Option<(String, Out)> = None;
    for (name, ctx) in machines.some(random) {
        let tier = name.split(',').next().unwrap_or_default();
        let what = format!("{name}, fast: {what}");
        match &first_of_tier {
            Some((of, want)) if of == tier => {
                let mut got = p.out(false, 0);
                packed(p, ctx, b.0, b.1, Precision::Fast, &mut got);
                got.assert_same(want, &what);
            }
            _ => {
                let mut want = p.out(true, 0);
                packed(p, ctx, b.0, b.1, Precision::Fast, &mut want);
                first_of_tier = Some((tier.to_owned(), want));
            }
        }
    }
}
