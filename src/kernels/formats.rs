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
//! codes that are packed in a new way are one in [`quant_codes`](super::generic::quant_codes).

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
/// them in scope. Groups are the packings of group-wise weights.
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
                /// 4.5 bits a weight: `w = d * table[q]`, 16 values spaced as weights are spread.
                Iq4Nl = 20, "iq4_nl", 32 in 2 + 16, Plain<Lookup<NonLinear>, 128>, table::IQ4_NL;
                /// 4.25 bits a weight: `w = d * s * table[q]`, the table of `Iq4Nl`, s in -32..=31 for each
                /// 32.
                Iq4Xs = 23, "iq4_xs", 256 in 2 + 2 + 4 + 128, Signed<Lookup<NonLinear>>, table::IQ4_XS;
                /// 16 bits a weight: the upper half of an f32.
                Bf16 = 30, "bf16", 1 in 2;
                /// 4.25 bits a weight: `w = 2^(e - 127) * E2M1[q]`, e of 8 bits, NaN for e = 255; the OCP
                /// microscaling format.
                Mxfp4 = 39, "mxfp4", 32 in 1 + 16, Mx, table::MXFP4;
            }
            groups {
                Group4: Group<Four, 8>;
                Group4Zero: GroupZero<Four, 8>;
                Group8: Group<Wide<8>, 128>;
                Group8Zero: GroupZero<Wide<8>, 128>;
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
