//! Rotary tables of published models: against frequencies of another implementation, and against the formulas
//! of the papers and model cards, written out in f64 in terms of wavelengths.

use crate::support::Random;
use kvern::ops::{RopeScaling, RopeTable};
use std::f64::consts::PI;

/// As model configurations spell it: the fields of `rope_scaling`.
#[derive(Clone, Copy, Debug)]
enum Published {
    Default,
    Linear {
        factor: f64,
    },
    /// `dynamic`, once `seen` tokens have been seen.
    Dynamic {
        factor: f64,
        trained: f64,
        seen: f64,
    },
    Yarn {
        factor: f64,
        original: usize,
        beta: [f64; 2],
        truncate: bool,
        amplitude: Amplitude,
    },
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: usize,
    },
}
use Published::{Default, Dynamic, Linear, Llama3, Yarn};

#[derive(Clone, Copy, Debug)]
enum Amplitude {
    /// Neither `attention_factor` nor `mscale`.
    Usual,
    /// `attention_factor`.
    Given(f64),
    /// `mscale` and `mscale_all_dim`.
    Mscale([f64; 2]),
}
use Amplitude::{Given, Mscale, Usual};

const PAPER: [f64; 2] = [32.0, 1.0];

/// A model: rotated elements of a head, base, scaling.
type Model = (&'static str, usize, f64, Published);

const MODELS: [Model; 26] = [
    ("GPT-NeoX 20B", 24, 1e4, Default),
    ("Llama 2 7B", 128, 1e4, Default),
    ("Code Llama 7B", 128, 1e6, Default),
    ("Llama 3 8B", 128, 5e5, Default),
    ("Llama 3.1 8B", 128, 5e5, Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192 }),
    ("Llama 3.2 1B", 64, 5e5, Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192 }),
    ("Llama 3.3 70B", 128, 5e5, Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192 }),
    ("Llama 4 Scout", 128, 5e5, Llama3 { factor: 16.0, low: 1.0, high: 1.0, original: 8192 }),
    ("Mistral 7B v0.1", 128, 1e4, Default),
    ("Mistral Nemo", 128, 1e6, Default),
    ("Yi 34B", 128, 5e6, Default),
    ("Phi-2", 32, 1e4, Default),
    ("Phi-3 mini 4k", 96, 1e4, Default),
    ("Gemma 2 9B", 256, 1e4, Default),
    ("Gemma 3 4B, local layers", 256, 1e4, Default),
    ("Gemma 3 4B, global layers", 256, 1e6, Linear { factor: 8.0 }),
    ("Qwen 2.5 7B", 128, 1e6, Default),
    ("Qwen 2.5 7B, long", 128, 1e6, yarn(4.0, 32768, true, Usual)),
    ("Qwen 3 8B, long", 128, 1e6, yarn(4.0, 32768, true, Usual)),
    ("Qwen 3 Next", 64, 1e7, Default),
    ("GLM-4 9B", 64, 1e4, Default),
    ("DeepSeek V2 Lite", 64, 1e4, yarn(40.0, 4096, true, Mscale([0.707, 0.707]))),
    ("DeepSeek V3", 64, 1e4, yarn(40.0, 4096, true, Mscale([1.0, 1.0]))),
    ("OLMo 3 7B", 128, 5e5, yarn(8.0, 8192, true, Given(1.2079441541679836))),
    ("gpt-oss 20B", 64, 150_000.0, yarn(32.0, 4096, false, Usual)),
    ("Llama 2 7B, dynamic", 128, 1e4, Dynamic { factor: 2.0, trained: 4096.0, seen: 8192.0 }),
];

const fn yarn(factor: f64, original: usize, truncate: bool, amplitude: Amplitude) -> Published {
    Yarn { factor, original, beta: PAPER, truncate, amplitude }
}

impl Published {
    /// The formula: frequencies of `dim / 2` pairs, and the amplitude.
    fn formula(self, dim: usize, base: f64) -> (Vec<f64>, f64) {
        let d = dim as f64;
        // Powers by `libm`, as the table's: those of the C library of Windows are off by several units in the
        // last place.
        let plain = |base: f64| (0..dim / 2).map(move |i| 1.0 / libm::pow(base, 2.0 * i as f64 / d));
        match self {
            Default => (plain(base).collect(), 1.0),
            Linear { factor } => (plain(base).map(|f| f / factor).collect(), 1.0),
            Dynamic { factor, trained, seen } => {
                let by = factor * seen / trained - (factor - 1.0);
                (plain(base * libm::pow(by, d / (d - 2.0))).collect(), 1.0)
            }
            Yarn { factor, original, beta: [fast, slow], truncate, amplitude } => {
                // The pair (as a real number) whose wavelength is original / turns: base^(2i / d) =
                // wavelength / 2 pi.
                let pair = |turns: f64| (original as f64 / turns / (2.0 * PI)).ln() / base.ln() * d / 2.0;
                let (mut low, mut high) = (pair(fast), pair(slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(d - 1.0));
                if low == high {
                    high += 0.001;
                }
                let stays = |i: usize| 1.0 - ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                let blend = |(i, f): (usize, f64)| f / factor * (1.0 - stays(i)) + f * stays(i);
                let mscale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
                let amplitude = match amplitude {
                    Usual => mscale(1.0),
                    Given(by) => by,
                    Mscale([one, all]) => mscale(one) / mscale(all),
                };
                (plain(base).enumerate().map(blend).collect(), amplitude)
            }
            Llama3 { factor, low, high, original } => {
                let (longest, shortest) = (original as f64 / low, original as f64 / high);
                let scaled = |f: f64| {
                    let wavelength = 2.0 * PI / f;
                    if wavelength > longest {
                        f / factor
                    } else if wavelength < shortest || low == high {
                        f
                    } else {
                        let smooth = (original as f64 / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                };
                (plain(base).map(scaled).collect(), 1.0)
            }
        }
    }

    /// What a user of the library writes for it.
    fn ours(self) -> RopeScaling {
        match self {
            Default => RopeScaling::None,
            Linear { factor } => RopeScaling::Linear { factor },
            Dynamic { factor, trained, seen } => {
                RopeScaling::Ntk { factor: factor * seen / trained - (factor - 1.0) }
            }
            Yarn { factor, original, beta: [beta_fast, beta_slow], truncate, amplitude } => {
                RopeScaling::Yarn {
                    factor,
                    original_positions: original,
                    beta_fast,
                    beta_slow,
                    attention_factor: match amplitude {
                        Usual => None,
                        Given(by) => Some(by),
                        Mscale([one, all]) => {
                            Some((0.1 * one * factor.ln() + 1.0) / (0.1 * all * factor.ln() + 1.0))
                        }
                    },
                    round_ramp: truncate,
                }
            }
            Llama3 { factor, low, high, original } => RopeScaling::Llama3 {
                factor,
                original_positions: original,
                low_frequency: low,
                high_frequency: high,
            },
        }
    }
}

/// Checks every pair at some positions: one rounding to f32, and what f64 loses in an angle.
fn check(what: &str, table: &RopeTable, frequencies: &[f64], amplitude: f64) {
    assert_eq!(table.rotary_dim(), 2 * frequencies.len(), "{what}");
    for position in [0, 1, 2, 77, table.positions() - 1] {
        let (cos, sin) = table.row(position).unwrap();
        for (i, f) in frequencies.iter().enumerate() {
            let angle = position as f64 * f;
            for (got, want) in [(cos[i], amplitude * angle.cos()), (sin[i], amplitude * angle.sin())] {
                let error = (f64::from(got) - want).abs();
                let most = 2f64.powi(-24) * want.abs() * 1.001 + 4e-15 * amplitude * angle;
                assert!(error <= most, "{what}: pair {i} at {position}: {got} is not {want}");
            }
        }
    }
}

#[test]
fn tables_have_the_frequencies_of_another_implementation() {
    let cases = [
        ("default", 64, 1e4, Default),
        ("theta_1e6", 64, 1e6, Default),
        ("linear", 64, 1e4, Linear { factor: 8.0 }),
        ("llama3", 64, 5e5, Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192 }),
        ("yarn", 64, 1e6, yarn(4.0, 32768, true, Usual)),
        ("yarn_untruncated", 64, 150_000.0, yarn(32.0, 4096, false, Usual)),
        ("yarn_mscale", 64, 1e4, yarn(40.0, 4096, true, Mscale([1.0, 1.0]))),
        ("yarn_given_amplitude", 64, 5e5, yarn(8.0, 8192, true, Given(1.2079441541679836))),
        ("dynamic_ntk_8192", 64, 1e4, Dynamic { factor: 2.0, trained: 4096.0, seen: 8192.0 }),
        ("partial_interleaved", 32, 1e4, Default),
        ("partial_quarter", 16, 1e7, Default),
    ];
    let fixture = include_str!("../fixtures/rope_frequencies.tsv");
    let rows: Vec<_> = fixture.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(rows.len(), cases.len());
    for (row, (name, dim, base, published)) in rows.into_iter().zip(cases) {
        let mut fields = row.split('\t');
        assert_eq!(fields.next(), Some(name));
        let mut numbers = fields.map(|x| x.parse::<f64>().unwrap());
        let amplitude = numbers.next().unwrap();
        let frequencies: Vec<f64> = numbers.collect();
        let table = RopeTable::scaled(dim, 100, base, &published.ours()).unwrap();
        check(name, &table, &frequencies, amplitude);
        // And so the formulas of this file, which the other tests use.
        let (formula, size) = published.formula(dim, base);
        assert!((size - amplitude).abs() < 1e-15 * amplitude, "{name}: {size}");
        for (got, want) in formula.iter().zip(&frequencies) {
            assert!((got - want).abs() <= 2e-15 * want, "{name}: {got} is not {want}");
        }
    }
}

#[test]
fn published_models_have_the_frequencies_of_their_formulas() {
    for (name, dim, base, published) in MODELS {
        let (frequencies, amplitude) = published.formula(dim, base);
        let table = RopeTable::scaled(dim, 200, base, &published.ours()).unwrap();
        check(name, &table, &frequencies, amplitude);
    }
    // gpt-oss, pair 17: rounded ends of the ramp would give 1.45e-4.
    let (gpt_oss, _) = yarn(32.0, 4096, false, Usual).formula(64, 150_000.0);
    assert!((gpt_oss[17] - 1.2932e-4).abs() < 5e-9, "{}", gpt_oss[17]);
}

#[test]
fn random_scalings_have_the_frequencies_of_their_formulas() {
    let mut r = Random::new(21);
    let mut between = |low: f64, high: f64| low * (high / low).powf(f64::from(r.f32()) * 0.5 + 0.5);
    for round in 0..400 {
        let dim = 2 * between(2.0, 130.0) as usize;
        let base = between(50.0, 1e7);
        let (factor, original) = (between(0.5, 64.0), between(16.0, 2e5) as usize);
        let slow = between(0.2, 8.0);
        let published = match round % 6 {
            0 => Linear { factor },
            1 => Dynamic { factor: factor.max(1.0), trained: 4096.0, seen: between(4096.0, 1e5) },
            2 => yarn(factor, original, true, Usual),
            3 | 4 => {
                let beta = [slow * between(1.01, 64.0), slow];
                Yarn { factor, original, beta, truncate: round % 6 == 3, amplitude: Given(between(0.5, 2.0)) }
            }
            _ => {
                let high = if round % 12 == 5 { slow } else { slow * between(1.01, 16.0) };
                Llama3 { factor, low: slow, high, original }
            }
        };
        let (frequencies, amplitude) = published.formula(dim, base);
        let table = RopeTable::scaled(dim, 80, base, &published.ours()).unwrap();
        check(&format!("{published:?}, {dim} elements, base {base}"), &table, &frequencies, amplitude);
    }
}
