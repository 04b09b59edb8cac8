//! The list of weight formats. Whatever has an entry for each format is made from this list: the public enum
//! with its names and sizes, the packings, the kernel tables of every tier, and the codecs. So no two orders
//! have to agree.
//!
//! A new format is, in this order:
//! 1. A line of the list, in the order of numbers.
//! 2. Its codec in `src/quant/codec`: a `static Codec` with the diagram of its bytes, its reader, its writer,
//!    and one of the quantisers that are there.
//! 3. Its `KVERN_WEIGHT_FORMAT_*` constant in `src/capi/quant.rs`, and the header that is generated from it.
//! 4. The number of formats in `CHANGELOG.md`.
//!
//! A superblock of a new kind is a type in [`quant_headers`](super::generic::quant_headers) besides, and
//! codes that are packed in a new way are one in [`quant_codes`](super::generic::quant_codes). Formats with
//! codebooks have theirs in [`codebooks`](super::generic::codebooks),
//! [`quant_entries`](super::generic::quant_entries) and
//! [`quant_entry_headers`](super::generic::quant_entry_headers).

/// The list.
///
/// ```text
/// formats { <docs> Name = <number in GGUF>, "<name in GGUF>", <elements> in <bytes> of a block,
///           <kernel type>, <codec>; }
/// groups  { Name: <kernel type>; }
/// ```
/// Formats stand in the order of their numbers; single floats have neither kernel type nor codec. Kernel
/// types are those of [`quant_headers`](super::generic::quant_headers) and
/// [`quant_codes`](super::generic::quant_codes), codecs those of `quant::codec`: who makes use of them has
/// them in scope. Groups are the packings of weights that are in no GGUF file: group-wise ones, and floats of
/// 8 bits.
macro_rules! list {
    ($select:ident $with:ident) => {
        $crate::kernels::formats::parts! {
            $select $with
            formats {
                /// 32 bits a weight: the weight itself.
                F32 = 0, "f32", 1 in 4;
                /// 16 bits a weight: IEEE binary16.
                F16 = 1, "f16", 1 in 2;
                /// 4.5 bits a weight: `w = d * (q - 8)`, q in 0..=15.
                Q4_0 = 2, "q4_0", 32 in 2 + 16, Plain<Four, 8>, small::Q4_0;
                /// 5 bits a weight: `w = d * q + m`, q in 0..=15.
                Q4_1 = 3, "q4_1", 32 in 2 + 2 + 16, Affine<Four>, small::Q4_1;
                /// 5.5 bits a weight: `w = d * (q - 16)`, q in 0..=31.
                Q5_0 = 6, "q5_0", 32 in 2 + 4 + 16, Plain<Five, 16>, small::Q5_0;
                /// 6 bits a weight: `w = d * q + m`, q in 0..=31.
                Q5_1 = 7, "q5_1", 32 in 2 + 2 + 4 + 16, Affine<Five>, small::Q5_1;
                /// 8.5 bits a weight: `w = d * q`, q in -128..=127.
                Q8_0 = 8, "q8_0", 32 in 2 + 32, Plain<Wide<8>, 128>, small::Q8_0;
                /// 2.625 bits a weight: `w = d * s * q - dmin * t`, q in 0..=3, s and t in 0..=15 for each
                /// 16.
                Q2K = 10, "q2_k", 256 in 16 + 64 + 2 + 2, HalvesMin, kquant::Q2K;
                /// 3.4375 bits a weight: `w = d * s * (q - 4)`, q in 0..=7, s in -32..=31 for each 16.
                Q3K = 11, "q3_k", 256 in 32 + 64 + 12 + 2, Halves<Three, 4>, kquant::Q3K;
                /// 4.5 bits a weight: `w = d * s * q - dmin * t`, q in 0..=15, s and t in 0..=63 for each 32.
                Q4K = 12, "q4_k", 256 in 2 + 2 + 12 + 128, Super<Four>, kquant::Q4K;
                /// 5.5 bits a weight: `w = d * s * q - dmin * t`, q in 0..=31, s and t in 0..=63 for each 32.
                Q5K = 13, "q5_k", 256 in 2 + 2 + 12 + 32 + 128, Super<Five>, kquant::Q5K;
                /// 6.5625 bits a weight: `w = d * s * (q - 32)`, q in 0..=63, s in -128..=127 for each 16.
                Q6K = 14, "q6_k", 256 in 128 + 64 + 16 + 2, Halves<Six, 32>, kquant::Q6K;
                /// 2.0625 bits a weight: `w = d * (2 t + 1) / 8 * v`, v of a codebook of 256 entries of 8
                /// elements with signs, t in 0..=15 for each 32.
                Iq2Xxs = 16, "iq2_xxs", 256 in 2 + 64, InCodes<SevenSigns<TwoXxs, false>, 128, 3>,
                    entries::IQ2_XXS;
                /// 2.3125 bits a weight: as `Iq2Xxs`, 512 entries, t in 0..=15 for each 16.
                Iq2Xs = 17, "iq2_xs", 256 in 2 + 64 + 8, Odd<SevenSigns<TwoXs, true>, 128, 3, true>,
                    entries::IQ2_XS;
                /// 3.0625 bits a weight: `w = d * (2 t + 1) / 4 * v`, v of a codebook of 256 entries of 4
                /// elements with signs, t in 0..=15 for each 32.
                Iq3Xxs = 18, "iq3_xxs", 256 in 2 + 64 + 32, InCodes<SevenSigns<ThreeXxs, false>, 128, 2>,
                    entries::IQ3_XXS;
                /// 1.5625 bits a weight: `w = d * (2 t + 1) * (v + s / 8)`, v of a codebook of 2048 entries
                /// of 8 elements of -1, 0, 1; s = 1 or -1 and t in 0..=7 for each 32.
                Iq1S = 19, "iq1_s", 256 in 2 + 32 + 16, InCodes<Shifted<false>, 16, 3>, shifted::IQ1_S;
                /// 4.5 bits a weight: `w = d * table[q]`, 16 values spaced as weights are spread.
                Iq4Nl = 20, "iq4_nl", 32 in 2 + 16, Plain<Lookup<NonLinear>, 128>, table::IQ4_NL;
                /// 3.4375 bits a weight: `w = d * (2 t + 1) * v`, v of a codebook of 512 entries of 4
                /// elements with signs, t in 0..=15 for each 32.
                Iq3S = 21, "iq3_s", 256 in 2 + 64 + 8 + 32 + 4, Odd<EightSigns<ThreeS>, 16, 0, false>,
                    entries::IQ3_S;
                /// 2.5625 bits a weight: as `Iq2Xs`, 1024 entries, a sign for each element.
                Iq2S = 22, "iq2_s", 256 in 2 + 32 + 32 + 8 + 8, Odd<EightSigns<TwoS>, 128, 3, true>,
                    entries::IQ2_S;
                /// 4.25 bits a weight: `w = d * s * table[q]`, the table of `Iq4Nl`, s in -32..=31 for each
                /// 32.
                Iq4Xs = 23, "iq4_xs", 256 in 2 + 2 + 4 + 128, Signed<Lookup<NonLinear>>, table::IQ4_XS;
                /// 1.75 bits a weight: as `Iq1S`, s for each 8 and t in 0..=7 for each 16.
                Iq1M = 29, "iq1_m", 256 in 32 + 16 + 8, Odd<Shifted<true>, 16, 3, true>, shifted::IQ1_M;
                /// 16 bits a weight: the upper half of an f32.
                Bf16 = 30, "bf16", 1 in 2;
                /// 1.6875 bits a weight: `w = d * (q - 1)`, q in 0..=2, five of them in a byte.
                Tq1_0 = 34, "tq1_0", 256 in 48 + 4 + 2, Whole<Two, 1>, ternary::TQ1_0;
                /// 2.0625 bits a weight: `w = d * (q - 1)`, q in 0..=3 (0..=2 where ternary weights are
                /// stored).
                Tq2_0 = 35, "tq2_0", 256 in 64 + 2, Whole<Two, 1>, ternary::TQ2_0;
                /// 4.25 bits a weight: `w = 2^(e - 127) * E2M1[q]`, e of 8 bits, NaN for e = 255; the OCP
                /// microscaling format.
                Mxfp4 = 39, "mxfp4", 32 in 1 + 16, Mx, table::MXFP4;
                /// 4.5 bits a weight: `w = e4m3(d) * E2M1[q]`, d of 8 bits without a sign for each 16.
                Nvfp4 = 40, "nvfp4", 64 in 4 + 32, Nv, table::NVFP4;
                /// 1.125 bits a weight: `w = d` or `-d`.
                Q1_0 = 41, "q1_0", 128 in 2 + 16, Whole<Sign, 1>, ternary::Q1_0;
                /// 2.25 bits a weight: `w = d * (q - 1)`, q in 0..=3.
                Q2_0 = 42, "q2_0", 64 in 2 + 16, Whole<Two, 1>, ternary::Q2_0;
            }
            groups {
                Group4: Group<Four, 8>;
                Group4Zero: GroupZero<Four, 8, true>;
                Group8: Group<Wide<8>, 128>;
                Group8Zero: GroupZero<Wide<8>, 128, true>;
                Group2Zero: GroupZero<Two, 8, false>;
                Group3Zero: GroupZero<Three, 8, false>;
                Group2Min: GroupMin<Two, 0, true, false>;
                Group3Min: GroupMin<Three, 0, true, false>;
                Group4Min: GroupMin<Four, 0, true, true>;
                Group5Min: GroupMin<Five, 0, true, false>;
                Group6Min: GroupMin<Six, 0, true, false>;
                Group8Min: GroupMin<Wide<8>, 128, true, true>;
                Group2MinWide: GroupMin<Two, 0, false, false>;
                Group3MinWide: GroupMin<Three, 0, false, false>;
                Group4MinWide: GroupMin<Four, 0, false, false>;
                Group5MinWide: GroupMin<Five, 0, false, false>;
                Group6MinWide: GroupMin<Six, 0, false, false>;
                Group8MinWide: GroupMin<Wide<8>, 128, false, false>;
                Group2Halves: GroupHalves<Two, 0>;
                Group3Halves: GroupHalves<Three, 0>;
                Group4Halves: GroupHalves<Four, 0>;
                Group5Halves: GroupHalves<Five, 0>;
                Group6Halves: GroupHalves<Six, 0>;
                Group8Halves: GroupHalves<Wide<8>, 128>;
                FloatE4m3: FloatGroup<E4m3>;
                FloatE5m2: FloatGroup<E5m2>;
                MxE4m3: FloatMx<E4m3>;
                MxE5m2: FloatMx<E5m2>;
            }
        }
    };
}
pub(crate) use list;

/// The list taken apart: calls `$select!` with `$with`, the formats without kernel types and codecs, the
/// packings of blocks, and the groups.
macro_rules! parts {
    (
        $select:ident $with:ident
        formats { $(
            $(#[$doc:meta])* $name:ident = $id:literal, $text:literal, $len:literal in $bytes:expr
            $(, $kernels:ty, $codec:path)?;
        )+ }
        groups { $($groups:tt)+ }
    ) => {
        $crate::kernels::formats::$select! {
            $with
            formats { $($(#[$doc])* $name = $id, $text, $len in $bytes;)+ }
            blocks { $($( $name: $kernels, $codec; )?)+ }
            groups { $($groups)+ }
        }
    };
}
pub(crate) use parts;

/// Calls `$with!` with `<docs> Name = <number>, "<name>", <elements> in <bytes>;` of every format.
macro_rules! for_each_format {
    ($with:ident) => {
        $crate::kernels::formats::list! { for_each_format $with }
    };
    ($with:ident formats { $($formats:tt)+ } blocks { $($blocks:tt)+ } groups { $($groups:tt)+ }) => {
        $with! { $($formats)+ }
    };
}
pub(crate) use for_each_format;

/// Calls `$with!` with `blocks { Name: <kernel type>, <codec>; }` of every format of blocks and with
/// `groups { Name: <kernel type>; }`.
macro_rules! for_each_packing {
    ($with:ident) => {
        $crate::kernels::formats::list! { for_each_packing $with }
    };
    ($with:ident formats { $($formats:tt)+ } blocks { $($blocks:tt)+ } groups { $($groups:tt)+ }) => {
        $with! { blocks { $($blocks)+ } groups { $($groups)+ } }
    };
}
pub(crate) use for_each_packing;
