//! The table of one tier's kernels, and the macros that compile every algorithm for an instruction set.

use super::generic::LANES;
use super::generic::attention::{AdjustRow, ChunkRow, HideRow, MergeRow};
use super::generic::convolve::ConvolveRow;
use super::generic::elementwise::ElementRow;
use super::generic::epilogue::{EpilogueArgs, EpilogueRow, TileRows};
use super::generic::gemm::GemmTile;
use super::generic::kv::{KeyTile, PrefetchAt, ValueTile, Widen};
use super::generic::norm::NormRow;
use super::generic::pack::{CopyColumns, CopyRows};
use super::generic::pack_codes::PackCodes;
use super::generic::quantize::QuantizeRow;
use super::generic::recurrence::Recurrence;
use super::generic::rope::RopeHead;
use super::id::KernelId;
use super::quant::QuantKernels;
use crate::epilogue::Activation;
use crate::isa::Isa;

/// How elements of B are stored: the order of the tables that have an entry for each.
#[derive(Clone, Copy)]
pub(super) enum ElementType {
    F32,
    F16,
    /// In pairs of k.
    Bf16,
    /// One k after the other.
    Bf16Rows,
}

/// The ids of a tier's kernels, made from their tables.
pub(super) struct KernelIds {
    pub(super) gemm: KernelId,
    int8: KernelId,
    exact: KernelId,
}

impl KernelIds {
    /// `int8_isa`: the tier's name, or that of the extension whose dot products it uses.
    pub(super) const fn new(
        isa: Isa,
        int8_isa: &str,
        gemm: Tiles<GemmTile>,
        quant: &QuantKernels,
    ) -> KernelIds {
        let mr = gemm.len();
        let (int8_panels, int8_tiles) = quant.int8[0].unpacked;
        let (exact_panels, exact_tiles) = quant.widening[0].exact;
        KernelIds {
            gemm: KernelId::new(isa.name(), "f32", mr, LANES * gemm[mr - 1].len()),
            int8: KernelId::new(int8_isa, "int8", LANES * int8_panels, int8_tiles.len()),
            exact: KernelId::new(isa.name(), "exact", LANES * exact_panels, exact_tiles.len()),
        }
    }
}

/// Kernels of one tile shape after the other: `[first - 1][second - 1]`.
pub(super) type Tiles<T> = &'static [&'static [unsafe fn(&T)]];

/// A tile and its prefetch hint.
pub(super) struct PrefetchTile {
    pub(super) tile: GemmTile,
    pub(super) prefetch: PrefetchAt,
}

/// Widens a tile of 16 keys: `(dim, codes, scales, to)`.
pub(super) type WidenKeys = unsafe fn(usize, *const u8, *const u16, *mut f32);
/// Widens a value: `(blocks, codes, (scales, stride), to)`.
pub(super) type WidenValue = unsafe fn(usize, *const u8, (*const f32, usize), *mut f32);

/// Products with bf16 dot instructions.
pub(super) struct FastBf16 {
    pub(super) tiles: Tiles<GemmTile>,
    /// Rounds f32 to bf16: `(x, n, out)`.
    pub(super) round: unsafe fn(*const f32, usize, *mut u16),
    /// Rounds pairs of rows to pairs of bf16: `(from, pairs of rows, stride, out)`.
    pub(super) pack: unsafe fn(*const f32, usize, usize, *mut u16),
}

/// The kernels of one tier, as functions that may be called once the CPU was checked. Only
/// [`entry`](super::entry) calls them: its checks are the only way in.
pub(crate) struct KernelSet {
    pub(crate) isa: Isa,
    pub(super) ids: &'static KernelIds,
    /// `[MR - 1][NV - 1]`, by [`ElementType`]. The last of these types has none: only attention reads it, in
    /// tiles that prefetch.
    pub(super) gemm: [Tiles<GemmTile>; 3],
    /// Products with bf16 dot instructions, where the CPU has them.
    pub(super) fast_bf16: fn() -> Option<&'static FastBf16>,
    /// GEMM tiles that prefetch, by [`ElementType`].
    pub(super) gemm_prefetch: [Tiles<PrefetchTile>; 4],
    /// Quantised keys, `[MR - 1][NV - 1]`, and values, `[MR - 1][NB - 1]`; by codes of 8 and 4 bits.
    pub(super) key_tiles: [Tiles<KeyTile>; 2],
    pub(super) value_tiles: [Tiles<ValueTile>; 2],
    pub(super) prefetch: unsafe fn(*const u8, usize),
    /// By [`ElementType`].
    pub(super) widen: [unsafe fn(&Widen); 4],
    pub(super) widen_keys: [WidenKeys; 2],
    pub(super) widen_value: [WidenValue; 2],
    /// Products with quantised weights.
    pub(super) quant: &'static QuantKernels,
    pub(super) copy_rows: unsafe fn(&CopyRows),
    pub(super) copy_columns: unsafe fn(&CopyColumns),
    pub(super) pack_codes: unsafe fn(&PackCodes),
    pub(super) epilogue: unsafe fn(&EpilogueRow),
    pub(super) epilogue_rows: unsafe fn(&EpilogueArgs, &TileRows),
    pub(super) quantize: unsafe fn(&QuantizeRow),
    pub(super) adjust: unsafe fn(&AdjustRow),
    pub(super) hide: unsafe fn(&HideRow),
    pub(super) chunk_softmax: unsafe fn(*mut ChunkRow, usize),
    pub(super) chunk_merge: unsafe fn(&MergeRow) -> (f32, f32),
    pub(super) max: unsafe fn(*const f32, usize) -> f32,
    pub(super) softmax: unsafe fn(*mut f32, usize),
    pub(super) divide: unsafe fn(*mut f32, usize, f32),
    pub(super) layer_norm: unsafe fn(&NormRow),
    pub(super) rms_norm: unsafe fn(&NormRow),
    /// `act(x)` and `act(x) * z`, by the number of the activation.
    pub(super) activate: [unsafe fn(&ElementRow); Activation::ALL.len()],
    pub(super) gate: [unsafe fn(&ElementRow); Activation::ALL.len()],
    pub(super) add: unsafe fn(&ElementRow),
    pub(super) add_scaled: unsafe fn(&ElementRow),
    pub(super) scale: unsafe fn(&ElementRow),
    pub(super) softcap: unsafe fn(&ElementRow),
    pub(super) swiglu_oai: unsafe fn(&ElementRow),
    pub(super) convolve: unsafe fn(&ConvolveRow),
    pub(super) delta: unsafe fn(&Recurrence),
    pub(super) scan: unsafe fn(&Recurrence),
    pub(super) rope_halves: unsafe fn(&RopeHead),
    pub(super) rope_interleaved: unsafe fn(&RopeHead),
}

impl KernelSet {
    /// `(operation, id of its kernel)`.
    pub(crate) fn names(&self) -> [(&'static str, &'static str); 3] {
        let KernelIds { gemm, int8, exact } = self.ids;
        [("matmul", gemm.as_str()), ("quant int8", int8.as_str()), ("quant f32", exact.as_str())]
    }

    /// The id of the f32 product.
    pub(crate) fn gemm_id(&self) -> KernelId {
        self.ids.gemm
    }
}

/// One entry: the algorithm, compiled with the features of one ISA. `#[inline(never)]` keeps it a symbol
/// of its own, by which its disassembly can be checked.
macro_rules! instantiate_entry {
    ([$($feature:tt)*] $S:ty, $name:ident = $algorithm:path, ($($arg:ident: $ty:ty),*) $(-> $out:ty)?) => {
        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn $name($($arg: $ty),*) $(-> $out)? {
            // SAFETY: handed on to the caller, both parts.
            unsafe { $algorithm(<$S>::assume(), $($arg),*) }
        }
    };
}
pub(super) use instantiate_entry;

/// Instantiates the functions of [`FastBf16`]: `tile`, whose sums are `$sums`, `round` and `pack`.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
macro_rules! instantiate_bf16 {
    (
        features: [$($feature:tt)*],
        token: $S:ty,
        round: $round:path,
        pack: $pack:path,
        sums: $sums:ty,
    ) => {
        $crate::kernels::set::instantiate_entry!([$($feature)*] $S, round = $round,
            (x: *const f32, n: usize, out: *mut u16));
        $crate::kernels::set::instantiate_entry!([$($feature)*] $S, pack = $pack,
            (from: *const f32, groups: usize, stride: usize, out: *mut u16));

        /// # Safety
        /// - the CPU has the features; the operands (A and B in pairs of bf16) are valid as [`GemmTile`]
        ///   says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn tile<const MR: usize, const NV: usize>(t: &GemmTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe {
                $crate::kernels::generic::gemm::tiles::<$S, $sums, MR, NV>(<$S>::assume(), t)
            }
        }
    };
}
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub(super) use instantiate_bf16;

/// Instantiates every algorithm for one ISA, and the table of them, which [`KernelSet::for_isa`] gives out
/// only where the CPU has the features. `gemm` names rows of the tiles by their vectors; `packed` does the
/// same for 16-bit elements, which are always packed, where their tiles are others.
macro_rules! instantiate {
    (
        features: $features:tt,
        token: $S:ty,
        isa: $isa:expr,
        bf16_fast: $fast:expr,
        gemm: $gemm:tt,
        keys: $($tables:tt)*
    ) => {
        $crate::kernels::set::instantiate! {
            features: $features,
            token: $S,
            isa: $isa,
            bf16_fast: $fast,
            gemm: $gemm,
            packed: $gemm,
            keys: $($tables)*
        }
    };
    (
        features: [$($feature:tt)*],
        token: $S:ty,
        isa: $isa:expr,
        bf16_fast: $fast:expr,
        gemm: { $($mr:literal: [$($nv:literal)+])+ },
        packed: { $($pmr:literal: [$($pnv:literal)+])+ },
        keys: { $($kmr:literal: [$($knv:literal)+])+ },
        values: { $($vmr:literal: [$($vnb:literal)+])+ },
        quant: $quant:expr,
    ) => {
        use crate::kernels::generic::attention::{self, AdjustRow, ChunkRow, HideRow, MergeRow};
        use crate::kernels::generic::convolve::{self, ConvolveRow};
        use crate::kernels::generic::elementwise::{
            self, Activate, Add, AddScaled, ElementRow, Gate, Operation, Scale, Softcap, SwigluOai,
            for_each_activation,
        };
        use crate::kernels::generic::epilogue::{self, EpilogueRow, EpilogueArgs, TileRows};
        use crate::kernels::generic::gemm::{self as tiles, Bf16, Bf16Row, Element, Exact, F16, F32, GemmTile};
        use crate::kernels::generic::kv::{self, Code, Int4, Int8, KeyTile, ValueTile, Widen};
        use crate::kernels::generic::norm::{self, NormRow};
        use crate::kernels::generic::pack::{self, CopyColumns, CopyRows};
        use crate::kernels::generic::pack_codes::{self, PackCodes};
        use crate::kernels::generic::quantize::{self, QuantizeRow};
        use crate::kernels::generic::recurrence::{self, Recurrence};
        use crate::kernels::generic::rope::{self, RopeHead};
        use crate::kernels::set::{KernelIds, KernelSet, PrefetchTile, instantiate_entry};

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn gemm<E: Element, const MR: usize, const NV: usize>(t: &GemmTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { tiles::tiles::<$S, Exact<E>, MR, NV>(<$S>::assume(), t) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn key_tile<C: Code, const MR: usize, const NV: usize>(t: &KeyTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { kv::scores::<$S, C, MR, NV>(<$S>::assume(), t) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn value_tile<C: Code, const MR: usize, const NB: usize>(t: &ValueTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { kv::values::<$S, C, MR, NB>(<$S>::assume(), t) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn gemm_prefetch<E: Element, const MR: usize, const NV: usize>(t: &PrefetchTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { kv::prefetching_tile::<$S, E, MR, NV>(<$S>::assume(), &t.tile, t.prefetch) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[target_feature(enable = $feature)])*
        #[inline(never)]
        unsafe fn element<O: Operation>(r: &ElementRow) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { elementwise::row::<$S, O>(<$S>::assume(), r) }
        }

        instantiate_entry!([$($feature)*] $S, prefetch = kv::prefetch, (at: *const u8, bytes: usize));
        instantiate_entry!([$($feature)*] $S, widen_f32 = kv::widen::<$S, F32>, (t: &Widen));
        instantiate_entry!([$($feature)*] $S, widen_f16 = kv::widen::<$S, F16>, (t: &Widen));
        instantiate_entry!([$($feature)*] $S, widen_bf16 = kv::widen::<$S, Bf16>, (t: &Widen));
        instantiate_entry!([$($feature)*] $S, widen_bf16_rows = kv::widen::<$S, Bf16Row>, (t: &Widen));
        instantiate_entry!([$($feature)*] $S, widen_keys8 = kv::widen_keys::<$S, Int8>,
            (dim: usize, codes: *const u8, scales: *const u16, to: *mut f32));
        instantiate_entry!([$($feature)*] $S, widen_keys4 = kv::widen_keys::<$S, Int4>,
            (dim: usize, codes: *const u8, scales: *const u16, to: *mut f32));
        instantiate_entry!([$($feature)*] $S, widen_value8 = kv::widen_value::<$S, Int8>,
            (blocks: usize, codes: *const u8, scales: (*const f32, usize), to: *mut f32));
        instantiate_entry!([$($feature)*] $S, widen_value4 = kv::widen_value::<$S, Int4>,
            (blocks: usize, codes: *const u8, scales: (*const f32, usize), to: *mut f32));

        instantiate_entry!([$($feature)*] $S, copy_rows = pack::copy_rows, (r: &CopyRows));
        instantiate_entry!([$($feature)*] $S, copy_columns = pack::copy_columns, (c: &CopyColumns));
        instantiate_entry!([$($feature)*] $S, pack_codes = pack_codes::pack_codes, (p: &PackCodes));
        instantiate_entry!([$($feature)*] $S, epilogue_row = epilogue::row, (e: &EpilogueRow));
        instantiate_entry!([$($feature)*] $S, epilogue_rows = epilogue::rows,
            (f: &EpilogueArgs, t: &TileRows));
        instantiate_entry!([$($feature)*] $S, quantize_row = quantize::row, (r: &QuantizeRow));
        instantiate_entry!([$($feature)*] $S, adjust = attention::adjust, (r: &AdjustRow));
        instantiate_entry!([$($feature)*] $S, hide = attention::hide, (r: &HideRow));
        instantiate_entry!([$($feature)*] $S, chunk_softmax = attention::softmax,
            (rows: *mut ChunkRow, n: usize));
        instantiate_entry!([$($feature)*] $S, chunk_merge = attention::merge, (r: &MergeRow) -> (f32, f32));
        instantiate_entry!([$($feature)*] $S, max = norm::max, (x: *const f32, n: usize) -> f32);
        instantiate_entry!([$($feature)*] $S, softmax = norm::softmax, (x: *mut f32, n: usize));
        instantiate_entry!([$($feature)*] $S, divide = norm::divide, (x: *mut f32, n: usize, by: f32));
        instantiate_entry!([$($feature)*] $S, layer_norm = norm::layer_norm, (r: &NormRow));
        instantiate_entry!([$($feature)*] $S, rms_norm = norm::rms_norm, (r: &NormRow));
        instantiate_entry!([$($feature)*] $S, convolve = convolve::row, (r: &ConvolveRow));
        instantiate_entry!([$($feature)*] $S, delta = recurrence::delta, (r: &Recurrence));
        instantiate_entry!([$($feature)*] $S, scan = recurrence::scan, (r: &Recurrence));
        instantiate_entry!([$($feature)*] $S, rope_halves = rope::halves, (r: &RopeHead));
        instantiate_entry!([$($feature)*] $S, rope_interleaved = rope::interleaved, (r: &RopeHead));

        static IDS: KernelIds = KernelIds::new($isa, $isa.name(), KERNELS.gemm[0], $quant);

        /// The kernels, for CPUs with the features.
        pub(in crate::kernels) static KERNELS: KernelSet = KernelSet {
            isa: $isa,
            ids: &IDS,
            gemm: [
                &[$(&[$(gemm::<F32, $mr, $nv>),+]),+],
                &[$(&[$(gemm::<F16, $pmr, $pnv>),+]),+],
                &[$(&[$(gemm::<Bf16, $pmr, $pnv>),+]),+],
            ],
            gemm_prefetch: [
                &[$(&[$(gemm_prefetch::<F32, $kmr, $knv>),+]),+],
                &[$(&[$(gemm_prefetch::<F16, $kmr, $knv>),+]),+],
                &[$(&[$(gemm_prefetch::<Bf16, $kmr, $knv>),+]),+],
                &[$(&[$(gemm_prefetch::<Bf16Row, $kmr, $knv>),+]),+],
            ],
            key_tiles: [
                &[$(&[$(key_tile::<Int8, $kmr, $knv>),+]),+],
                &[$(&[$(key_tile::<Int4, $kmr, $knv>),+]),+],
            ],
            value_tiles: [
                &[$(&[$(value_tile::<Int8, $vmr, $vnb>),+]),+],
                &[$(&[$(value_tile::<Int4, $vmr, $vnb>),+]),+],
            ],
            prefetch,
            widen: [widen_f32, widen_f16, widen_bf16, widen_bf16_rows],
            widen_keys: [widen_keys8, widen_keys4],
            widen_value: [widen_value8, widen_value4],
            fast_bf16: $fast,
            quant: $quant,
            copy_rows,
            copy_columns,
            pack_codes,
            epilogue: epilogue_row,
            epilogue_rows,
            quantize: quantize_row,
            adjust,
            hide,
            chunk_softmax,
            chunk_merge,
            max,
            softmax,
            divide,
            layer_norm,
            rms_norm,
            activate: for_each_activation!(element, Activate),
            gate: for_each_activation!(element, Gate),
            add: element::<Add>,
            add_scaled: element::<AddScaled>,
            scale: element::<Scale>,
            softcap: element::<Softcap>,
            swiglu_oai: element::<SwigluOai>,
            convolve,
            delta,
            scan,
            rope_halves,
            rope_interleaved,
        };
    };
}
pub(super) use instantiate;
