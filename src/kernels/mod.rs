//! The kernels: algorithms in [`generic`], instruction sets beside it, and the table that joins them.
//!
//! ```text
//! driver (safe) -> KernelSet door (checks every bound, safe) -> shell (#[target_feature])
//!                                                                  -> generic algorithm<Isa> (inlined)
//! ```
//! A new ISA is one file that implements [`simd::Simd`] and calls [`shells!`]; the line in
//! [`KernelSet::for_isa`] makes it selectable. Dispatch happens once, when a context is made.

// Indices keep the shape of a tile in view, and iterators would be compiled outside of the features.
#![allow(clippy::needless_range_loop)]

mod doors;
mod gemm_doors;
mod generic;
mod kv_doors;
mod quant;
mod quant_doors;
mod row_doors;
mod scalar;
mod simd;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use gemm_doors::{Elements, Finishing, Operand, Outputs, Panel, Run, Strips};
pub(crate) use generic::LANES;
pub(crate) use generic::quant_int8::MAX_STRIPES;
pub(crate) use generic::quantize::BLOCK;
pub(crate) use kv_doors::{Bits, Following, KeyCodes, ValueCodes};
pub(crate) use quant::{Packing, QuantKernels};
pub(crate) use quant_doors::{ActivationRows, Stripes, Unpacked};
pub(crate) use row_doors::{Adjust, Binary, MOST_ROWS, Pairs, Unary};

use crate::isa::Isa;
use generic::attention::{AdjustRow, ChunkRow, HideRow, MergeRow};
use generic::elementwise::ElementRow;
use generic::epilogue::{EpilogueRow, Finish, TileRows};
use generic::gemm::GemmTile;
use generic::kv::{Ahead, KeyTile, ValueTile, Widen};
use generic::norm::NormRow;
use generic::pack::{CopyColumns, CopyRows};
use generic::quantize::QuantizeRow;
use generic::rope::RopeHead;
use std::sync::OnceLock;

/// Kernels of one tile shape after the other: `[first - 1][second - 1]`.
type Tiles<T> = &'static [&'static [unsafe fn(&T)]];

/// A tile and what to ask for meanwhile.
struct AheadTile {
    tile: GemmTile,
    ahead: Ahead,
}

/// Widens a tile of 16 keys: `(dim, codes, scales, to)`.
type WidenKeys = unsafe fn(usize, *const u8, *const u16, *mut f32);
/// Widens a value: `(blocks, codes, (scales, stride), to)`.
type WidenValue = unsafe fn(usize, *const u8, (*const f32, usize), *mut f32);

/// Products with bf16 dot instructions.
struct FastBf16 {
    tiles: Tiles<GemmTile>,
    /// Rounds f32 to bf16: `(x, n, out)`.
    round: unsafe fn(*const f32, usize, *mut u16),
    /// Rounds pairs of rows to pairs of bf16: `(from, pairs of rows, stride, out)`.
    pack: unsafe fn(*const f32, usize, usize, *mut u16),
}

/// The kernels of one tier, as entries that may be called once the CPU was checked. Private fields: the
/// doors are the only way in.
pub(crate) struct KernelSet {
    pub(crate) isa: Isa,
    pub(crate) names: &'static [(&'static str, &'static str)],
    /// `[MR - 1][NV - 1]`, for each element type of B.
    gemm_f32: Tiles<GemmTile>,
    gemm_f16: Tiles<GemmTile>,
    gemm_bf16: Tiles<GemmTile>,
    gemm_bf16_rows: Tiles<GemmTile>,
    /// Products with bf16 dot instructions, where the CPU has them.
    fast_bf16: fn() -> Option<&'static FastBf16>,
    /// Products that ask for what follows, by type: f32, f16, bf16 in pairs, bf16 in rows.
    ahead: [Tiles<AheadTile>; 4],
    /// Quantised keys, `[MR - 1][NV - 1]`, and values, `[MR - 1][NB - 1]`; by codes of 8 and 4 bits.
    key_tiles: [Tiles<KeyTile>; 2],
    value_tiles: [Tiles<ValueTile>; 2],
    prefetch: unsafe fn(*const u8, usize),
    widen_f16: unsafe fn(&Widen),
    widen_bf16: unsafe fn(&Widen),
    widen_bf16_rows: unsafe fn(&Widen),
    widen_keys: [WidenKeys; 2],
    widen_value: [WidenValue; 2],
    /// Products with quantised weights.
    quant: &'static QuantKernels,
    copy_rows: unsafe fn(&CopyRows),
    copy_columns: unsafe fn(&CopyColumns),
    epilogue: unsafe fn(&EpilogueRow),
    finish_rows: unsafe fn(&Finish, &TileRows),
    quantize: unsafe fn(&QuantizeRow),
    adjust: unsafe fn(&AdjustRow),
    hide: unsafe fn(&HideRow),
    chunk_softmax: unsafe fn(*mut ChunkRow, usize),
    chunk_merge: unsafe fn(&MergeRow) -> (f32, f32),
    max: unsafe fn(*const f32, usize) -> f32,
    softmax: unsafe fn(*mut f32, usize),
    divide: unsafe fn(*mut f32, usize, f32),
    layer_norm: unsafe fn(&NormRow),
    rms_norm: unsafe fn(&NormRow),
    relu: unsafe fn(&ElementRow),
    gelu: unsafe fn(&ElementRow),
    silu: unsafe fn(&ElementRow),
    silu_mul: unsafe fn(&ElementRow),
    add: unsafe fn(&ElementRow),
    scale: unsafe fn(&ElementRow, f32),
    rope_halves: unsafe fn(&RopeHead),
    rope_interleaved: unsafe fn(&RopeHead),
}

impl KernelSet {
    /// The kernels of `isa`, `None` where the machine cannot run them. The CPU is asked once.
    pub(crate) fn for_isa(isa: Isa) -> Option<&'static KernelSet> {
        static FOUND: OnceLock<[Option<&'static KernelSet>; 3]> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            Isa::ALL.map(|isa| match isa {
                Isa::Scalar => scalar::kernel_set(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => x86_64::avx2::kernel_set(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => x86_64::avx512::vnni_kernel_set().or_else(x86_64::avx512::kernel_set),
                #[cfg(not(target_arch = "x86_64"))]
                Isa::Avx2 | Isa::Avx512 => None,
            })
        });
        Isa::ALL.iter().position(|&i| i == isa).and_then(|i| found[i])
    }

    /// The same tier without dot product instructions.
    pub(crate) fn without_dots(&'static self) -> &'static KernelSet {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86_64::avx512::kernel_set().unwrap_or(self),
            _ => self,
        }
    }

    /// The portable kernels, which every machine has.
    pub(crate) fn scalar() -> &'static KernelSet {
        &scalar::KERNELS
    }
}

/// The ids of the f32 product kernels, by tier: what a stored packed matrix may name.
pub(crate) const GEMM_IDS: [&str; 3] = ["scalar-f32-2x16", "avx2-f32-6x16", "avx512-f32-6x64"];

/// One entry: the algorithm, compiled with the features of one ISA. `#[inline(never)]` keeps it a symbol
/// of its own, by which its disassembly can be checked.
macro_rules! entry {
    ([$($attr:meta),*] $S:ident, $name:ident = $algorithm:path, ($($arg:ident: $ty:ty),*) $(-> $out:ty)?) => {
        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[$attr])*
        #[inline(never)]
        unsafe fn $name($($arg: $ty),*) $(-> $out)? {
            // SAFETY: handed on to the caller, both parts.
            unsafe { $algorithm($S::assume(), $($arg),*) }
        }
    };
}
use entry;

/// Instantiates every algorithm for one ISA, and the table of the entries, which `kernel_set` gives out
/// only where the CPU has the features.
macro_rules! shells {
    (
        token: $S:ident,
        isa: $isa:expr,
        attributes: [$($attr:meta),*],
        bf16_fast: $fast:expr,
        gemm: $gemm_name:literal { $($mr:literal: [$($nv:literal)+])+ },
        keys: { $($kmr:literal: [$($knv:literal)+])+ },
        values: { $($vmr:literal: [$($vnb:literal)+])+ },
        int8: $int8_name:literal,
        exact: $exact_name:literal,
        quant: $quant:expr,
    ) => {
        use crate::kernels::generic::attention::{self, AdjustRow, ChunkRow, HideRow, MergeRow};
        use crate::kernels::generic::elementwise::{self, ElementRow};
        use crate::kernels::generic::epilogue::{self, EpilogueRow, Finish, TileRows};
        use crate::kernels::generic::gemm::{self as tiles, Bf16, Bf16Row, Element, Exact, F16, F32, GemmTile};
        use crate::kernels::generic::kv::{self, Code, Int4, Int8, KeyTile, ValueTile, Widen};
        use crate::kernels::generic::norm::{self, NormRow};
        use crate::kernels::generic::pack::{self, CopyColumns, CopyRows};
        use crate::kernels::generic::quantize::{self, QuantizeRow};
        use crate::kernels::generic::rope::{self, RopeHead};
        use crate::kernels::{AheadTile, KernelSet, entry};

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[$attr])*
        #[inline(never)]
        unsafe fn gemm<E: Element, const MR: usize, const NV: usize>(t: &GemmTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { tiles::tiles::<$S, Exact<E>, MR, NV>($S::assume(), t) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[$attr])*
        #[inline(never)]
        unsafe fn key_tile<C: Code, const MR: usize, const NV: usize>(t: &KeyTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { kv::scores::<$S, C, MR, NV>($S::assume(), t) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[$attr])*
        #[inline(never)]
        unsafe fn value_tile<C: Code, const MR: usize, const NB: usize>(t: &ValueTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { kv::values::<$S, C, MR, NB>($S::assume(), t) }
        }

        /// # Safety
        /// - the CPU has the features; and as the algorithm says.
        $(#[$attr])*
        #[inline(never)]
        unsafe fn ahead<E: Element, const MR: usize, const NV: usize>(t: &AheadTile) {
            // SAFETY: handed on to the caller, both parts.
            unsafe { kv::tile::<$S, E, MR, NV>($S::assume(), &t.tile, t.ahead) }
        }

        entry!([$($attr),*] $S, prefetch = kv::prefetch, (at: *const u8, bytes: usize));
        entry!([$($attr),*] $S, widen_f16 = kv::widen::<$S, F16>, (t: &Widen));
        entry!([$($attr),*] $S, widen_bf16 = kv::widen::<$S, Bf16>, (t: &Widen));
        entry!([$($attr),*] $S, widen_bf16_rows = kv::widen::<$S, Bf16Row>, (t: &Widen));
        entry!([$($attr),*] $S, widen_keys8 = kv::widen_keys::<$S, Int8>,
            (dim: usize, codes: *const u8, scales: *const u16, to: *mut f32));
        entry!([$($attr),*] $S, widen_keys4 = kv::widen_keys::<$S, Int4>,
            (dim: usize, codes: *const u8, scales: *const u16, to: *mut f32));
        entry!([$($attr),*] $S, widen_value8 = kv::widen_value::<$S, Int8>,
            (blocks: usize, codes: *const u8, scales: (*const f32, usize), to: *mut f32));
        entry!([$($attr),*] $S, widen_value4 = kv::widen_value::<$S, Int4>,
            (blocks: usize, codes: *const u8, scales: (*const f32, usize), to: *mut f32));

        entry!([$($attr),*] $S, copy_rows = pack::copy_rows, (r: &CopyRows));
        entry!([$($attr),*] $S, copy_columns = pack::copy_columns, (c: &CopyColumns));
        entry!([$($attr),*] $S, epilogue_row = epilogue::row, (e: &EpilogueRow));
        entry!([$($attr),*] $S, finish_rows = epilogue::rows, (f: &Finish, t: &TileRows));
        entry!([$($attr),*] $S, quantize_row = quantize::row, (r: &QuantizeRow));
        entry!([$($attr),*] $S, adjust = attention::adjust, (r: &AdjustRow));
        entry!([$($attr),*] $S, hide = attention::hide, (r: &HideRow));
        entry!([$($attr),*] $S, chunk_softmax = attention::softmax, (rows: *mut ChunkRow, n: usize));
        entry!([$($attr),*] $S, chunk_merge = attention::merge, (r: &MergeRow) -> (f32, f32));
        entry!([$($attr),*] $S, max = norm::max, (x: *const f32, n: usize) -> f32);
        entry!([$($attr),*] $S, softmax = norm::softmax, (x: *mut f32, n: usize));
        entry!([$($attr),*] $S, divide = norm::divide, (x: *mut f32, n: usize, by: f32));
        entry!([$($attr),*] $S, layer_norm = norm::layer_norm, (r: &NormRow));
        entry!([$($attr),*] $S, rms_norm = norm::rms_norm, (r: &NormRow));
        entry!([$($attr),*] $S, relu = elementwise::relu, (r: &ElementRow));
        entry!([$($attr),*] $S, gelu = elementwise::gelu, (r: &ElementRow));
        entry!([$($attr),*] $S, silu = elementwise::silu, (r: &ElementRow));
        entry!([$($attr),*] $S, silu_mul = elementwise::silu_mul, (r: &ElementRow));
        entry!([$($attr),*] $S, add = elementwise::add, (r: &ElementRow));
        entry!([$($attr),*] $S, scale = elementwise::scale, (r: &ElementRow, by: f32));
        entry!([$($attr),*] $S, rope_halves = rope::halves, (r: &RopeHead));
        entry!([$($attr),*] $S, rope_interleaved = rope::interleaved, (r: &RopeHead));

        pub(in crate::kernels) static KERNELS: KernelSet = KernelSet {
            isa: $isa,
            names: &[("matmul", $gemm_name), ("quant int8", $int8_name), ("quant f32", $exact_name)],
            gemm_f32: &[$(&[$(gemm::<F32, $mr, $nv>),+]),+],
            gemm_f16: &[$(&[$(gemm::<F16, $mr, $nv>),+]),+],
            gemm_bf16: &[$(&[$(gemm::<Bf16, $mr, $nv>),+]),+],
            gemm_bf16_rows: &[$(&[$(gemm::<Bf16Row, $mr, $nv>),+]),+],
            ahead: [
                &[$(&[$(ahead::<F32, $kmr, $knv>),+]),+],
                &[$(&[$(ahead::<F16, $kmr, $knv>),+]),+],
                &[$(&[$(ahead::<Bf16, $kmr, $knv>),+]),+],
                &[$(&[$(ahead::<Bf16Row, $kmr, $knv>),+]),+],
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
            widen_f16,
            widen_bf16,
            widen_bf16_rows,
            widen_keys: [widen_keys8, widen_keys4],
            widen_value: [widen_value8, widen_value4],
            fast_bf16: $fast,
            quant: $quant,
            copy_rows,
            copy_columns,
            epilogue: epilogue_row,
            finish_rows,
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
            relu,
            gelu,
            silu,
            silu_mul,
            add,
            scale,
            rope_halves,
            rope_interleaved,
        };

        /// The table, where the CPU has the features.
        pub(in crate::kernels) fn kernel_set() -> Option<&'static KernelSet> {
            $S::new().map(|_| &KERNELS)
        }
    };
}
use shells;
