//! The scale of one sub-block, and its minimum, that leave the least squared error.
//!
//! Codes and scale depend on each other: for given codes the best scale is a quotient of sums (least
//! squares), for a given scale the best codes are the nearest. So a few scales around `absmax / largest
//! code` are tried, the best one is kept, and the two steps alternate from there until nothing improves.
//! Sums run in 16 lanes that are folded in a fixed order: the same bits on every machine.

/// The values that a code can stand for, times a scale.
pub(super) trait Grid: Copy {
    /// The value nearest to `t`, which is finite.
    fn nearest(self, t: f32) -> f32;
    /// The value of largest magnitude, and by how much its counterpart is varied in a search.
    fn reach(self) -> (f32, f32);
    /// The value that is closest to its counterpart of the other sign, if none has an exact one: elements of
    /// one magnitude fit there.
    fn twin(self) -> Option<f32>;
    /// The multiples of that variation which are tried, to either side.
    fn steps(self) -> i8 {
        9
    }
}

/// The integers `lo..=hi`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Integers {
    pub lo: f32,
    pub hi: f32,
}

impl Grid for Integers {
    fn nearest(self, t: f32) -> f32 {
        round(t.clamp(self.lo, self.hi))
    }

    fn reach(self) -> (f32, f32) {
        (if self.hi > -self.lo { self.hi } else { self.lo }, 0.1)
    }

    fn twin(self) -> Option<f32> {
        None
    }

    /// With few integers the best scale may cut off most of the largest element, or turn its sign.
    fn steps(self) -> i8 {
        if self.hi - self.lo < 4.0 { 90 } else { 9 }
    }
}

/// Sorted values of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub values: &'a [f32; 16],
}

impl Grid for Listed<'_> {
    fn nearest(self, t: f32) -> f32 {
        let mut nearest = self.values[0];
        for pair in self.values.windows(2) {
            // Twice the midpoint: exact for integers.
            nearest = if t + t > pair[0] + pair[1] { pair[1] } else { nearest };
        }
        nearest
    }

    fn reach(self) -> (f32, f32) {
        (self.values[0], 1.5)
    }

    fn twin(self) -> Option<f32> {
        let apart = |v: f32| (v + self.nearest(-v)).abs() / v;
        self.values.iter().copied().filter(|v| *v > 0.0).min_by(|a, b| apart(*a).total_cmp(&apart(*b)))
    }
}

/// Half to even, for `|x| < 2^22`: two additions that vectorise, where the library function is a call.
pub(super) fn round(x: f32) -> f32 {
    const ULP_IS_ONE: f32 = 12_582_912.0; // 1.5 * 2^23
    (x + ULP_IS_ONE) - ULP_IS_ONE
}

/// `1 / x`, or 0 for 0 and for what has no finite inverse.
pub(super) fn inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The sum over elements of N terms each.
pub(super) fn sums<const N: usize>(x: &[f32], term: impl Fn(f32) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0.0f32; 16]; N];
    for x in x.as_chunks::<16>().0 {
        for (lane, &x) in x.iter().enumerate() {
            let terms = term(x);
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    }
    lanes.map(|mut lanes| {
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        lanes[0]
    })
}

/// Steps of alternation at most; three are the most that random blocks take.
const DESCENTS: usize = 4;

/// The s of least `sum of (x - s * value)^2` that the search finds, 0 for zeros. Negative where the longer
/// side of the grid is needed for positive elements. **Shapes**: `x`: whole blocks of 16.
pub(super) fn scale(grid: impl Grid, x: &[f32]) -> f32 {
    let extreme = x.iter().fold(0.0f32, |e, &x| if x.abs() > e.abs() { x } else { e });
    let (reach, step) = grid.reach();
    let (reach, step) = (reach * inverse(extreme), step * inverse(extreme));
    // The squared error is that of zeros minus the gain.
    let attempt = |inverse_scale: f32| {
        let [xv, vv] = sums(x, |x| {
            let v = grid.nearest(x * inverse_scale);
            [x * v, v * v]
        });
        (xv * xv * inverse(vv), xv * inverse(vv))
    };
    let mut best = (0.0, 0.0);
    for i in -grid.steps()..=grid.steps() {
        let found = attempt(reach + step * f32::from(i));
        best = if found.0 > best.0 { found } else { best };
    }
    if let Some(twin) = grid.twin() {
        let found = attempt(twin * inverse(extreme.abs()));
        best = if found.0 > best.0 { found } else { best };
    }
    for _ in 0..DESCENTS {
        let found = attempt(inverse(best.1));
        if found.0 <= best.0 {
            break;
        }
        best = found;
    }
    best.1
}

/// The s and m, both at least 0, of least `sum of (x - (s * code - m))^2` that the search finds, with codes
/// in 0..=`top`. **Shapes**: `x`: whole blocks of 16.
pub(super) fn scale_and_min(top: f32, x: &[f32]) -> (f32, f32) {
    let low = x.iter().fold(0.0f32, |low, &x| low.min(x));
    let high = x.iter().fold(low, |high, &x| high.max(x));
    let count = x.len() as f32;
    let [sum_x, zero_error] = sums(x, |x| [x, x * x]);
    // (squared error, s, m) of the codes nearest for a scale and a minimum.
    let attempt = |inverse_scale: f32, min: f32| {
        let [q, qq, xq] = sums(x, |x| {
            let q = round(((x + min) * inverse_scale).clamp(0.0, top));
            [q, q * q, x * q]
        });
        let mut s = (count * xq - sum_x * q) * inverse(count * qq - q * q);
        let mut m = (s * q - sum_x) / count;
        if m < 0.0 || s <= 0.0 {
            (s, m) = (xq * inverse(qq), 0.0);
        }
        // The residual of least squares is orthogonal to the codes, and to ones unless m was clamped to 0.
        (zero_error - s * xq + m * sum_x, s, m)
    };
    let mut best = (zero_error, 0.0, 0.0);
    // Equal negative elements have no spread to scale by: the minimum alone holds them.
    let mean = sum_x / count;
    if mean < 0.0 {
        best = (zero_error - sum_x * mean, 0.0, -mean);
    }
    let per_spread = inverse(high - low);
    for i in -10..=10i8 {
        let found = attempt((top + 0.1 * f32::from(i)) * per_spread, -low);
        best = if found.0 < best.0 && found.1 > 0.0 { found } else { best };
    }
    for _ in 0..DESCENTS {
        let found = attempt(inverse(best.1), best.2);
        if found.0 >= best.0 || found.1 <= 0.0 {
            break;
        }
        best = found;
    }
    (best.1, best.2)
}
