//! The router of experts: against values that were computed elsewhere, against its definition in f64 with
//! every option, ties, and bad input.

use crate::support::safetensors::Tensors;
use crate::support::{Random, bits, context, for_each_isa};
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::ops::{GroupScore, NormKind, NormOptions, RouterOptions, RouterScore, norm, route};
use kvern::{Context, Epilogue, Isa, MatMut, MatRef, Workspace};

/// Routes at every tier on 1 and 3 threads: indices, weights, and what became of the logits.
fn everywhere(
    options: &RouterOptions<'_>,
    chosen: usize,
    experts: usize,
    logits: &[f32],
) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
    let run = |ctx: &Context| {
        let len = logits.len() / experts * chosen;
        let (mut logits, mut indices, mut weights) = (logits.to_vec(), vec![u32::MAX; len], vec![-1.0; len]);
        route(ctx, options, experts, &mut logits, &mut indices, &mut weights).unwrap();
        (indices, weights, logits)
    };
    let want = run(&context(Isa::Scalar, 1));
    for_each_isa(|ctx| {
        for threads in [1, 3] {
            let got = run(&context(ctx.isa(), threads));
            assert_eq!(got.0, want.0, "{}", ctx.isa());
            assert_eq!((bits(&got.1), bits(&got.2)), (bits(&want.1), bits(&want.2)), "{}", ctx.isa());
        }
    });
    want
}

fn near(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 5e-7, "{what}: weight {i}: {got} for {want}");
    }
}

/// Logits `x W^T + b` of a case.
fn logits(x: &[f32], w: &[f32], bias: Option<&[f32]>) -> (usize, Vec<f32>) {
    let (k, ctx) = (32, Context::serial());
    let (tokens, experts) = (x.len() / k, w.len() / k);
    let mut out = vec![0.0; tokens * experts];
    let mut ws = Workspace::new(matmul_workspace_bytes(&ctx, tokens, experts, k).unwrap()).unwrap();
    let (a, b) = (MatRef::dense(x, tokens, k).unwrap(), MatRef::dense(w, experts, k).unwrap().t());
    let e = bias.map_or_else(Epilogue::default, |bias| Epilogue::default().bias(bias));
    matmul(&ctx, &mut ws, a, b, MatMut::dense(&mut out, tokens, experts).unwrap(), &e).unwrap();
    (experts, out)
}

#[test]
fn families_match_the_reference() {
    let t = Tensors::of("router");
    let case = |name: &str, k: usize, weight: &str, bias: Option<&str>, options: RouterOptions<'_>| {
        let tensor = |part: &str| t.f32(&format!("{name}/{part}"));
        let bias = bias.map(tensor);
        let (experts, logits) = logits(&tensor("x"), &tensor(weight), bias.as_deref());
        let (indices, weights, _) = everywhere(&options, k, experts, &logits);
        let indices: Vec<i32> = indices.iter().map(|&i| i as i32).collect();
        assert_eq!(indices, t.i32(&format!("{name}/index")), "{name}");
        near(&weights, &tensor("weight"), name);
    };
    let softmax = RouterOptions::new(3, RouterScore::Softmax);
    case("qwen3", 3, "gate.weight", None, softmax.renormalize(0.0));
    case("qwen3_not_renormalised", 3, "gate.weight", None, softmax);
    let k = t.shape("qwen_shared/index")[1];
    let shared = RouterOptions::new(k, RouterScore::Softmax);
    let sum: f32 = t.f32("qwen_shared/weight")[..k].iter().sum();
    let shared = if (sum - 1.0).abs() < 1e-5 { shared.renormalize(0.0) } else { shared };
    case("qwen_shared", k, "gate.weight", None, shared);
    let bias = t.f32("deepseek_groups/gate.e_score_correction_bias");
    let sigmoid = RouterOptions::new(4, RouterScore::Sigmoid).renormalize(1e-20).scale(2.5);
    let grouped = sigmoid.bias(&bias).groups(4, 2, GroupScore::BestTwo);
    case("deepseek_groups", 4, "gate.weight", None, grouped);
    let bias = t.f32("deepseek_one_group/gate.e_score_correction_bias");
    case("deepseek_one_group", 4, "gate.weight", None, sigmoid.bias(&bias));
    let of_chosen = RouterOptions::new(3, RouterScore::SoftmaxOfChosen);
    case("gpt_oss", 3, "router.weight", Some("router.bias"), of_chosen);
    // Gemma 4: the input is normed and scaled first.
    let (x, gain) = (t.f32("gemma4_router/x"), t.f32("gemma4_router/scale"));
    let gain: Vec<f32> = gain.iter().map(|g| (f64::from(*g) / 32f64.sqrt()) as f32).collect();
    let mut normed = vec![0.0; x.len()];
    let (xm, out) = (MatRef::dense(&x, 11, 32).unwrap(), MatMut::dense(&mut normed, 11, 32).unwrap());
    norm(&Context::serial(), &NormOptions::new(NormKind::Rms, 1e-6).gain(&gain), xm, out).unwrap();
    let (experts, logits) = logits(&normed, &t.f32("gemma4_router/proj.weight"), None);
    let scales = t.f32("gemma4_router/per_expert_scale");
    let options = softmax.renormalize(0.0).expert_scale(&scales);
    let (indices, weights, _) = everywhere(&options, 3, experts, &logits);
    let indices: Vec<i32> = indices.iter().map(|&i| i as i32).collect();
    assert_eq!(indices, t.i32("gemma4_router/index"));
    near(&weights, &t.f32("gemma4_router/weight"), "gemma4");
}

#[test]
fn extreme_logits_match_the_reference() {
    let t = Tensors::of("router");
    let logits = t.f32("given_logits/logits");
    for (name, options) in [
        ("softmax_then_top3", RouterOptions::new(3, RouterScore::Softmax).renormalize(0.0)),
        ("softmax_then_top3_not_renormalised", RouterOptions::new(3, RouterScore::Softmax)),
        ("softmax_of_top3", RouterOptions::new(3, RouterScore::SoftmaxOfChosen)),
        ("sigmoid_top3", RouterOptions::new(3, RouterScore::Sigmoid).renormalize(1e-20)),
    ] {
        let (_, weights, _) = everywhere(&options, 3, 8, &logits);
        near(&weights, &t.f32(&format!("given_logits/{name}")), name);
    }
}

/// The options of a case, for the definition.
struct Case {
    chosen: usize,
    score: RouterScore,
    bias: Option<Vec<f32>>,
    groups: (usize, usize, GroupScore),
    renormalize: Option<f32>,
    scale: f32,
    expert_scale: Option<Vec<f32>>,
}

impl Case {
    fn options(&self) -> RouterOptions<'_> {
        let (groups, kept, by) = self.groups;
        let mut options =
            RouterOptions::new(self.chosen, self.score).groups(groups, kept, by).scale(self.scale);
        if let Some(bias) = &self.bias {
            options = options.bias(bias);
        }
        if let Some(scales) = &self.expert_scale {
            options = options.expert_scale(scales);
        }
        self.renormalize.map_or(options, |eps| options.renormalize(eps))
    }

    /// Indices and weights of one token, from the scores that the library made.
    fn definition(&self, scores: &[f32]) -> (Vec<u32>, Vec<f64>) {
        let (groups, kept, by) = self.groups;
        let size = scores.len() / groups;
        let choice = |i: usize| scores[i] + self.bias.as_ref().map_or(0.0, |bias| bias[i]);
        // Greater first, then lower indices.
        let order = |keys: &dyn Fn(usize) -> f32, from: Vec<usize>| {
            let mut list = from;
            list.sort_by(|&i, &j| keys(j).partial_cmp(&keys(i)).unwrap().then(i.cmp(&j)));
            list
        };
        let group = |g: usize| {
            let best = order(&choice, (g * size..(g + 1) * size).collect());
            let second = best.get(1).map_or(0.0, |&i| choice(i));
            choice(best[0]) + if by == GroupScore::BestTwo { second } else { 0.0 }
        };
        let good = &order(&group, (0..groups).collect())[..kept];
        let from = (0..scores.len()).filter(|i| good.contains(&(i / size))).collect();
        let list = order(&|i| scores[i], order(&choice, from)[..self.chosen].to_vec());
        let most = list.iter().map(|&i| f64::from(scores[i])).fold(f64::NEG_INFINITY, f64::max);
        let weight = |&i: &usize| match self.score {
            RouterScore::SoftmaxOfChosen => (f64::from(scores[i]) - most).exp(),
            RouterScore::SigmoidOfChosen => 1.0 / (1.0 + (-f64::from(scores[i])).exp()),
            _ => f64::from(scores[i]),
        };
        let mut weights: Vec<f64> = list.iter().map(weight).collect();
        if self.score == RouterScore::SoftmaxOfChosen {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        if let Some(eps) = self.renormalize {
            let sum = weights.iter().sum::<f64>() + f64::from(eps);
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        for (w, &i) in weights.iter_mut().zip(&list) {
            *w *= f64::from(self.scale) * f64::from(self.expert_scale.as_ref().map_or(1.0, |by| by[i]));
        }
        (list.iter().map(|&i| i as u32).collect(), weights)
    }
}

#[test]
fn every_option_is_its_definition() {
    let mut r = Random::new(50);
    for round in 0..300 {
        let groups = [1, 1, 2, 4, 8, 64][r.below(6)];
        let experts = groups * (1 + r.below(if groups == 64 { 3 } else { 20 }));
        let kept = 1 + r.below(groups);
        let chosen = 1 + r.below((experts / groups * kept).min(10));
        let scores = [
            RouterScore::Softmax,
            RouterScore::SoftmaxOfChosen,
            RouterScore::Sigmoid,
            RouterScore::SigmoidOfChosen,
        ];
        let case = Case {
            chosen,
            score: scores[round % 4],
            bias: (r.below(2) == 0).then(|| r.vec(experts)),
            groups: (groups, kept, [GroupScore::BestTwo, GroupScore::Best][r.below(2)]),
            renormalize: [None, Some(0.0), Some(1e-6)][r.below(3)],
            scale: [1.0, 2.5, -0.5][r.below(3)],
            expert_scale: (r.below(3) == 0).then(|| r.vec(experts)),
        };
        let tokens = 1 + r.below(6);
        // Few values give ties.
        let ties = r.below(3) == 0;
        let logits: Vec<f32> =
            (0..tokens * experts).map(|_| if ties { r.below(3) as f32 } else { 4.0 * r.f32() }).collect();
        let (indices, weights, left) = everywhere(&case.options(), chosen, experts, &logits);
        for token in 0..tokens {
            let scores = &left[token * experts..][..experts];
            let before = &logits[token * experts..][..experts];
            let sum: f64 = before.iter().map(|&x| f64::from(x).exp()).sum();
            for (&score, &logit) in scores.iter().zip(before) {
                let logit = f64::from(logit);
                let want = match case.score {
                    RouterScore::Softmax => logit.exp() / sum,
                    RouterScore::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
                    _ => logit,
                };
                assert!((f64::from(score) - want).abs() <= 2e-6 * want.abs(), "{score} for {want}");
            }
            let (list, want) = case.definition(scores);
            assert_eq!(indices[token * chosen..][..chosen], list, "round {round}");
            for (got, want) in weights[token * chosen..].iter().zip(want) {
                let error = (f64::from(*got) - want).abs();
                assert!(error <= 3e-6 * want.abs() + 1e-37, "round {round}: {got} for {want}");
            }
        }
    }
}

#[test]
fn ties_go_to_the_lower_index_and_nan_comes_last() {
    let of = |score, logits: &[f32], chosen: usize| {
        everywhere(&RouterOptions::new(chosen, score), chosen, logits.len(), logits)
    };
    assert_eq!(of(RouterScore::SoftmaxOfChosen, &[1.0, 3.0, 3.0, 3.0], 2).0, [1, 2]);
    assert_eq!(of(RouterScore::SigmoidOfChosen, &[f32::NAN, -1.0, f32::NEG_INFINITY, 5.0], 3).0, [3, 1, 2]);
    let (indices, weights, _) = of(RouterScore::Softmax, &[0.0, f32::NAN, 1.0], 2);
    assert!(indices == [0, 1] && weights.iter().all(|w| w.is_nan()), "NaN is all of its row");
    // Where nothing has a weight there is nothing to divide by.
    let none = RouterOptions::new(2, RouterScore::Sigmoid).renormalize(0.0);
    assert_eq!(everywhere(&none, 2, 3, &[-1e30; 3]).1, [0.0; 2]);
}

#[test]
fn bad_options_are_refused_and_change_nothing() {
    let (ctx, numbers) = (Context::serial(), [0.5f32; 12]);
    let (mut logits, mut indices, mut weights) = ([1.0f32; 12], [7u32; 8], [7.0f32; 8]);
    let mut refuse = |options: RouterOptions<'_>, experts: usize, lens: (usize, usize, usize)| {
        let (l, i, w) = (&mut logits[..lens.0], &mut indices[..lens.1], &mut weights[..lens.2]);
        route(&ctx, &options, experts, l, i, w).unwrap_err().to_string()
    };
    let two = RouterOptions::new(2, RouterScore::Softmax);
    let none = "chosen experts = 0 must be at least 1 and at most the experts of the kept groups = 6";
    assert_eq!(refuse(RouterOptions::new(0, RouterScore::Softmax), 6, (12, 0, 0)), none);
    let chosen = RouterOptions::new(4, RouterScore::Sigmoid).groups(2, 1, GroupScore::Best);
    let few = "chosen experts = 4 must be at least 1 and at most the experts of the kept groups = 3";
    assert_eq!(refuse(chosen, 6, (12, 8, 8)), few);
    for groups in [0, 4, 65] {
        let e = refuse(two.groups(groups, 1, GroupScore::Best), 6, (12, 4, 4));
        assert_eq!(e, format!("groups = {groups} must be 1..=64 and a divisor of the experts"));
    }
    for kept in [0, 4] {
        let e = refuse(two.groups(3, kept, GroupScore::Best), 6, (12, 4, 4));
        assert_eq!(e, format!("kept groups = {kept} must be 1 and up to all groups"));
    }
    assert_eq!(refuse(two.bias(&numbers[..5]), 6, (12, 4, 4)), "bias.len = 5 must equal the experts = 6");
    let e = refuse(two.expert_scale(&numbers[..7]), 6, (12, 4, 4));
    assert_eq!(e, "expert_scale.len = 7 must equal the experts = 6");
    for eps in [-1.0, f32::NAN, f32::INFINITY] {
        let e = refuse(two.renormalize(eps), 6, (12, 4, 4));
        assert_eq!(e, format!("renormalize = {eps} must be finite and not negative"));
    }
    assert_eq!(refuse(two.scale(f32::NAN), 6, (12, 4, 4)), "scale = NaN must be finite");
    assert_eq!(refuse(two, 5, (12, 4, 4)), "logits.len = 12 must equal tokens * experts = 10");
    assert_eq!(refuse(two, 6, (12, 3, 4)), "indices.len = 3 must equal tokens * chosen = 4");
    assert_eq!(refuse(two, 6, (12, 4, 5)), "values.len = 5 must equal tokens * chosen = 4");
    assert!(refuse(two, 0, (0, 0, 0)).starts_with("chosen experts = 2"));
    assert!(logits == [1.0; 12] && indices == [7; 8] && weights == [7.0; 8]);
    route(&ctx, &two, 6, &mut [], &mut [], &mut []).unwrap();
}
