//! Experts: against values that were computed elsewhere, bit for bit against the products of each token
//! alone, whatever others chose; workspaces; bad input.

use crate::support::safetensors::Tensors;
use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::ops::{activate, add_scaled, mul, swiglu_oai};
use kvern::quant::{
    Compute, Expert, ExpertOptions, PackedWeights, WeightFormat, experts_workspace_bytes, multiply_experts,
};
use kvern::{Activation, Context, Epilogue, Error, MatMut, MatRef, Workspace};

/// The activation between the products.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Gate {
    Act(Activation),
    Oai,
}

impl Gate {
    fn options(self, compute: Compute) -> ExpertOptions {
        match self {
            Gate::Act(act) => ExpertOptions::new(compute, act),
            Gate::Oai => ExpertOptions::swiglu_oai(compute, 1.702, 7.0),
        }
    }
}

/// An expert that owns its matrices and biases.
struct Owned {
    gate: PackedWeights,
    up: Option<PackedWeights>,
    down: PackedWeights,
    biases: Option<[Vec<f32>; 3]>,
}

impl Owned {
    fn random(
        r: &mut Random,
        formats: &[WeightFormat],
        (hidden, ffn): (usize, usize),
        (gated, biased): (bool, bool),
    ) -> Owned {
        let mut matrix = |n: usize, k: usize| {
            let format = r.of(formats);
            let w: Vec<f32> = r.vec(n * k).iter().map(|w| w / 8.0).collect();
            PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap()
        };
        let (gate, up, down) = (matrix(ffn, hidden), matrix(ffn, hidden), matrix(hidden, ffn));
        let biases = biased.then(|| [r.vec(ffn), r.vec(ffn), r.vec(hidden)]);
        Owned { gate, up: gated.then_some(up), down, biases }
    }

    fn view(&self) -> Expert<'_> {
        let bias = |i: usize| self.biases.as_ref().map(|biases| &biases[i][..]);
        Expert {
            gate_bias: bias(0),
            up_bias: bias(1).filter(|_| self.up.is_some()),
            down_bias: bias(2),
            ..Expert::new(&self.gate, self.up.as_ref(), &self.down)
        }
    }
}

/// One product of one row.
fn row(ctx: &Context, w: &PackedWeights, bias: Option<&[f32]>, compute: Compute, x: &[f32]) -> Vec<f32> {
    let mut ws = Workspace::new(w.workspace_bytes(ctx, 1, compute).unwrap()).unwrap();
    let mut y = vec![f32::NAN; w.n()];
    let e = bias.map_or_else(Epilogue::default, |bias| Epilogue::default().bias(bias));
    let (a, c) = (MatRef::dense(x, 1, x.len()).unwrap(), MatMut::dense(&mut y, 1, w.n()).unwrap());
    w.multiply(ctx, &mut ws, compute, a, c, &e).unwrap();
    y
}

fn dense(x: &mut [f32]) -> MatMut<'_> {
    let n = x.len();
    MatMut::dense(x, 1, n).unwrap()
}

/// The definition: each token alone, one expert after the other.
#[allow(clippy::too_many_arguments)] // those of the call
fn alone(
    ctx: &Context,
    experts: &[Expert<'_>],
    (compute, gate, weigh_input): (Compute, Gate, bool),
    x: &[f32],
    indices: &[u32],
    weights: &[f32],
    out: &mut [f32],
) {
    for (&index, &weight) in indices.iter().zip(weights) {
        let expert = &experts[index as usize];
        let x: Vec<f32> = x.iter().map(|x| if weigh_input { x * weight } else { *x }).collect();
        let mut h = row(ctx, expert.gate, expert.gate_bias, compute, &x);
        let up = expert.up.map(|up| row(ctx, up, expert.up_bias, compute, &x));
        let n = h.len();
        match (&up, gate) {
            (Some(up), Gate::Oai) => {
                swiglu_oai(ctx, 1.702, 7.0, dense(&mut h), MatRef::dense(up, 1, n).unwrap()).unwrap();
            }
            (_, Gate::Act(act)) => activate(ctx, act, dense(&mut h)),
            (None, Gate::Oai) => unreachable!("not asked for"),
        }
        if let (Some(up), Gate::Act(_)) = (&up, gate) {
            mul(ctx, dense(&mut h), MatRef::dense(up, 1, n).unwrap()).unwrap();
        }
        let y = row(ctx, expert.down, expert.down_bias, compute, &h);
        let n = y.len();
        let by = if weigh_input { 1.0 } else { weight };
        add_scaled(ctx, dense(out), by, MatRef::dense(&y, 1, n).unwrap()).unwrap();
    }
}

/// A call with a workspace of just the bytes that the query names; a smaller one is refused.
fn call(
    ctx: &Context,
    options: &ExpertOptions,
    experts: &[Expert<'_>],
    x: MatRef<'_>,
    indices: &[u32],
    weights: &[f32],
    out: &mut [f32],
) {
    let (tokens, n) = (x.rows(), experts[0].down.n());
    let chosen = indices.len() / tokens;
    let bytes = experts_workspace_bytes(ctx, options, experts, tokens, chosen).unwrap();
    let before = out.to_vec();
    let mut ws = Workspace::new(bytes - 1).unwrap();
    let c = MatMut::dense(out, tokens, n).unwrap();
    let e = multiply_experts(ctx, &mut ws, options, experts, x, indices, weights, c).unwrap_err();
    assert!(matches!(e, Error::Workspace { need, .. } if need == bytes), "{e}");
    assert_eq!(out, before);
    let mut ws = Workspace::new(bytes).unwrap();
    let c = MatMut::dense(out, tokens, n).unwrap();
    multiply_experts(ctx, &mut ws, options, experts, x, indices, weights, c).unwrap();
}

/// Which experts the tokens choose.
fn choices(r: &mut Random, kind: usize, tokens: usize, experts: usize, chosen: usize) -> Vec<u32> {
    (0..tokens * chosen)
        .map(|i| match kind {
            0 => r.below(experts) as u32, // any, now and then the same twice
            1 => (experts - 1) as u32,    // one expert with all
            2 => (2 * r.below(experts.div_ceil(2))) as u32, // every other one has no token
            _ => ((i % chosen + i / chosen) % experts) as u32,
        })
        .collect()
}

fn compare(
    r: &mut Random,
    owned: &[Owned],
    (compute, gate, weigh): (Compute, Gate, bool),
    (tokens, chosen, kind): (usize, usize, usize),
    what: &str,
) {
    let experts: Vec<Expert<'_>> = owned.iter().map(Owned::view).collect();
    let (hidden, n) = (owned[0].gate.k(), owned[0].down.n());
    let x = r.vec(tokens * (hidden + 3));
    let view = MatRef::new(&x, tokens, hidden, hidden + 3).unwrap();
    let indices = choices(r, kind, tokens, experts.len(), chosen);
    let (weights, residual) = (r.vec(tokens * chosen), r.vec(tokens * n));
    let options = gate.options(compute);
    let options = if weigh { options.weigh_input() } else { options };
    let mut want = residual.clone();
    let ctx = context(kvern::Isa::detect(), 1);
    for token in (0..tokens).filter(|token| tokens < 50 || token % 37 == 0 || token + 1 == tokens) {
        let pairs = token * chosen..(token + 1) * chosen;
        let (x, out) = (view.row(token).unwrap(), &mut want[token * n..][..n]);
        let how = (compute, gate, weigh);
        alone(&ctx, &experts, how, x, &indices[pairs.clone()], &weights[pairs], out);
    }
    for_each_isa(|ctx| {
        if ctx.isa() == kvern::Isa::Scalar && tokens > 50 {
            return; // minutes
        }
        for threads in [1, 3] {
            let mut out = residual.clone();
            let ctx = context(ctx.isa(), threads);
            call(&ctx, &options, &experts, view, &indices, &weights, &mut out);
            for token in (0..tokens).filter(|token| tokens < 50 || token % 37 == 0 || token + 1 == tokens) {
                let part = token * n..(token + 1) * n;
                let what = format!("{what}, token {token} of {tokens} at {}", ctx.isa());
                assert_same_bits(&out[part.clone()], &want[part], &what);
            }
        }
    });
}

const SILU: Gate = Gate::Act(Activation::Silu);

#[test]
fn experts_have_the_bits_of_each_token_alone() {
    let mut r = Random::new(70);
    let blocks = [WeightFormat::Q4_0, WeightFormat::Q8_0, WeightFormat::Mxfp4];
    let mixed = [WeightFormat::Q4_0, WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8_0];
    let floats = [WeightFormat::F32, WeightFormat::F16];
    // Of 256 and 64 k; weights that are always unpacked first among them.
    let large = [WeightFormat::Q4K, WeightFormat::Nvfp4, WeightFormat::Tq2_0, WeightFormat::Iq3S];
    let all: [&[WeightFormat]; 4] = [&blocks[..2], &mixed, &floats, &large];
    for (round, tokens) in [1, 1, 2, 3, 7, 8, 1, 13, 43, 4, 5, 9].into_iter().enumerate() {
        for compute in [Compute::Int8, Compute::F32] {
            let formats = all[round % 4];
            let (hidden, ffn) = if round % 4 == 3 { (512, 256) } else { (96, 32 * (1 + round % 4)) };
            let gated = round % 5 != 4;
            let gate = match round % 3 {
                0 => SILU,
                1 if gated => Gate::Oai,
                _ => Gate::Act(Activation::ReluSquared),
            };
            let owned: Vec<Owned> = (0..6)
                .map(|_| Owned::random(&mut r, formats, (hidden, ffn), (gated, round % 2 == 0)))
                .collect();
            for kind in 0..4 {
                let how = (compute, gate, (round + kind) % 4 == 1);
                let what = format!("{compute:?}, {gate:?}, choice {kind}, round {round}");
                compare(&mut r, &owned, how, (tokens, 1 + (round + kind) % 3, kind), &what);
            }
        }
    }
}

#[test]
fn prompts_of_several_parts_have_the_bits_of_each_token_alone() {
    let mut r = Random::new(71);
    let formats = [WeightFormat::Q4_0, WeightFormat::Q8_0];
    let owned: Vec<Owned> =
        (0..3).map(|_| Owned::random(&mut r, &formats, (64, 96), (true, false))).collect();
    for kind in [0, 1] {
        compare(&mut r, &owned, (Compute::Int8, SILU, false), (1030, 2, kind), "a long prompt");
    }
}

#[test]
fn families_match_the_reference() {
    let t = Tensors::of("experts");
    for (family, interleaved) in [("qwen3", false), ("gpt_oss", true)] {
        let tensor = |name: &str| t.f32(&format!("{family}/{name}"));
        let (joint, down, k) = (tensor("experts.gate_up_proj"), tensor("experts.down_proj"), 32);
        let count = down.len() / (k * k);
        let pack = |rows: Vec<f32>| {
            PackedWeights::quantize(WeightFormat::F32, MatRef::dense(&rows, k, k).unwrap()).unwrap()
        };
        let biases =
            interleaved.then(|| (tensor("experts.gate_up_proj_bias"), tensor("experts.down_proj_bias")));
        let owned: Vec<Owned> = (0..count)
            .map(|e| {
                // gpt-oss stores (in, out), gate and up in alternate columns.
                let of = |which: usize| -> Vec<f32> {
                    let whole = &joint[e * 2 * k * k..][..2 * k * k];
                    let at = |i: usize, j: usize| match interleaved {
                        true => whole[j * 2 * k + 2 * i + which],
                        false => whole[(which * k + i) * k + j],
                    };
                    (0..k * k).map(|p| at(p / k, p % k)).collect()
                };
                let square = &down[e * k * k..][..k * k];
                let down = (0..k * k).map(|p| match interleaved {
                    true => square[p % k * k + p / k],
                    false => square[p],
                });
                let biases = biases.as_ref().map(|(joint, down)| {
                    let part = |which: usize| (0..k).map(|i| joint[e * 2 * k + 2 * i + which]).collect();
                    [part(0), part(1), down[e * k..][..k].to_vec()]
                });
                Owned { gate: pack(of(0)), up: Some(pack(of(1))), down: pack(down.collect()), biases }
            })
            .collect();
        let experts: Vec<Expert<'_>> = owned.iter().map(Owned::view).collect();
        let indices: Vec<u32> = t.i32(&format!("{family}/index")).iter().map(|&i| i as u32).collect();
        let (x, weights, want) = (tensor("x"), tensor("weight"), tensor("y"));
        let gate = if interleaved { Gate::Oai } else { SILU };
        let most = want.iter().fold(0.0f32, |most, y| most.max(y.abs()));
        for_each_isa(|ctx| {
            let mut out = vec![0.0; want.len()];
            let x = MatRef::dense(&x, x.len() / k, k).unwrap();
            call(ctx, &gate.options(Compute::F32), &experts, x, &indices, &weights, &mut out);
            let worst =
                out.iter().zip(&want).fold(0.0f32, |worst, (got, want)| worst.max((got - want).abs()));
            assert!(worst <= 8e-7 * most, "{family}: {worst:e} of {most}");
            eprintln!("{family} at {}: error {worst:e} of {most}", ctx.isa());
        });
    }
}

#[test]
fn bad_experts_are_refused_and_change_nothing() {
    let (ctx, mut r) = (Context::serial(), Random::new(72));
    let format = [WeightFormat::Q8_0];
    let one = |r: &mut Random, shape, gated| Owned::random(r, &format, shape, (gated, false));
    let (good, bare) = (one(&mut r, (64, 32), true), one(&mut r, (64, 32), false));
    let (wide, long) = (one(&mut r, (96, 32), true), one(&mut r, (64, 64), true));
    let (x, weights, numbers) = (r.vec(3 * 64), r.vec(6), r.vec(64));
    let xm = MatRef::dense(&x, 3, 64).unwrap();
    let mut out = vec![7.0f32; 3 * 64];
    let options = ExpertOptions::new(Compute::Int8, Activation::Silu);
    let mut ws = Workspace::new(1 << 20).unwrap();
    let mut refuse = |options: &ExpertOptions, list: &[Expert<'_>], x: MatRef<'_>, i: &[u32], w: &[f32]| {
        let c = MatMut::dense(&mut out, 3, 64).unwrap();
        multiply_experts(&ctx, &mut ws, options, list, x, i, w, c).unwrap_err().to_string()
    };
    let (all, two) = ([0, 1, 1, 0, 1, 1], [good.view(), good.view()]);
    assert_eq!(refuse(&options, &[], xm, &all, &weights), "experts = 0 must be at least 1");
    let e = refuse(&options, &two, xm, &[0, 1, 2, 0, 1, 1], &weights);
    assert_eq!(e, "indices = 2 must be below the experts = 2");
    let e = refuse(&options, &two, xm, &all[..5], &weights);
    assert_eq!(e, "indices.len = 5 must be a multiple of x.rows, such as 3");
    let e = refuse(&options, &two, xm, &all, &weights[..5]);
    assert_eq!(e, "weights.len = 5 must equal indices.len = 6");
    let e = refuse(&options, &two, MatRef::dense(&x, 3, 63).unwrap(), &all, &weights);
    assert_eq!(e, "x.cols = 63 must equal the experts' hidden size = 64");
    let e = refuse(&options, &two, MatRef::dense(&x, 2, 64).unwrap(), &all, &weights);
    assert_eq!(e, "out.rows = 3 must equal x.rows = 2");
    assert!(refuse(&options, &two, MatRef::dense(&x, 64, 3).unwrap().t(), &all, &weights).starts_with("x ="));
    let e = refuse(&options, &[good.view(), wide.view()], xm, &all, &weights);
    assert_eq!(e, "gate.k = 96 must equal the first expert's = 64");
    let e = refuse(&options, &[good.view(), long.view()], xm, &all, &weights);
    assert_eq!(e, "gate.n = 64 must equal the first expert's = 32");
    let e = refuse(&options, &[good.view(), bare.view()], xm, &all, &weights);
    assert_eq!(e, "up = one of some experts must be in all experts or in none");
    let stray = Expert { up_bias: Some(&numbers[..32]), ..bare.view() };
    let e = refuse(&options, &[stray], xm, &[0; 6], &weights);
    assert_eq!(e, "up_bias = one without an up must be left out");
    let short = Expert { down_bias: Some(&numbers[..32]), ..good.view() };
    let e = refuse(&options, &[good.view(), short], xm, &all, &weights);
    assert_eq!(e, "bias.len = 32 must equal the rows of its weights = 64");
    let oai = |alpha, limit| ExpertOptions::swiglu_oai(Compute::Int8, alpha, limit);
    let e = refuse(&oai(1.702, 7.0), &[bare.view()], xm, &[0; 6], &weights);
    assert_eq!(e, "up = none must be there for this gate");
    assert!(refuse(&oai(0.5, 7.0), &two, xm, &all, &weights).starts_with("alpha = 0.5"));
    assert!(refuse(&oai(1.702, 0.0), &two, xm, &all, &weights).starts_with("limit = 0"));
    assert!(out.iter().all(|&x| x == 7.0));
    let e = experts_workspace_bytes(&ctx, &options, &two, 8, usize::MAX).unwrap_err();
    assert!(matches!(e, Error::Overflow { .. }), "{e}");
}

#[test]
fn nothing_chosen_and_no_tokens_change_nothing() {
    let mut r = Random::new(73);
    let one = Owned::random(&mut r, &[WeightFormat::Q4_0], (64, 32), (true, false));
    let (ctx, options) = (Context::serial(), ExpertOptions::new(Compute::Int8, Activation::Silu));
    let (x, mut out) = (r.vec(2 * 64), vec![7.0f32; 2 * 64]);
    for tokens in [0, 2] {
        let mut ws = Workspace::new(1 << 16).unwrap();
        let x = MatRef::dense(&x[..tokens * 64], tokens, 64).unwrap();
        let c = MatMut::dense(&mut out[..tokens * 64], tokens, 64).unwrap();
        multiply_experts(&ctx, &mut ws, &options, &[one.view()], x, &[], &[], c).unwrap();
    }
    assert!(out.iter().all(|&x| x == 7.0));
}
