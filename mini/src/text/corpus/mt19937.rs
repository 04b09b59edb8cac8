//! Python's `random.Random`, as far as the corpus needs it: an integer seed and `randint`, number for number
//! as CPython 3.2 and later give them.
//!
//! The generator is MT19937 (Matsumoto and Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed
//! uniform pseudo-random number generator", ACM TOMACS 8(1), 1998), seeded with its `init_by_array`.

use std::ops::RangeInclusive;

use rand_mt::Mt;

/// The stream of `random.Random(seed)`.
pub struct PythonRandom {
    generator: Mt,
}

impl PythonRandom {
    /// `random.seed(seed)` for an integer of up to 64 bits.
    ///
    /// CPython's key is the seed's 32-bit limbs, lowest first, without leading zero limbs: a seed below 2^32
    /// is a key of length one.
    pub fn new(seed: u64) -> Self {
        let limbs = [seed as u32, (seed >> 32) as u32];
        let length = if limbs[1] == 0 { 1 } else { 2 };
        Self { generator: Mt::new_with_key(limbs.into_iter().take(length)) }
    }

    /// `random.randint(first, last)`, both ends included, by `_randbelow_with_getrandbits`: draw as many bits
    /// as the range's width has, until the draw lies below the width.
    ///
    /// # Panics
    /// In debug builds, on an empty range or the full range of `u32`.
    pub fn randint(&mut self, range: RangeInclusive<u32>) -> u32 {
        let (first, last) = (*range.start(), *range.end());
        debug_assert!(first <= last && last - first < u32::MAX);
        let width = last - first + 1;
        let bits = u32::BITS - width.leading_zeros();
        loop {
            let draw = self.getrandbits(bits);
            if draw < width {
                return first + draw;
            }
        }
    }

    /// `random.getrandbits(bits)` for 1 to 32 bits: the top bits of one output.
    fn getrandbits(&mut self, bits: u32) -> u32 {
        self.generator.next_u32() >> (u32::BITS - bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each seed, the results of three `getrandbits(32)`, five `randint(1, 1000)` and one
    /// `getrandbits(7)`, from CPython 3.11.
    const CPYTHON: [(u64, [u32; 3], [u32; 5], u32); 4] = [
        (42, [2746317213, 478163327, 107420369], [760, 282, 251, 229, 143], 94),
        (0, [3626764237, 1654615998, 3255389356], [912, 431, 42, 266, 989], 65),
        ((1 << 40) + 7, [2635837658, 3209733218, 3500038837], [961, 968, 655, 585, 723], 60),
        (u64::MAX, [93740670, 1068495656, 1452108352], [634, 218, 468, 630, 98], 117),
    ];

    #[test]
    fn the_stream_is_cpythons() {
        for (seed, words, integers, bits) in CPYTHON {
            let mut random = PythonRandom::new(seed);
            assert_eq!(words.map(|_| random.getrandbits(32)), words, "seed {seed}");
            assert_eq!(integers.map(|_| random.randint(1..=1000)), integers);
            assert_eq!(random.getrandbits(7), bits);
        }
    }

    #[test]
    fn randint_stays_in_its_range() {
        let mut random = PythonRandom::new(1);
        assert!((0..1000).all(|_| (5..=7).contains(&random.randint(5..=7))));
        assert_eq!(random.randint(9..=9), 9);
    }
}
