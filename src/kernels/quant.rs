//! The table of quantised products: one entry for each packed format.

use super::formats::for_each_packing;
use super::generic::packings::*;
use super::generic::quant_exact::{ExactTile, Expand, WideTile};
use super::generic::quant_int8::Int8Tile;
use super::generic::quant_row::Int8Row;

/// Kernels by the number of activation rows: `[C - 1]`.
pub(super) type Rows<T> = &'static [unsafe fn(&T)];

/// The int8 products of one packed format.
pub(super) struct Int8Kernels {
    /// A single row on packed weights: one row panel after the other, so that memory is read in one stream.
    /// `None` where weights are always unpacked first.
    pub row: Option<unsafe fn(&Int8Row)>,
    /// Row panels of a tile, and the tiles on packed weights, from two rows on: `[C - 2]`.
    pub direct: (usize, Rows<Int8Tile>),
    /// The same on unpacked weights, from one row on; none of formats without int8 products.
    pub unpacked: (usize, Rows<Int8Tile>),
}

/// The kernels of one packed format that need no dot instructions.
pub(super) struct WideningKernels {
    /// Row panels of a tile, and the tiles with f32 activations; none where weights are always widened first.
    pub exact: (usize, Rows<ExactTile>),
    /// `None` of formats without int8 products.
    pub expand: Option<unsafe fn(&Expand)>,
    pub expand_f32: unsafe fn(&Expand),
}

/// The kernels of one tier.
pub(crate) struct QuantKernels {
    /// In the order of [`Packing`], as the next.
    pub(super) int8: &'static [Int8Kernels; FORMATS],
    pub(super) widening: &'static [WideningKernels; FORMATS],
    /// Row panels of a tile, and the tiles on widened weights.
    pub(super) wide: (usize, Rows<WideTile>),
}

/// What packing has to know about a format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Whether there are products with int8 activations, and whether they have kernels on packed weights.
    pub int8: bool,
    pub direct: bool,
    /// Blocks of 32 k in a superblock; 0 where each matrix has its own number.
    pub blocks: usize,
    /// Bytes of a superblock's header, and of the codes of each block behind it.
    pub header: usize,
    pub codes: usize,
    /// Bytes of an unpacked block.
    pub unpacked: usize,
    /// Which numbers the header holds, and where.
    pub fields: Fields,
    /// Factors of the scale in a superblock, where the fields have any.
    pub factors: usize,
    /// Whether the halves of a block have numbers of their own.
    pub halves: bool,
    /// Where the bits of a code lie, or the bytes of a row of entries of a codebook.
    pub planes: &'static [Plane],
    pub strands: &'static [Strand],
    /// What a zero point is stored without.
    pub offset: u32,
    /// The bits of a code, where codes are floats.
    pub float8: Option<Float8Shape>,
}

impl Shape {
    const fn of<F: Format>() -> Shape {
        Shape {
            int8: F::INT8,
            direct: F::INT8 && F::DIRECT,
            blocks: F::BLOCKS,
            header: F::HEADER,
            codes: F::Codes::BYTES,
            unpacked: <F::Unpacked as Format>::HEADER + <<F::Unpacked as Format>::Codes as Codes>::BYTES,
            fields: F::FIELDS,
            factors: if F::HALVES { 2 * F::BLOCKS } else { F::BLOCKS },
            halves: F::HALVES,
            planes: F::Codes::PLANES,
            strands: F::Codes::STRANDS,
            offset: F::OFFSET,
            float8: F::Codes::FLOAT8,
        }
    }
}

/// The packings, by what a product has to do with them, and their shapes in the same order.
macro_rules! packings {
    (
        blocks { $($name:ident: $format:ty, $codec:path;)+ }
        groups { $($group:ident: $group_format:ty;)+ }
    ) => {
        /// The packed layouts, by what a product has to do with them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Packing {
            $($name,)+
            $($group,)+
        }

        /// Number of packed formats.
        pub(super) const FORMATS: usize = [$(stringify!($name),)+ $(stringify!($group),)+].len();

        const GROUPS: &[Packing] = &[$(Packing::$group),+];

        static SHAPES: [Shape; FORMATS] = [$(Shape::of::<$format>(),)+ $(Shape::of::<$group_format>(),)+];
    };
}
for_each_packing!(packings);

impl Packing {
    /// The packings that are no format of GGUF.
    pub(crate) const GROUPS: &[Packing] = GROUPS;

    /// The bytes of its parts.
    pub(crate) fn shape(self) -> &'static Shape {
        &SHAPES[self as usize]
    }
}

/// The kernels of every format, by the `Of` of the shell that calls it.
macro_rules! table {
    (
        blocks { $($name:ident: $format:ty, $codec:path;)+ }
        groups { $($group:ident: $group_format:ty;)+ }
    ) => {
        [$(Of::<$format>::KERNELS,)+ $(Of::<$group_format>::KERNELS,)+]
    };
}
pub(super) use table;

/// Instantiates the int8 products for one ISA, by the tiles of the module `tiles` (`quant_int8` where none is
/// named). `direct` (from two rows on), `unpacked` and `halves` (unpacked formats whose halves have factors;
/// both from one row on) name row panels by rows of the tiles.
macro_rules! instantiate_int8 {
    (features: [$($feature:tt)*], token: $S:ty, direct: $($sizes:tt)*) => {
        $crate::kernels::quant::instantiate_int8! {
            features: [$($feature)*],
            token: $S,
            tiles: quant_int8,
            direct: $($sizes)*
        }
    };
    (
        features: [$($feature:tt)*],
        token: $S:ty,
        tiles: $tiles:ident,
        direct: $dw:literal [$($dc:literal)*],
        unpacked: $pw:literal [$($pc:literal)+],
        halves: $hw:literal [$($hc:literal)+],
    ) => {
        use crate::kernels::formats::for_each_packing;
        use crate::kernels::generic::packings::*;
        use crate::kernels::generic::$tiles;
        use crate::kernels::generic::quant_int8::Int8Tile;
        use crate::kernels::generic::quant_row::{self, Int8Row};
        use crate::kernels::quant::{Int8Kernels, FORMATS, table};
        use crate::kernels::simd::Simd;
        use std::marker::PhantomData;

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn int8<F: Format, const W: usize, const C: usize>(t: &Int8Tile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { $tiles::tile::<$S, F, W, C>(<$S>::assume(), t) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn row<F: Format>(t: &Int8Row) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { quant_row::row::<$S, F>(<$S>::assume(), t) }
        }

        struct Of<F>(PhantomData<F>);

        impl<F: Format> Of<F> {
            const KERNELS: Int8Kernels = Int8Kernels {
                row: if F::INT8 && F::DIRECT { Some(row::<F>) } else { None },
                direct: if F::INT8 && F::DIRECT { ($dw, &[$(int8::<F, $dw, $dc>),*]) } else { ($dw, &[]) },
                unpacked: if !F::INT8 {
                    ($pw, &[])
                } else if F::HALVES {
                    ($hw, &[$(int8::<F::Unpacked, $hw, $hc>),+])
                } else {
                    ($pw, &[$(int8::<F::Unpacked, $pw, $pc>),+])
                },
            };
        }

        pub(in crate::kernels) static INT8: [Int8Kernels; FORMATS] = for_each_packing!(table);
    };
}
pub(super) use instantiate_int8;

/// Instantiates for one ISA what widens weights. `exact` and `wide` name row panels by rows of the tiles.
macro_rules! instantiate_widening {
    (
        features: [$($feature:tt)*],
        token: $S:ty,
        exact: $ew:literal [$($ec:literal)+],
        wide: $ww:literal [$($wc:literal)+],
    ) => {
        use crate::kernels::formats::for_each_packing;
        use crate::kernels::generic::packings::*;
        use crate::kernels::generic::quant_exact::{self, ExactTile, Expand, WideTile};
        use crate::kernels::quant::{FORMATS, Rows, WideningKernels, table};
        use crate::kernels::simd::Simd;
        use std::marker::PhantomData;

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn exact<F: Format, const W: usize, const C: usize>(t: &ExactTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { quant_exact::tile::<$S, F, W, C>(<$S>::assume(), t) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn expand<F: Format>(e: &Expand) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { quant_exact::expand::<$S, F>(<$S>::assume(), e) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn expand_f32<F: Format>(e: &Expand) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { quant_exact::expand_f32::<$S, F>(<$S>::assume(), e) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn wide<const W: usize, const C: usize>(t: &WideTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { quant_exact::wide::<$S, W, C>(<$S>::assume(), t) }
        }

        struct Of<F>(PhantomData<F>);

        impl<F: Format> Of<F> {
            const KERNELS: WideningKernels = WideningKernels {
                exact: if F::EXACT_TILES { ($ew, &[$(exact::<F, $ew, $ec>),+]) } else { ($ew, &[]) },
                expand: if F::INT8 { Some(expand::<F>) } else { None },
                expand_f32: expand_f32::<F>,
            };
        }

        pub(in crate::kernels) static WIDENING: [WideningKernels; FORMATS] = for_each_packing!(table);
        pub(in crate::kernels) const WIDE: (usize, Rows<WideTile>) = ($ww, &[$(wide::<$ww, $wc>),+]);
    };
}
pub(super) use instantiate_widening;
