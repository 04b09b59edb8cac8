//! Arguments of calls of the C ABI, from a seed: good ones, and hostile ones among them where that is asked
//! for.
//!
//! Buffers end (or start) at a page that nobody may touch, and are as long as the call was told. A buffer
//! that a call claims to be larger than a slot lies in such a page as a whole: it must be refused before it
//! is read.

use super::pages::{PAGE, Pages};
use std::cell::Cell;

/// Bytes of one slot.
const SLOT: usize = 1 << 18;
/// Slots: the most buffers of one call.
const SLOTS: usize = 48;

thread_local! {
    /// Whether the library is at work on this thread: from the last argument of a call until it returns.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static AROUND: Cell<Option<Around>> = const { Cell::new(None) };
}

/// What runs right before and right after a call of the library that has arguments.
#[derive(Clone, Copy)]
pub struct Around {
    pub before: fn(),
    pub after: fn(),
}

/// Has something run around the calls of this thread, or nothing.
pub fn around(functions: Option<Around>) {
    AROUND.set(functions);
}

/// The last argument of a call.
pub fn enter<T>(last: T) -> T {
    INSIDE.set(true);
    if let Some(Around { before, .. }) = AROUND.get() {
        before();
    }
    last
}

/// The result of a call.
pub fn leave<T>(result: T) -> T {
    if let Some(Around { after, .. }) = AROUND.get().filter(|_| is_inside()) {
        after();
    }
    INSIDE.set(false);
    result
}

/// Whether this thread is in a call of the library.
pub fn is_inside() -> bool {
    INSIDE.get()
}

/// What outputs hold before a call.
pub const SENTINEL: u8 = 0xA5;

/// A buffer of a call.
struct Buffer {
    start: *mut u8,
    /// What it held before the call.
    before: Vec<u8>,
    kind: Kind,
}

/// What a call does with a buffer.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Reads an array.
    Read,
    /// Writes an array.
    Written,
    /// Reads a struct, which no other argument may lie in.
    Struct,
    /// Writes one value, which lies in no other argument.
    Value,
}

/// Draws arguments and remembers the buffers of a call.
pub struct Arguments {
    state: u64,
    /// One of so many arguments is hostile in this call; 0: none.
    hostile: usize,
    memory: Pages, // (SLOTS, guard + SLOT), then a guard
    buffers: Vec<Buffer>,
    slots: usize,
    /// Whether an options struct is NULL or ends early: arrays that were drawn for it are no arguments of the
    /// call then.
    is_cut: bool,
}

impl Arguments {
    pub fn new(seed: u64) -> Arguments {
        let memory = Pages::new(SLOTS * (PAGE + SLOT) + PAGE);
        (0..SLOTS).for_each(|slot| memory.allow(slot * (PAGE + SLOT) + PAGE, SLOT));
        Arguments { state: seed | 1, hostile: 0, memory, buffers: Vec::new(), slots: 0, is_cut: false }
    }

    /// Starts a call whose arguments follow from `seed`; one argument of `hostile` is hostile (0: none).
    pub fn start(&mut self, seed: u64, hostile: usize) {
        self.state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        self.hostile = hostile;
        self.buffers.clear();
        self.slots = 0;
        self.is_cut = false;
        self.below(2);
    }

    /// A number below `n`, at least 1 (xorshift64*).
    pub fn below(&mut self, n: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        ((self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % n
    }

    /// Whether this argument is a hostile one.
    pub fn is_hostile(&mut self) -> bool {
        self.hostile > 0 && self.below(self.hostile) == 0
    }

    /// Whether calls may be hostile at all.
    pub fn may_be_hostile(&self) -> bool {
        self.hostile > 0
    }

    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// A size, or one beside it, or an absurd one: no memory is as long as a quarter of the address space.
    pub fn size(&mut self, good: usize) -> usize {
        if !self.is_hostile() {
            return good;
        }
        match self.below(6) {
            0 => 0,
            1 => good.wrapping_add(1),
            2 => good.wrapping_sub(1),
            3 => 1 << (usize::BITS - 2),
            4 => usize::MAX,
            _ => isize::MAX as usize,
        }
    }

    /// A number of an enum, a count or a flag.
    pub fn number(&mut self, good: i32) -> i32 {
        if !self.is_hostile() {
            return good;
        }
        match self.below(4) {
            0 => i32::MIN,
            1 => -1,
            2 => self.below(64) as i32,
            _ => i32::MAX,
        }
    }

    /// A flag that shapes follow from: it may be no flag, and never the other one.
    pub fn flag(&mut self, good: i32) -> i32 {
        if self.is_hostile() { self.one_of(&[i32::MIN, -1, 2, i32::MAX]) } else { good }
    }

    pub fn float(&mut self, good: f64) -> f64 {
        if !self.is_hostile() {
            return good;
        }
        self.one_of(&[0.0, -1.0, f64::NAN, f64::INFINITY, 1e-320, 1e300])
    }

    /// A stride of rows of `cols` elements.
    pub fn stride(&mut self, cols: usize) -> usize {
        let gap = self.one_of(&[0, 0, 1, 3]);
        self.size(cols.saturating_add(gap))
    }

    /// `len` elements in a slot of their own, at its end or at its start.
    fn buffer<T>(&mut self, len: usize, kind: Kind, fill: impl FnMut(&mut Arguments) -> u8) -> *mut T {
        let mut fill = fill;
        if self.is_hostile() {
            match self.below(3) {
                0 => return std::ptr::null_mut(),
                // Not aligned: to be refused before it is touched.
                1 if align_of::<T>() > 1 => return self.guard().wrapping_byte_add(1).cast(),
                // The memory of another argument.
                2 if matches!(kind, Kind::Read | Kind::Written) && !self.buffers.is_empty() => {
                    let i = self.below(self.buffers.len());
                    let Buffer { start, before, kind } = &self.buffers[i];
                    let fits = len.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= before.len());
                    if fits && matches!(kind, Kind::Read | Kind::Written) {
                        return start.cast();
                    }
                }
                _ => {}
            }
        }
        let Some(bytes) = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= SLOT) else {
            return self.guard().cast();
        };
        if bytes == 0 {
            return if self.below(2) == 0 { std::ptr::null_mut() } else { self.guard().cast() };
        }
        assert!(self.slots < SLOTS, "more buffers than slots");
        let slot = self.memory.start().wrapping_add(self.slots * (PAGE + SLOT) + PAGE);
        self.slots += 1;
        let at_end = self.below(4) > 0;
        let start = if at_end { slot.wrapping_add(SLOT - bytes) } else { slot };
        let before: Vec<u8> = (0..bytes).map(|_| fill(self)).collect();
        // SAFETY: `bytes` accessible bytes of the slot.
        unsafe { start.copy_from(before.as_ptr(), bytes) };
        self.buffers.push(Buffer { start, before, kind });
        start.cast()
    }

    /// Where nobody may read or write.
    fn guard(&self) -> *mut u8 {
        self.memory.start()
    }

    fn float_bytes(i: &mut usize, g: &mut Arguments, current: &mut [u8; 4]) -> u8 {
        if i.is_multiple_of(4) {
            let x = match g.below(200) {
                0 if g.may_be_hostile() => g.one_of(&[f32::NAN, f32::INFINITY, -f32::MAX, 1e-42]),
                n => (n as f32 - 100.0) / 60.0,
            };
            *current = x.to_ne_bytes();
        }
        *i += 1;
        current[(*i - 1) % 4]
    }

    /// f32 to be read.
    pub fn floats(&mut self, len: usize) -> *const f32 {
        let (mut i, mut current) = (0, [0; 4]);
        self.buffer::<f32>(len, Kind::Read, |g| Arguments::float_bytes(&mut i, g, &mut current))
    }

    /// f32 to be changed in place.
    pub fn changed(&mut self, len: usize) -> *mut f32 {
        let (mut i, mut current) = (0, [0; 4]);
        self.buffer(len, Kind::Written, |g| Arguments::float_bytes(&mut i, g, &mut current))
    }

    /// Elements to be written, which hold the sentinel.
    pub fn output<T>(&mut self, len: usize) -> *mut T {
        self.buffer(len, Kind::Written, |_| SENTINEL)
    }

    /// One value to be written.
    pub fn value<T>(&mut self) -> *mut T {
        self.buffer(1, Kind::Value, |_| SENTINEL)
    }

    /// A struct to be read.
    pub fn structs<T: Copy>(&mut self, values: &[T]) -> *const T {
        // SAFETY: plain structs without padding.
        let raw = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        let mut i = 0;
        self.buffer::<T>(values.len(), Kind::Struct, |_| {
            i += 1;
            raw[i - 1]
        })
    }

    /// Any bytes.
    pub fn bytes<T>(&mut self, len: usize) -> *const T {
        self.buffer::<T>(len, Kind::Read, |g| g.below(256) as u8)
    }

    /// Elements to be read.
    pub fn elements<T: bytemuck::Pod>(&mut self, mut values: Vec<T>) -> *const T {
        if !values.is_empty() && self.is_hostile() {
            let (i, bytes) = (self.below(values.len()), size_of::<T>());
            let garbage = self.below(256) as u8;
            bytemuck::cast_slice_mut::<T, u8>(&mut values)[i * bytes..(i + 1) * bytes].fill(garbage);
        }
        let raw: &[u8] = bytemuck::cast_slice(&values);
        let mut i = 0;
        self.buffer::<T>(values.len(), Kind::Read, |_| {
            i += 1;
            raw[i - 1]
        })
    }

    /// An options struct, which starts with its size; NULL where `or_null`, now and then.
    pub fn options<T: Copy>(&mut self, value: &T, or_null: bool) -> *const T {
        if or_null && self.below(4) == 0 {
            self.is_cut = true;
            return std::ptr::null();
        }
        // SAFETY: options have no padding: the library asserts it.
        let raw =
            unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) };
        let (mut raw, mut i) = (raw.to_vec(), 0);
        if self.is_hostile() {
            let size = size_of::<usize>();
            match self.below(4) {
                // Of an older header: a struct that ends earlier.
                0 => {
                    raw.truncate(size * (1 + self.below(raw.len() / size)));
                    self.is_cut = true;
                }
                // Of a newer one.
                1 => {
                    let byte = self.below(2) as u8;
                    raw.extend([byte; 16]);
                }
                _ => {}
            }
            let len = self.size(raw.len());
            // A size beyond what lies there would be a lie that nobody can see.
            let told = if len > 4096 || len < size { len } else { raw.len() };
            raw[..size].copy_from_slice(&told.to_ne_bytes());
        }
        let start = self.raw(raw.len(), |_| {
            i += 1;
            raw[i - 1]
        });
        start.cast()
    }

    /// `bytes` bytes, whole words, at the end of a slot.
    fn raw(&mut self, bytes: usize, fill: impl FnMut(&mut Arguments) -> u8) -> *const u8 {
        assert!(bytes.is_multiple_of(size_of::<usize>()));
        self.buffer::<usize>(bytes / size_of::<usize>(), Kind::Struct, fill).cast_const().cast()
    }

    /// An object, or none.
    pub fn handle<T>(&mut self, good: *mut T) -> *mut T {
        match self.is_hostile() {
            true if self.below(2) == 0 => std::ptr::null_mut(),
            true if align_of::<T>() > 1 => self.guard().wrapping_byte_add(1).cast(),
            _ => good,
        }
    }

    /// What the arrays hold that the call may write.
    pub fn written(&self) -> Vec<u8> {
        let written = self.buffers.iter().filter(|buffer| buffer.kind == Kind::Written);
        // SAFETY: live buffers of slots.
        written
            .flat_map(|b| unsafe { std::slice::from_raw_parts(b.start, b.before.len()) }.to_vec())
            .collect()
    }

    /// A call that was refused has changed nothing; one that succeeded, no input.
    pub fn check(&self, refused: bool, what: &dyn Fn() -> String) {
        let unchanged = |buffer: &&Buffer| match buffer.kind {
            Kind::Read => refused || !self.is_cut,
            Kind::Struct => true,
            Kind::Written | Kind::Value => refused,
        };
        for buffer in self.buffers.iter().filter(unchanged) {
            // SAFETY: a live buffer of a slot.
            let now = unsafe { std::slice::from_raw_parts(buffer.start, buffer.before.len()) };
            if let Some(i) = now.iter().zip(&buffer.before).position(|(now, before)| now != before) {
                panic!("{}: byte {i} of {} changed", what(), buffer.before.len());
            }
        }
    }
}
