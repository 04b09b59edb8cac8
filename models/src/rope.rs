//! Rotation tables from `config.json`: `rope_parameters`, or the older `rope_theta` and `rope_scaling`.

use crate::error::{Error, Result};
use kvern::ops::{RopeScaling, RopeTable};
use serde::Deserialize;
use serde_json::Value;

/// More elements than a head has.
const MOST: usize = 1 << 20;

/// Base of the frequencies where a configuration names none.
const THETA: f64 = 10000.0;

/// The fields of `rope_parameters` and of `rope_scaling`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Fields {
    rope_type: Option<String>,
    /// The older name of `rope_type`, beside which it may stand.
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    truncate: Option<bool>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    short_factor: Option<Vec<f64>>,
    long_factor: Option<Vec<f64>>,
}

/// The rotation of some layers of a model.
#[derive(Debug, Clone)]
pub struct RopeConfig {
    fields: Fields,
    /// `max_position_embeddings`.
    max_positions: Option<usize>,
}

impl RopeConfig {
    /// Reads the rotation from `config.json`.
    ///
    /// With `rope_parameters` for each type of layers, `layer_type` says which (`full_attention`,
    /// `sliding_attention`); the older `rope_local_base_freq` is the base of `sliding_attention`. What the
    /// rotation's own fields lack is read beside them.
    ///
    /// **Errors**: `Config` for a field of another type.
    pub fn read(config: &Value, layer_type: Option<&str>) -> Result<RopeConfig> {
        let local = config.get("rope_local_base_freq").and_then(Value::as_f64);
        let mut fields = match config.get("rope_parameters").filter(|fields| fields.is_object()) {
            Some(all) => read(layer_type.and_then(|name| all.get(name)).unwrap_or(all))?,
            None if layer_type == Some("sliding_attention") && local.is_some() => {
                Fields { rope_theta: local, ..Fields::default() }
            }
            None => match config.get("rope_scaling").filter(|fields| fields.is_object()) {
                Some(scaling) => read(scaling)?,
                None => Fields::default(),
            },
        };
        let beside = Beside::deserialize(config).map_err(config_error)?;
        fields.rope_theta = fields.rope_theta.or(beside.rope_theta);
        fields.partial_rotary_factor = fields.partial_rotary_factor.or(beside.partial_rotary_factor);
        let original = beside.original_max_position_embeddings;
        fields.original_max_position_embeddings = fields.original_max_position_embeddings.or(original);
        Ok(RopeConfig { fields, max_positions: beside.max_position_embeddings })
    }

    /// The table for heads of `head_dim` elements and positions `0..positions`. Elements beyond the rotated
    /// part of a head stay as they are.
    ///
    /// - `default`, `linear`, `llama3`, `yarn`: [`RopeScaling`]. `yarn` takes `truncate`, and the amplitude
    ///   `attention_factor`, or the ratio of [`yarn_mscale`] of `mscale` and of `mscale_all_dim`, or
    ///   [`yarn_mscale`] of 1.
    /// - `dynamic`: NTK by `factor * positions / max_position_embeddings - (factor - 1)` where the table is
    ///   longer than the trained context. `positions` stands for the length of the context, so that all
    ///   tokens of a cache are turned alike.
    /// - `longrope`: the long factors where the table is longer than the trained context, otherwise the short
    ///   ones; amplitude `attention_factor`, or `sqrt(1 + ln(factor) / ln(trained))`.
    /// - `proportional`: pairs of the whole head, of which the first `partial_rotary_factor` turn.
    ///
    /// **Errors**: `Config` for a field that the type needs and lacks, and for a type that is none of these;
    /// those of [`RopeTable::scaled`].
    pub fn table(&self, head_dim: usize, positions: usize) -> Result<RopeTable> {
        let f = &self.fields;
        let theta = f.rope_theta.unwrap_or(THETA);
        if head_dim > MOST {
            return Err(Error::field("head_dim", head_dim, &format!("at most {MOST}")));
        }
        let dim = self.rotary_dim(head_dim)?;
        let scaled = |scaling| Ok(RopeTable::scaled(dim, positions, theta, &scaling)?);
        match f.rope_type.as_deref().or(f.kind.as_deref()).unwrap_or("default") {
            "default" => scaled(RopeScaling::None),
            "linear" => scaled(RopeScaling::Linear { factor: need("factor", f.factor)? }),
            "dynamic" => scaled(self.dynamic(positions)?),
            "llama3" => scaled(RopeScaling::Llama3 {
                factor: need("factor", f.factor)?,
                original_positions: self.trained()?,
                low_frequency: need("low_freq_factor", f.low_freq_factor)?,
                high_frequency: need("high_freq_factor", f.high_freq_factor)?,
            }),
            "yarn" => scaled(self.yarn()?),
            "longrope" | "su" => self.longrope(dim, positions, theta),
            "proportional" => {
                let by = f.factor.unwrap_or(1.0);
                let pairs = 0..head_dim / 2;
                // An infinite factor is a frequency of 0: the pair does not turn.
                let factors: Vec<f64> = pairs.map(|i| if i < dim / 2 { by } else { f64::INFINITY }).collect();
                Ok(RopeTable::with_factors(&factors, positions, theta, 1.0)?)
            }
            other => Err(Error::field(
                "rope_type",
                other,
                "default, linear, dynamic, llama3, yarn, longrope or proportional",
            )),
        }
    }

    /// Elements of a head that turn.
    fn rotary_dim(&self, head_dim: usize) -> Result<usize> {
        let part = self.fields.partial_rotary_factor.unwrap_or(1.0);
        if !(part > 0.0 && part <= 1.0) {
            return Err(Error::field("partial_rotary_factor", part, "above 0 and at most 1"));
        }
        Ok((head_dim as f64 * part) as usize)
    }

    /// Positions of the trained context.
    fn trained(&self) -> Result<usize> {
        let trained = self.fields.original_max_position_embeddings.or(self.max_positions);
        need("original_max_position_embeddings", trained)
    }

    fn dynamic(&self, positions: usize) -> Result<RopeScaling> {
        let factor = need("factor", self.fields.factor)?;
        let trained = need("max_position_embeddings", self.max_positions)?;
        if positions <= trained {
            return Ok(RopeScaling::None);
        }
        let ratio = positions as f64 / trained as f64;
        Ok(RopeScaling::Ntk { factor: factor * ratio - (factor - 1.0) })
    }

    fn yarn(&self) -> Result<RopeScaling> {
        let f = &self.fields;
        let factor = need("factor", f.factor)?;
        // A scale of 0 counts as absent.
        let scale = |by: Option<f64>| by.filter(|&by| by != 0.0).map(|by| yarn_mscale(factor, by));
        let amplitude = match (scale(f.mscale), scale(f.mscale_all_dim)) {
            (Some(mscale), Some(all_dim)) => mscale / all_dim,
            _ => yarn_mscale(factor, 1.0),
        };
        Ok(RopeScaling::Yarn {
            factor,
            original_positions: self.trained()?,
            beta_fast: f.beta_fast.unwrap_or(32.0),
            beta_slow: f.beta_slow.unwrap_or(1.0),
            attention_factor: Some(f.attention_factor.unwrap_or(amplitude)),
            round_ramp: f.truncate.unwrap_or(true),
        })
    }

    fn longrope(&self, dim: usize, positions: usize, theta: f64) -> Result<RopeTable> {
        let f = &self.fields;
        let trained = self.trained()?;
        let (name, factors) = if positions > trained {
            ("long_factor", &f.long_factor)
        } else {
            ("short_factor", &f.short_factor)
        };
        let factors = need(name, factors.as_ref())?;
        if factors.len() != dim / 2 {
            let allowed = format!("of {} numbers, one for each pair", dim / 2);
            return Err(Error::field(&format!("{name}.len"), factors.len(), &allowed));
        }
        let ratio = match (f.original_max_position_embeddings, self.max_positions) {
            (Some(original), Some(most)) => most as f64 / original as f64,
            _ => f.factor.unwrap_or(1.0),
        };
        let amplitude =
            if ratio <= 1.0 { 1.0 } else { (1.0 + libm::log(ratio) / libm::log(trained as f64)).sqrt() };
        let amplitude = f.attention_factor.unwrap_or(amplitude);
        Ok(RopeTable::with_factors(factors, positions, theta, amplitude)?)
    }
}

/// `0.1 * by * ln(factor) + 1`, and 1 for a factor up to 1: the amplitude of YaRN (Peng et al. 2023), whose
/// square DeepSeek multiplies its scores by.
pub fn yarn_mscale(factor: f64, by: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * by * libm::log(factor) + 1.0 }
}

/// Fields of the configuration that may stand beside those of the rotation.
#[derive(Deserialize)]
struct Beside {
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    max_position_embeddings: Option<usize>,
}

fn read(fields: &Value) -> Result<Fields> {
    Fields::deserialize(fields).map_err(config_error)
}

fn config_error(error: serde_json::Error) -> Error {
    Error::Config { reason: error.to_string() }
}

/// A field that the type of rotation needs.
fn need<T>(name: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::Config { reason: format!("the rotation lacks the field {name}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The angle of the last pair at position 1, and the amplitude.
    fn last_pair(config: Value, head_dim: usize, positions: usize) -> (f64, f64) {
        let table = RopeConfig::read(&config, None).unwrap().table(head_dim, positions).unwrap();
        let (cos, sin) = table.row(1).unwrap();
        let (cos, sin) = (f64::from(*cos.last().unwrap()), f64::from(*sin.last().unwrap()));
        (sin.atan2(cos), sin.hypot(cos))
    }

    #[track_caller]
    fn close(got: (f64, f64), want: (f64, f64)) {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(near(got.0, want.0) && near(got.1, want.1), "{got:?} is not {want:?}");
    }

    #[test]
    fn older_and_newer_fields_mean_the_same() {
        let older = json!({"rope_theta": 100.0,
            "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 4}});
        let newer = json!({"rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 100.0}});
        for config in [older, newer] {
            close(last_pair(config, 4, 8), (0.1 / 4.0, 1.0));
        }
    }

    #[test]
    fn layer_types_have_their_own_rotation() {
        let newer = json!({"rope_parameters": {
            "full_attention": {"rope_theta": 10000.0}, "sliding_attention": {"rope_theta": 100.0}}});
        let older = json!({"rope_theta": 10000.0, "rope_local_base_freq": 100.0});
        for config in [newer, older] {
            for (layer, sine) in [("full_attention", 0.01f32), ("sliding_attention", 0.1)] {
                let table = RopeConfig::read(&config, Some(layer)).unwrap().table(4, 8).unwrap();
                assert!((table.row(1).unwrap().1[1] - sine).abs() < 1e-3, "{layer}");
            }
        }
    }

    #[test]
    fn a_part_of_the_head_turns() {
        let config = json!({"partial_rotary_factor": 0.5, "rope_theta": 100.0});
        assert_eq!(RopeConfig::read(&config, None).unwrap().table(8, 4).unwrap().rotary_dim(), 4);
        let kept = json!({"rope_parameters": {"rope_type": "proportional", "partial_rotary_factor": 0.5}});
        assert_eq!(RopeConfig::read(&kept, None).unwrap().table(8, 4).unwrap().rotary_dim(), 8);
        close(last_pair(kept, 8, 4), (0.0, 1.0));
    }

    #[test]
    fn dynamic_scaling_begins_beyond_the_trained_context() {
        let config = json!({"max_position_embeddings": 8, "rope_theta": 100.0,
                            "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}});
        close(last_pair(config.clone(), 4, 8), (0.1, 1.0));
        // The lowest frequency is divided by 2 * 16 / 8 - 1 = 3.
        close(last_pair(config, 4, 16), (0.1 / 3.0, 1.0));
    }

    #[test]
    fn longrope_takes_the_factors_of_its_length() {
        let config = json!({"max_position_embeddings": 32, "original_max_position_embeddings": 8,
            "rope_theta": 100.0,
            "rope_scaling": {"type": "su", "short_factor": [1.0, 2.0], "long_factor": [1.0, 5.0]}});
        let amplitude = (1.0 + 4f64.ln() / 8f64.ln()).sqrt();
        close(last_pair(config.clone(), 4, 8), (0.1 / 2.0, amplitude));
        close(last_pair(config, 4, 9), (0.1 / 5.0, amplitude));
    }

    #[test]
    fn yarn_has_the_amplitude_of_its_fields() {
        let with = |field: &str, value: f64| {
            let mut config = json!({"rope_parameters": {"rope_type": "yarn", "factor": 4.0,
                "original_max_position_embeddings": 16, "mscale_all_dim": 0.5}});
            config["rope_parameters"][field] = value.into();
            last_pair(config, 8, 4).1
        };
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        near(with("mscale", 0.0), yarn_mscale(4.0, 1.0));
        near(with("mscale", 1.0), yarn_mscale(4.0, 1.0) / yarn_mscale(4.0, 0.5));
        near(with("attention_factor", 1.25), 1.25);
    }

    #[test]
    fn what_a_rotation_lacks_is_named() {
        for (config, word) in [
            (json!({"rope_parameters": {"rope_type": "linear"}}), "factor"),
            (json!({"rope_parameters": {"rope_type": "spiral"}}), "spiral"),
            (json!({"partial_rotary_factor": 2.0}), "partial_rotary_factor = 2"),
            (json!({"rope_scaling": {"type": "su", "short_factor": [1.0]}}), "original_max_position"),
            (
                json!({"max_position_embeddings": 8,
                    "rope_scaling": {"type": "su", "short_factor": [1.0]}}),
                "short_factor.len = 1",
            ),
        ] {
            let error = RopeConfig::read(&config, None).and_then(|rope| rope.table(8, 4)).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
