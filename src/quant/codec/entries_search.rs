//! The quantisers of the formats with codebooks: the scale, entries and signs that leave the least squared
//! error, every weight counting the same.
//!
//! For a scale s the best entry of a unit (the 4 or 8 elements of one index) has the most `<x, v> / s - |v|^2
//! / 2`. The products `<x, v>` do not depend on s, so that all entries are multiplied once and each scale of
//! a search costs one pass over them. As in the other searches, each sub-block is fitted alone; then its
//! scale has to become an odd integer times d, and d is fitted to the integers and entries chosen.

use super::block::{Codec, Decoded, MAX_SUBS};
use super::coarse::{self, stored};
use super::fit::inverse;
use super::search::limited;
use crate::kernels::codebooks::{Codebook, One};
use half::f16;

/// Entries of the largest codebook, and units of a sub-block at most.
const MOST: usize = 2048;
const UNITS: usize = 8;

/// Rounds of choosing integers and fitting d, as [`super::search`].
const ROUNDS: usize = 3;

/// Steps of alternation between entries and scale of a sub-block at most.
const DESCENTS: usize = 4;

/// Which of 1 and -1 is added to the elements of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shifts {
    None,
    OfSub,
    OfUnit,
}

/// What is added to elements: 0, or 1 and, of the second kind, -1.
fn shift(shifts: Shifts, which: usize) -> f32 {
    if shifts == Shifts::None { 0.0 } else { 1.0 - 2.0 * which as f32 }
}

/// A codebook, and `|v|^2 / 2` of each entry, shifted up and down where there are shifts. Its numbers are
/// values here, not types: a search for each codebook would be 40 KB of the library.
struct Norms {
    words: &'static [u32],
    width: usize,
    offset: i32,
    entries: usize,
    shifts: Shifts,
    halves: [[f32; MOST]; 2],
}

impl Norms {
    fn shift(&self, which: usize) -> f32 {
        shift(self.shifts, which)
    }

    fn of<B: Codebook>(shifts: Shifts) -> Norms {
        let entries = B::words().len() * 4 / B::WIDTH;
        let mut halves = [[0.0; MOST]; 2];
        for (which, halves) in halves.iter_mut().enumerate() {
            let shift = shift(shifts, which);
            for (n, half) in halves[..entries].iter_mut().enumerate() {
                let values = (0..B::WIDTH).map(|i| f32::from(B::value(n, i)) + shift);
                *half = values.map(|v| v * v).sum::<f32>() / 2.0;
            }
        }
        Norms { words: B::words(), width: B::WIDTH, offset: B::OFFSET as i32, entries, shifts, halves }
    }
}

/// A sub-block: the products of its units with all entries.
struct Sub {
    units: usize,
    dots: [f32; UNITS * 1024], // (units, entries)
    sums: [f32; UNITS],
}

/// Entries for one scale: `<x, v>` and `|v|^2` over the sub-block.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    dot: f32,
    norm: f32,
    index: [u16; UNITS],
    /// Whether the shift of each unit is -1.
    down: [bool; UNITS],
}

const NONE: Chosen = Chosen { dot: 0.0, norm: 0.0, index: [0; UNITS], down: [false; UNITS] };

impl Chosen {
    /// The squared error with scale s, less that of zeros.
    fn error(&self, s: f32) -> f32 {
        s * (s * self.norm - 2.0 * self.dot)
    }
}

impl Sub {
    /// `x`: the elements with the signs that entries have to match.
    fn new(norms: &Norms, x: &[f32]) -> Sub {
        let units = x.len() / norms.width;
        let mut sub = Sub { units, dots: [0.0; UNITS * 1024], sums: [0.0; UNITS] };
        let dots = sub.dots.chunks_exact_mut(norms.entries);
        for (u, (x, dots)) in x.chunks_exact(norms.width).zip(dots).enumerate() {
            sub.sums[u] = x.iter().sum();
            for (i, x) in x.iter().enumerate() {
                let words = norms.words[i / 4..].iter().step_by(norms.width / 4);
                for (dot, word) in dots.iter_mut().zip(words) {
                    *dot += x * ((word >> (8 * (i % 4)) & 255) as i32 - norms.offset) as f32;
                }
            }
        }
        sub
    }

    /// The best entries for scale s.
    fn entries(&self, norms: &Norms, s: f32) -> Chosen {
        let per_scale = inverse(s);
        let (mut all, mut scores) = ([NONE; 2], [0.0f32; 2]);
        let kinds = if norms.shifts == Shifts::None { 1 } else { 2 };
        for (u, dots) in self.dots.chunks_exact(norms.entries).take(self.units).enumerate() {
            let mut found = [(0.0f32, 0usize); 2];
            for (which, found) in found[..kinds].iter_mut().enumerate() {
                let halves = &norms.halves[which][..norms.entries];
                let (score, n) = best(dots, halves, per_scale);
                *found = (score + norms.shift(which) * self.sums[u] * per_scale, n);
            }
            if norms.shifts == Shifts::OfUnit {
                let better = usize::from(found[1].0 > found[0].0);
                found = [found[better]; 2];
                all[0].down[u] = better == 1;
                all[1].down[u] = better == 1;
            } else {
                all[1].down[u] = true;
            }
            for which in 0..kinds {
                let (score, n) = found[which];
                let down = usize::from(all[which].down[u]);
                let shift = norms.shift(down);
                scores[which] += score;
                all[which].dot += dots[n] + shift * self.sums[u];
                all[which].norm += 2.0 * norms.halves[down][n];
                all[which].index[u] = n as u16;
            }
        }
        all[usize::from(kinds == 2 && scores[1] > scores[0])]
    }

    /// The gain over zeros of the entries for scale s, and the scale that these ask for.
    fn fitted(&self, norms: &Norms, s: f32) -> (f32, f32) {
        let chosen = self.entries(norms, s);
        let fitted = chosen.dot * inverse(chosen.norm);
        if fitted > 0.0 { (chosen.dot * fitted, fitted) } else { (0.0, 0.0) }
    }

    /// The scale of least error of those tried: multiples of `first`, then what the entries ask for.
    fn scale(&self, norms: &Norms, first: f32) -> f32 {
        let mut best = (0.0, 0.0);
        for i in 0..16u8 {
            let found = self.fitted(norms, first * (0.7 + 0.05 * f32::from(i)));
            best = if found.0 > best.0 { found } else { best };
        }
        for _ in 0..DESCENTS {
            let found = self.fitted(norms, best.1);
            if found.0 <= best.0 {
                break;
            }
            best = found;
        }
        best.1
    }
}

/// The most `dots / s - halves`, and the first entry that has it.
fn best(dots: &[f32], halves: &[f32], per_scale: f32) -> (f32, usize) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for (dots, halves) in dots.as_chunks::<16>().0.iter().zip(halves.as_chunks::<16>().0) {
        for (lane, (dot, half)) in lanes.iter_mut().zip(dots.iter().zip(halves)) {
            let score = dot * per_scale - half;
            *lane = if score > *lane { score } else { *lane };
        }
    }
    let most = lanes.iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
    let at = dots.iter().zip(halves).position(|(dot, half)| dot * per_scale - half == most);
    (most, at.unwrap_or(0))
}

/// A block as chosen: the gain over zeros, d as stored, t of the sub-blocks and their entries.
#[derive(Debug, Clone, Copy)]
struct Block {
    gain: f32,
    d: f32,
    t: [u8; MAX_SUBS],
    chosen: [Chosen; MAX_SUBS],
}

/// The block of the entries nearest to `x`. `first`: the scale at which the search of a sub-block starts.
fn search(codec: &Codec, norms: &Norms, x: &[f32], first: fn(&Norms, &[f32]) -> f32) -> Block {
    let per_sub = codec.sub_len;
    let (top, unit) = (f32::from(codec.scales.1), codec.unit());
    let mut fitted = [0.0f32; MAX_SUBS];
    for (fitted, x) in fitted.iter_mut().zip(x.chunks_exact(per_sub)) {
        *fitted = Sub::new(norms, x).scale(norms, first(norms, x));
    }
    let most = fitted.iter().fold(0.0f32, |most, &s| most.max(s));
    let mut best = Block { gain: 0.0, d: 0.0, t: [0; MAX_SUBS], chosen: [NONE; MAX_SUBS] };
    for start in coarse::multiples(most / top / unit, 2) {
        best = rounds(codec, norms, x, &fitted, start, best);
    }
    best
}

/// The best of `best` and of the blocks of the rounds that start with d and the fitted scales.
fn rounds(
    codec: &Codec,
    norms: &Norms,
    x: &[f32],
    fitted: &[f32; MAX_SUBS],
    mut d: f32,
    mut best: Block,
) -> Block {
    let (top, unit) = (f32::from(codec.scales.1), codec.unit());
    for _ in 0..ROUNDS {
        let mut block = Block { d, ..best };
        (block.gain, block.t) = (0.0, [0; MAX_SUBS]);
        let (mut dot, mut norm) = (0.0, 0.0);
        for (i, x) in x.chunks_exact(codec.sub_len).enumerate() {
            let sub = Sub::new(norms, x);
            let centre = (fitted[i] * inverse(2.0 * d * unit)).clamp(0.0, top) as i32;
            let mut least = (f32::INFINITY, 0, NONE);
            for t in [centre, centre - 1, centre + 1] {
                let t = t.clamp(0, (i32::from(codec.scales.1) - 1) / 2);
                let s = d * unit * (2 * t + 1) as f32;
                let chosen = sub.entries(norms, s);
                let error = chosen.error(s);
                if error < least.0 {
                    least = (error, t, chosen);
                }
            }
            let (error, t, chosen) = least;
            (block.t[i], block.chosen[i]) = (t as u8, chosen);
            block.gain -= error;
            let odd = (2 * t + 1) as f32 * unit;
            dot += odd * chosen.dot;
            norm += odd * odd * chosen.norm;
        }
        best = if block.gain > best.gain { block } else { best };
        let next = stored(dot * inverse(norm));
        if next == d || next <= 0.0 {
            break;
        }
        d = next;
    }
    best
}

/// IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S; `HIGH` as in [`super::entries`].
pub(super) fn signed<B: Codebook, const HIGH: u8>(codec: &Codec, x: &[f32], out: &mut Decoded) {
    let mut x = limited(x);
    let mut signs = [0u8; 32];
    for (signs, x) in signs.iter_mut().zip(x.as_chunks_mut::<8>().0) {
        *signs = (0..8).fold(0, |signs, i| signs | u8::from(x[i] < 0.0) << i);
        if HIGH < 2 && signs.count_ones() % 2 == 1 {
            // An even number of signs can be stored: the least element gives way.
            let least = (1..8).fold(0, |least, i| if x[i].abs() < x[least].abs() { i } else { least });
            *signs ^= 1 << least;
        }
        x.iter_mut().enumerate().for_each(|(i, x)| *x = if *signs >> i & 1 == 1 { -*x } else { *x });
    }
    let norms = Norms::of::<B>(Shifts::None);
    let block = search(codec, &norms, &x, |norms, x| {
        let bytes = norms.words.iter().flat_map(|word| word.to_le_bytes()).max().unwrap_or(255);
        x.iter().fold(0.0f32, |m, x| m.max(x.abs())) / (i32::from(bytes) - norms.offset) as f32
    });
    out.d = f16::from_f32(block.d).to_bits();
    let (entries, units) = (32 / B::WIDTH, codec.sub_len / B::WIDTH);
    for (b, codes) in out.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        codes.fill(0);
        let sign = |n: usize| u32::from(signs[4 * b + n]);
        let mut word = match HIGH {
            2 => (0..4).fold(0, |word, n| word | sign(n) << (8 * n)),
            _ => (0..4).fold(0, |word, n| word | (sign(n) & 127) << (7 * n)),
        };
        for n in 0..entries {
            let unit = b * entries + n;
            let index = block.chosen[unit / units].index[unit % units];
            codes[n] = index as u8;
            match HIGH {
                0 => {}
                1 => word |= u32::from(index >> 8) << (28 + n),
                _ => codes[entries + 4] |= ((index >> 8) << (8 / entries * n)) as u8,
            }
        }
        if HIGH == 0 {
            word |= u32::from(block.t[b]) << 28;
        }
        codes[entries..entries + 4].copy_from_slice(&word.to_le_bytes());
    }
    put_scales(codec, &block, out);
}

/// IQ1_S, and IQ1_M where `NIBBLES`.
pub(super) fn shifted<const NIBBLES: bool>(codec: &Codec, x: &[f32], out: &mut Decoded) {
    let x = limited(x);
    let norms = Norms::of::<One>(if NIBBLES { Shifts::OfUnit } else { Shifts::OfSub });
    // The elements of entries are 8 times -1, 0, 1.
    let block =
        search(codec, &norms, &x, |_, x| 1.1 * x.iter().map(|x| x.abs()).sum::<f32>() / x.len() as f32 / 8.0);
    out.d = f16::from_f32(block.d).to_bits();
    let units = codec.sub_len / 8;
    for (b, codes) in out.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        codes.fill(0);
        let mut rest = 0u16;
        for (n, code) in codes[..4].iter_mut().enumerate() {
            let (chosen, unit) = (&block.chosen[(4 * b + n) / units], (4 * b + n) % units);
            *code = chosen.index[unit] as u8;
            let (high, down) = (chosen.index[unit] >> 8, u16::from(chosen.down[unit]));
            rest |= if NIBBLES { (high | down << 3) << (4 * n) } else { high << (3 * n) | down << 15 };
        }
        if !NIBBLES {
            rest |= u16::from(block.t[b]) << 12;
        }
        codes[4..6].copy_from_slice(&rest.to_le_bytes());
    }
    put_scales(codec, &block, out);
}

fn put_scales(codec: &Codec, block: &Block, out: &mut Decoded) {
    for (scale, t) in out.scales[..codec.subs()].iter_mut().zip(block.t) {
        *scale = (2 * t + 1) as i8;
    }
}
