//! The plan for each tensor: kept as it is, or in another format.

use kvern::quant::WeightFormat;

/// A user's choices.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// The format of weights.
    pub format: WeightFormat,
    /// Whether `token_embd.weight` and `output.weight` stay as they are.
    pub keep_output: bool,
}

/// The plan for a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its bytes stay.
    Keep,
    /// Its bytes stay: the block of the goal does not divide a row, and it has no more than 16 bits a weight.
    KeepRagged,
    /// Its weights in this format.
    To(WeightFormat),
    /// Its weights in this format: the block of the goal does not divide a row.
    ToRagged(WeightFormat),
}

impl Step {
    /// The format that weights are converted to, where they are.
    pub fn to(self) -> Option<WeightFormat> {
        match self {
            Step::Keep | Step::KeepRagged => None,
            Step::To(format) | Step::ToRagged(format) => Some(format),
        }
    }

    /// Whether the block of the goal does not divide a row.
    pub fn is_ragged(self) -> bool {
        matches!(self, Step::KeepRagged | Step::ToRagged(_))
    }
}

/// The plan for a tensor of this name, shape (k first, as in GGUF) and format (`None` for types that kvern
/// does not compute with).
///
/// Weights that have the format already keep their bytes: a second rounding could only change them.
pub fn step(name: &str, shape: &[usize], format: Option<WeightFormat>, goal: Goal) -> Step {
    let Some(format) = format.filter(|_| is_weight(name, shape)) else { return Step::Keep };
    let is_output = name == "token_embd.weight" || name == "output.weight";
    if format == goal.format || (goal.keep_output && is_output) {
        return Step::Keep;
    }
    let k = shape.first().copied().unwrap_or(1);
    if k.is_multiple_of(goal.format.block_len()) {
        return Step::To(goal.format);
    }
    match smaller(goal.format).filter(|format| k.is_multiple_of(format.block_len())) {
        Some(smaller) if smaller == format => Step::KeepRagged,
        Some(smaller) => Step::ToRagged(smaller),
        // bf16 has the bits of f16, and none would be won.
        None if format.block_len() == 1 && format.block_bytes() <= 2 => Step::KeepRagged,
        None => Step::ToRagged(WeightFormat::F16),
    }
}

/// The format of about as many bits whose block is 32, for formats of larger blocks.
fn smaller(format: WeightFormat) -> Option<WeightFormat> {
    Some(match format {
        WeightFormat::Q4K => WeightFormat::Q5_0,
        WeightFormat::Q5K => WeightFormat::Q5_1,
        WeightFormat::Q6K => WeightFormat::Q8_0,
        WeightFormat::Nvfp4 => WeightFormat::Mxfp4,
        WeightFormat::Tq1_0 | WeightFormat::Tq2_0 | WeightFormat::Q1_0 | WeightFormat::Q2_0 => {
            WeightFormat::Q4_0
        }
        large if large.block_len() > 32 => WeightFormat::Iq4Nl,
        _ => return None,
    })
}

/// Whether a tensor is a matrix of weights, or one for each expert, of a size that is worth fewer bits.
///
/// Small maps whose results decide much stay: norms, routers, short convolutions, the steps of recurrent
/// layers, tables of positions and of kinds of tokens, the small maps of AltUp and LAuReL and those of RWKV.
/// Programs that read the file expect single floats in most of them.
fn is_weight(name: &str, shape: &[usize]) -> bool {
    const SMALL: [&str; 9] = [
        "ffn_gate_inp",
        "ssm_x",
        "ssm_dt",
        "position_embd",
        "token_types",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "attn_rel_b",
    ];
    let dims = shape.iter().rposition(|size| *size != 1).map_or(0, |last| last + 1);
    let Some(stem) = name.strip_suffix(".weight") else { return false };
    let part = stem.rsplit('.').next().unwrap_or(stem);
    let small = SMALL.iter().any(|small| part.starts_with(small));
    (2..=3).contains(&dims)
        && !shape.contains(&0)
        && !small
        && !part.contains("norm")
        && !part.contains("conv")
        && !part.strip_prefix("time_mix_").is_some_and(is_small_of_rwkv)
}

/// Whether `time_mix_` and this is a small map: a first weight, a decay, an interpolation, or a map of low
/// rank such as `w1`.
fn is_small_of_rwkv(rest: &str) -> bool {
    rest.len() == 2 || ["first", "decay", "lerp"].iter().any(|small| rest.starts_with(small))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOAL: Goal = Goal { format: WeightFormat::Q4K, keep_output: false };

    fn of(name: &str, shape: &[usize]) -> Step {
        step(name, shape, Some(WeightFormat::F32), GOAL)
    }

    #[test]
    fn matrices_of_weights_are_converted_and_all_else_is_kept() {
        let to = Step::To(WeightFormat::Q4K);
        for name in [
            "token_embd.weight",
            "output.weight",
            "blk.0.attn_q.weight",
            "blk.0.ffn_gate.weight",
            "blk.0.ssm_in.weight",
            "blk.0.shortconv.in_proj.weight",
            "blk.0.time_mix_gate.weight",
            "per_layer_token_embd.weight",
        ] {
            assert_eq!(of(name, &[256, 8]), to, "{name}");
            assert_eq!(of(name, &[256, 8, 1, 1]), to, "{name}");
        }
        assert_eq!(of("blk.0.ffn_gate_exps.weight", &[256, 8, 4]), to);
        for name in [
            "blk.0.attn_q.bias",
            "blk.0.attn_q_norm.weight",
            "blk.0.ffn_gate_inp.weight",
            "blk.0.ffn_gate_inp_shexp.weight",
            "blk.0.ssm_conv1d.weight",
            "blk.0.shortconv.conv.weight",
            "blk.0.ssm_x.weight",
            "blk.0.ssm_dt.weight",
            "blk.0.time_mix_w1.weight",
            "blk.0.time_mix_first.weight",
            "position_embd.weight",
            "weight",
        ] {
            assert_eq!(of(name, &[256, 8]), Step::Keep, "{name}");
        }
        for shape in [&[][..], &[256], &[256, 1], &[256, 1, 1], &[256, 0], &[256, 8, 2, 3]] {
            assert_eq!(of("a.weight", shape), Step::Keep, "{shape:?}");
        }
        assert_eq!(step("a.weight", &[256, 8], None, GOAL), Step::Keep);
        assert_eq!(step("a.weight", &[256, 8], Some(GOAL.format), GOAL), Step::Keep);
    }

    #[test]
    fn embeddings_and_outputs_are_kept_where_that_is_asked_for() {
        let goal = Goal { keep_output: true, ..GOAL };
        let of = |name| step(name, &[256, 8], Some(WeightFormat::F32), goal);
        assert_eq!((of("token_embd.weight"), of("output.weight")), (Step::Keep, Step::Keep));
        assert_eq!(of("blk.0.attn_output.weight"), Step::To(GOAL.format));
    }

    #[test]
    fn rows_that_no_block_divides_get_a_smaller_one_or_f16() {
        let of = |k, from, format| step("a.weight", &[k, 8], Some(from), Goal { format, keep_output: false });
        use WeightFormat::{Bf16, F16, F32, Iq2S, Iq4Nl, Mxfp4, Nvfp4, Q1_0, Q4_0, Q4K, Q5_0, Q6K, Q8_0};
        assert_eq!(of(288, F32, Q4K), Step::ToRagged(Q5_0));
        assert_eq!(of(288, F32, Q6K), Step::ToRagged(Q8_0));
        assert_eq!(of(288, Q8_0, Q6K), Step::KeepRagged);
        assert_eq!(of(288, F32, Iq2S), Step::ToRagged(Iq4Nl));
        assert_eq!(of(96, F32, Nvfp4), Step::ToRagged(Mxfp4));
        assert_eq!(of(64, F32, Q1_0), Step::ToRagged(Q4_0));
        for goal in [Q4K, Q4_0, Q1_0] {
            assert_eq!(of(80, F32, goal), Step::ToRagged(F16));
            assert_eq!((of(80, F16, goal), of(80, Bf16, goal)), (Step::KeepRagged, Step::KeepRagged));
        }
        assert_eq!(of(80, F32, Bf16), Step::To(Bf16));
        for format in WeightFormat::ALL {
            let smaller = smaller(format);
            assert_eq!(smaller.is_some(), format.block_len() > 32, "{format:?}");
            assert!(smaller.is_none_or(|smaller| smaller.block_len() == 32), "{format:?}");
        }
    }
}
