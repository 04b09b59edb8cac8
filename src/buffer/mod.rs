//! Aligned storage and the caller-owned workspace.
//!
//! Every buffer starts at a 64-byte boundary: a cache line and a zmm register. Buffers of 2 MiB and more
//! request 2 MiB pages from Linux, because each 4 KiB page costs a sequential read a TLB walk
//! (docs/TUNING.md, huge pages).

mod fallible;
mod mapped;
mod memory;

pub(crate) use fallible::{Shared, boxed, copied, vector, vector_of};
pub use mapped::{MappedFile, Unchanged};
pub use memory::{ALIGN, Memory};

use crate::error::{Error, Result, at_least, product, text};
use aligned_vec::{AVec, ConstAlign};
use bytemuck::Pod;
use memory::Block;

/// Size of a huge page, in bytes (x86-64 and most aarch64 systems).
const HUGE_PAGE: usize = 2 << 20;

/// The storage behind a buffer. Huge buffers are aligned to a huge page as well, or `madvise` could not
/// cover their first and last part.
enum Storage<T> {
    Line(AVec<T, ConstAlign<ALIGN>>),
    Huge(AVec<T, ConstAlign<HUGE_PAGE>>),
    /// `len` elements from byte `offset` of a mapped file; read-only.
    Mapped {
        file: MappedFile,
        offset: usize,
        len: usize,
    },
    /// From a caller's [`Memory`].
    Given(Block<T>),
}

/// A zero-initialised, fixed-size, 64-byte aligned buffer of plain data.
///
/// A clone has memory of its own, from the process's allocator; a mapped file is shared.
pub struct AlignedBuf<T: Pod>(Storage<T>);

impl<T: Pod> AlignedBuf<T> {
    /// A buffer of `len` zeroed elements.
    ///
    /// **Errors**: [`Error::Overflow`] when `len` elements exceed the address space, [`Error::Resource`]
    /// when the system has no such memory. **Cost**: one allocation; pages are touched once.
    pub fn zeroed(len: usize) -> Result<AlignedBuf<T>> {
        AlignedBuf::zeroed_in(None, len)
    }

    /// [`AlignedBuf::zeroed`] in a caller's memory, where there is one.
    ///
    /// **Errors**: also [`Error::Option`] for memory that is not aligned.
    pub(crate) fn zeroed_in(memory: Option<&Shared<dyn Memory>>, len: usize) -> Result<AlignedBuf<T>> {
        let bytes = product("buffer bytes", &[len, size_of::<T>()])?;
        if bytes > isize::MAX as usize - HUGE_PAGE {
            // Rounded up to the alignment it would no longer be a valid layout, which aligned-vec does
            // not check.
            return Err(Error::Resource { what: "bytes", amount: bytes });
        }
        if let (Some(memory), 1..) = (memory, bytes) {
            return Ok(AlignedBuf(Storage::Given(Block::zeroed(memory, len)?)));
        }
        if bytes < HUGE_PAGE {
            let mut v = AVec::new(ALIGN);
            v.try_reserve_exact(len).map_err(|_| Error::Resource { what: "bytes", amount: bytes })?;
            v.resize(len, T::zeroed());
            return Ok(AlignedBuf(Storage::Line(v)));
        }
        let mut v: AVec<T, ConstAlign<HUGE_PAGE>> = AVec::new(HUGE_PAGE);
        v.try_reserve_exact(len).map_err(|_| Error::Resource { what: "bytes", amount: bytes })?;
        // Before the first write: pages are then faulted in as huge ones at once.
        advise_huge_pages(v.as_ptr().cast(), bytes);
        v.resize(len, T::zeroed());
        Ok(AlignedBuf(Storage::Huge(v)))
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        match &self.0 {
            Storage::Line(v) => v,
            Storage::Huge(v) => v,
            Storage::Given(block) => block.as_slice(),
            Storage::Mapped { file, offset, len } => {
                bytemuck::cast_slice(&file.bytes()[*offset..*offset + len * size_of::<T>()])
            }
        }
    }

    /// The elements, writable; empty for a mapped file, which is read-only.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match &mut self.0 {
            Storage::Line(v) => v,
            Storage::Huge(v) => v,
            Storage::Given(block) => block.as_mut_slice(),
            Storage::Mapped { .. } => &mut [],
        }
    }

    /// `len` elements of a mapped file, in place.
    ///
    /// **Errors**: [`Error::Length`] when the file ends before; [`Error::Option`] for an offset that does not
    /// align the elements.
    pub fn mapped(file: &MappedFile, offset: usize, len: usize) -> Result<AlignedBuf<T>> {
        let bytes = product("buffer bytes", &[len, size_of::<T>()])?;
        let end = offset.checked_add(bytes).ok_or(Error::Overflow { what: "offset" })?;
        at_least("file bytes", file.bytes().len(), end)?;
        if !offset.is_multiple_of(ALIGN) {
            let allowed = "a multiple of the alignment of 64";
            return Err(Error::Option { what: "offset", got: text(offset), allowed });
        }
        Ok(AlignedBuf(Storage::Mapped { file: file.clone(), offset, len }))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(self.as_slice())
    }
}

impl<T: Pod> Clone for AlignedBuf<T> {
    fn clone(&self) -> AlignedBuf<T> {
        AlignedBuf(match &self.0 {
            Storage::Line(v) => Storage::Line(v.clone()),
            Storage::Huge(v) => {
                // Not `v.clone()`, whose pages stay small and are read more slowly
                // (docs/TUNING.md, huge pages).
                let mut copy: AVec<T, ConstAlign<HUGE_PAGE>> = AVec::with_capacity(HUGE_PAGE, v.len());
                advise_huge_pages(copy.as_ptr().cast(), size_of_val(v.as_slice()));
                copy.extend_from_slice(v);
                Storage::Huge(copy)
            }
            Storage::Given(block) => Storage::Line(AVec::from_slice(ALIGN, block.as_slice())),
            Storage::Mapped { file, offset, len } => {
                Storage::Mapped { file: file.clone(), offset: *offset, len: *len }
            }
        })
    }
}

impl<T: Pod> std::fmt::Debug for AlignedBuf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.bytes())
    }
}

/// Asks for 2 MiB pages over `bytes` from `start`. A refusal is no error: the pages stay small.
#[cfg(target_os = "linux")]
fn advise_huge_pages(start: *const u8, bytes: usize) {
    // SAFETY: the range is inside one live allocation of ours that starts at a page boundary, and
    // MADV_HUGEPAGE changes no contents.
    unsafe { libc::madvise(start.cast_mut().cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_start: *const u8, _bytes: usize) {}

/// Scratch memory for compute calls, owned by the caller: the calls allocate nothing.
///
/// Size it by the queries (`workspace_bytes`) of the calls that it serves; one workspace serves any number
/// of calls, one at a time. A call that finds it too small returns [`Error::Workspace`] and changes nothing.
#[derive(Debug)]
pub struct Workspace {
    buf: AlignedBuf<u8>,
    /// Where it grows.
    memory: Option<Shared<dyn Memory>>,
}

impl Workspace {
    /// A workspace of `bytes` bytes.
    ///
    /// **Errors**: as [`AlignedBuf::zeroed`].
    pub fn new(bytes: usize) -> Result<Workspace> {
        Ok(Workspace { buf: AlignedBuf::zeroed(bytes)?, memory: None })
    }

    /// A workspace of `bytes` bytes in a caller's memory, where there is one.
    pub(crate) fn new_in(memory: Option<&Shared<dyn Memory>>, bytes: usize) -> Result<Workspace> {
        Ok(Workspace { buf: AlignedBuf::zeroed_in(memory, bytes)?, memory: memory.cloned() })
    }

    /// Grows the workspace to at least `bytes` bytes; contents are scratch and may be lost.
    ///
    /// **Errors**: as [`AlignedBuf::zeroed`]; the old workspace is then still there.
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.bytes() {
            self.buf = AlignedBuf::zeroed_in(self.memory.as_ref(), bytes)?;
        }
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.buf.bytes()
    }

    /// All of the scratch as an arena.
    pub(crate) fn all(&mut self) -> Arena<'_> {
        Arena(self.buf.as_mut_slice())
    }

    /// The scratch as an arena of at least `need` bytes.
    pub(crate) fn arena(&mut self, need: usize) -> Result<Arena<'_>> {
        let got = self.bytes();
        if got < need {
            return Err(Error::Workspace { got, need });
        }
        Ok(Arena(&mut self.buf.as_mut_slice()[..need]))
    }
}

/// Hands out typed, 64-byte aligned parts of a workspace, front to back.
pub(crate) struct Arena<'a>(&'a mut [u8]);

impl<'a> Arena<'a> {
    /// An arena over memory that starts at an [`ALIGN`] boundary.
    pub(crate) fn over(bytes: &'a mut [u8]) -> Arena<'a> {
        Arena(bytes)
    }

    /// All that is left, as bytes.
    pub(crate) fn rest(self) -> &'a mut [u8] {
        self.0
    }

    /// The bytes that [`Arena::take`] uses for `len` elements of `T`.
    pub(crate) fn bytes_for<T: Pod>(len: usize) -> Result<usize> {
        let bytes = product("workspace bytes", &[len, size_of::<T>()])?;
        Ok(bytes.next_multiple_of(ALIGN))
    }

    /// The next `len` elements; contents are whatever an earlier call left.
    pub(crate) fn take<T: Pod>(&mut self, len: usize) -> Result<&'a mut [T]> {
        let bytes = Self::bytes_for::<T>(len)?;
        let all = std::mem::take(&mut self.0);
        if bytes > all.len() {
            return Err(Error::Workspace { got: all.len(), need: bytes });
        }
        let (head, tail) = all.split_at_mut(bytes);
        self.0 = tail;
        Ok(&mut bytemuck::cast_slice_mut(head)[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0, 1, 63, 1000, 3 << 20] {
            let b = AlignedBuf::<f32>::zeroed(len).unwrap();
            assert_eq!(b.as_slice().len(), len);
            assert_eq!(b.as_slice().as_ptr() as usize % ALIGN, 0);
            assert!(b.as_slice().iter().all(|&x| x == 0.0));
            assert_eq!(b.bytes(), 4 * len);
        }
        assert_eq!(format!("{:?}", AlignedBuf::<u8>::zeroed(3).unwrap()), "AlignedBuf(3 bytes)");
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(matches!(AlignedBuf::<f32>::zeroed(usize::MAX), Err(Error::Overflow { .. })));
        assert!(matches!(AlignedBuf::<u8>::zeroed(isize::MAX as usize - 64), Err(Error::Resource { .. })));
    }

    #[test]
    fn arenas_hand_out_disjoint_aligned_parts() {
        let need = Arena::bytes_for::<f32>(3).unwrap() + Arena::bytes_for::<i8>(65).unwrap();
        assert_eq!(need, 64 + 128);
        let mut ws = Workspace::new(need).unwrap();
        let mut arena = ws.arena(need).unwrap();
        let a = arena.take::<f32>(3).unwrap();
        let b = arena.take::<i8>(65).unwrap();
        a.fill(1.0);
        b.fill(2);
        assert_eq!(a, [1.0; 3]);
        assert!(arena.take::<u8>(1).is_err());
        assert_eq!(ws.arena(need + 1).err(), Some(Error::Workspace { got: need, need: need + 1 }));
        ws.reserve(need + 1).unwrap();
        assert!(ws.arena(need + 1).is_ok());
    }
}
