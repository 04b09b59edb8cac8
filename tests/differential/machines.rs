//! The contexts that a call runs on, and the outputs that it writes.

use crate::support::Random;
use kvern::{Context, ContextOptions, Isa, MatMut};
use std::fmt;

const WORKERS: [usize; 4] = [1, 2, 3, 7];

/// Every tier of the machine with every number of workers.
pub struct Machines {
    /// The scalar tier on the calling thread.
    pub definition: Context,
    /// A context for each number of workers, by tier; without dot instructions a tier counts once more.
    tiers: Vec<(String, [Context; WORKERS.len()])>,
}

impl Machines {
    pub fn new() -> Machines {
        let mut tiers = Vec::new();
        for isa in Isa::ALL {
            if !isa.is_available() {
                eprintln!("skipped: this machine has no {isa}");
                continue;
            }
            let options = ContextOptions::default().isa_cap(isa);
            let contexts = |options: &ContextOptions| {
                WORKERS.map(|workers| Context::new(&options.clone().threads(workers)).unwrap())
            };
            tiers.push((isa.to_string(), contexts(&options)));
            if isa == Isa::detect() {
                tiers.push((format!("{isa} without dots"), contexts(&options.no_dot_instructions())));
            }
        }
        let definition = Context::new(&ContextOptions::default().isa_cap(Isa::Scalar)).unwrap();
        Machines { definition, tiers }
    }

    /// For each tier the calling thread alone and one random number of workers.
    pub fn some(&self, random: &mut Random) -> Vec<(String, &Context)> {
        let mut chosen = Vec::new();
        for (name, contexts) in &self.tiers {
            for i in [0, 1 + random.below(WORKERS.len() - 1)] {
                chosen.push((format!("{name}, {} workers", WORKERS[i]), &contexts[i]));
            }
        }
        chosen
    }

    /// A context of any tier, for what may be packed at one tier and used at another.
    pub fn any(&self, random: &mut Random) -> &Context {
        &self.tiers[random.below(self.tiers.len())].1[0]
    }
}

impl fmt::Display for Machines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.tiers.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "{}, each with {WORKERS:?} workers", names.join(", "))
    }
}

/// A size up to `most`: often tiny or beside a multiple of 16.
pub fn size(random: &mut Random, most: usize) -> usize {
    let size = match random.below(8) {
        0 => random.below(4),
        1..=3 => 16 * (1 + random.below(most / 16 + 1)) + random.below(3) - 1,
        4 => most - random.below(3),
        _ => random.below(most + 1),
    };
    size.min(most)
}

/// Whether something happens that happens once in `n` times.
pub fn one_in(random: &mut Random, n: usize) -> bool {
    random.below(n) == 0
}

/// What a call writes: rows with gaps between them. What was not written keeps a mark, one for the definition
/// and one for everybody else, so that an element which both leave out is seen as well.
pub struct Out {
    pub data: Vec<f32>, // (rows, stride)
    rows: usize,
    cols: usize,
    stride: usize,
    mark: f32,
}

impl Out {
    pub fn of_definition(rows: usize, cols: usize, gap: usize) -> Out {
        Out::new(rows, cols, gap, -7.25e18)
    }

    pub fn of_others(rows: usize, cols: usize, gap: usize) -> Out {
        Out::new(rows, cols, gap, 3.5e21)
    }

    fn new(rows: usize, cols: usize, gap: usize, mark: f32) -> Out {
        let stride = cols + gap;
        Out { data: vec![mark; rows * stride], rows, cols, stride, mark }
    }

    /// Starts with these rows: what a call updates in place.
    pub fn fill(mut self, rows: &[f32]) -> Out {
        for i in 0..self.rows {
            let at = i * self.stride;
            self.data[at..at + self.cols].copy_from_slice(&rows[i * self.cols..(i + 1) * self.cols]);
        }
        self
    }

    pub fn view(&mut self) -> MatMut<'_> {
        MatMut::new(&mut self.data, self.rows, self.cols, self.stride).unwrap()
    }

    pub fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.stride + j]
    }

    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.stride..][..self.cols]
    }

    /// Asserts that rows `rows` of both agree in every bit, and that the gaps were left alone.
    #[track_caller]
    pub fn assert_rows(&self, rows: std::ops::Range<usize>, definition: &Out, what: &str) {
        let bits = |x: f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
        for (i, of_definition) in rows.clone().enumerate() {
            for j in 0..self.cols {
                let (got, want) = (self.at(i, j), definition.at(of_definition, j));
                let unwritten = got.to_bits() == self.mark.to_bits();
                let note = if unwritten { " (never written)" } else { "" };
                assert!(bits(got) == bits(want), "{what}: ({i}, {j}) is {got}{note} instead of {want}");
            }
        }
        for out in [self, definition] {
            let gaps = (0..out.data.len()).filter(|at| at % out.stride.max(1) >= out.cols);
            let touched = gaps.into_iter().find(|&at| out.data[at].to_bits() != out.mark.to_bits());
            assert!(touched.is_none(), "{what}: element {touched:?} lies between rows and was written");
        }
    }

    /// Asserts that all of both agrees in every bit.
    #[track_caller]
    pub fn assert_same(&self, definition: &Out, what: &str) {
        assert_eq!((self.rows, self.cols), (definition.rows, definition.cols), "{what}");
        self.assert_rows(0..self.rows, definition, what);
    }

    /// Asserts that an element lies within a bound around the exact value.
    #[track_caller]
    pub fn assert_near(&self, (i, j): (usize, usize), want: f64, bound: f64, what: &str) {
        let got = f64::from(self.at(i, j));
        let right = (got - want).abs() <= bound || got == want || (got.is_nan() && want.is_nan());
        assert!(right, "{what}: ({i}, {j}) is {got}, the oracle says {want}, bound {bound:e}");
    }
}
